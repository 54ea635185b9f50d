// operator new and delete, without libstdc++.
//
// When memory is exhausted the standard asks for a loop over the new_handler and then std::bad_alloc, and both live in
// libstdc++ (or libc++), of which the library must not depend. They are looked up at that moment: a weak reference
// first, then what is loaded (cxx_runtime.h). Only where there is none does the process abort, because then nobody could
// catch anything.
//
// A program may replace operator new(size_t) and operator delete(void*) alone, and the other forms must call what it has:
//   - The array forms do nothing else.
//   - delete with a size looks, before it takes its fast path for the first time, whether all forms without a size are
//     ours. As long as they are not, HotState::delete_bytes stays 0, and no pointer gets past its first comparison.
//   - The nothrow forms call the others in a try block, for which the library, built without exceptions, has no means. They
//     are not here: those of the C++ runtime do just that, with our forms too.
#include <cerrno>
#include <cstddef>
#include <new>

#include "api/cxx_runtime.h"
#include "api/heap_calls.h"
#include "large/large.h"
#include "base/bits.h"
#include "base/build.h"
#include "base/check.h"
#include "base/format.h"
#include "os/loader.h"

namespace std {
// Thrown by address only; its definition is libstdc++'s.
[[gnu::weak]] void __throw_bad_alloc();
}  // namespace std
extern "C" [[gnu::weak]] void (*_ZSt15get_new_handlerv())();

namespace nh {
namespace {

using Handler = void (*)();
using GetHandler = Handler (*)();
using Throw = void (*)();

void* find_in_runtime(const char* name) { return &find_in_cxx_runtime != nullptr ? find_in_cxx_runtime(name) : nullptr; }

Handler current_handler() {
  GetHandler get = &_ZSt15get_new_handlerv;
  if (get == nullptr) get = reinterpret_cast<GetHandler>(find_in_runtime("_ZSt15get_new_handlerv"));
  return get == nullptr ? nullptr : get();
}

[[noreturn]] void throw_bad_alloc(std::size_t size) {
  Throw thrower = &std::__throw_bad_alloc;
  if (thrower == nullptr) thrower = reinterpret_cast<Throw>(find_in_runtime("_ZSt17__throw_bad_allocv"));
  if (thrower != nullptr) thrower();
  Text<160> text;
  text.text("operator new: out of memory for ").dec(size).text(" bytes, and no C++ runtime to throw std::bad_alloc");
  fatal(text.c_str());
}

// Tries again as long as a new_handler is installed.
[[gnu::noinline, gnu::cold]] void* retry_or_throw(std::size_t size, std::size_t alignment) {
  for (;;) {
    Handler handler = current_handler();
    if (handler == nullptr) throw_bad_alloc(size);
    handler();  // may throw, or free something
    void* p = alignment == 0 ? allocate(size) : allocate_aligned(alignment, size);
    if (p != nullptr) return p;
  }
}

// Out of line, so that operator new jumps here and needs no stack frame.
[[gnu::noinline]] void* new_slow(std::size_t size) {
  void* p = allocate(size);
  return p != nullptr ? p : retry_or_throw(size, 0);
}
[[gnu::noinline]] void* new_large(std::size_t size) {
  void* p;
  if (allocate_bin_fast(size, false, &p)) return p;
  return new_slow(size);
}

[[gnu::always_inline]] inline void* new_object(std::size_t size) {
  void* p;
  if (mcache_alloc(size, &p)) [[likely]] return p;
  return size > kMaxSmallSize ? new_large(size) : new_slow(size);
}
[[gnu::noinline]] void* new_aligned_slow(std::size_t size, std::size_t alignment) {
  void* p = allocate_aligned(alignment, size);
  return p != nullptr ? p : retry_or_throw(size, alignment);
}
[[gnu::always_inline]] inline void* new_aligned(std::size_t size, std::align_val_t a) {
  const auto alignment = static_cast<std::size_t>(a);
  void* p;
  if (allocate_aligned_fast(alignment, size, &p)) [[likely]] return p;
  return new_aligned_slow(size, alignment);
}

template <typename Function>
struct Form {
  Function* used;  // what a call of this form reaches
  Function* ours;
  bool is_ours() const { return used == ours; }
};
using Delete = void(void*) noexcept;
using AlignedDelete = void(void*, std::align_val_t) noexcept;

// The forms that those with a size stand for.
struct DeleteForms {
  Form<Delete> one, array;
  Form<AlignedDelete> aligned_one, aligned_array;
  bool are_ours() const { return one.is_ours() && array.is_ours() && aligned_one.is_ours() && aligned_array.is_ours(); }
};

}  // namespace
}  // namespace nh

#define NH_PUBLIC [[gnu::visibility("default")]]
#define NH_PUBLIC_HOT NH_PUBLIC [[gnu::aligned(64)]]  // malloc.cc says why

NH_PUBLIC_HOT void* operator new(std::size_t size) { return nh::new_object(size); }
NH_PUBLIC void* operator new[](std::size_t size) { return ::operator new(size); }
NH_PUBLIC_HOT void* operator new(std::size_t size, std::align_val_t a) { return nh::new_aligned(size, a); }
NH_PUBLIC void* operator new[](std::size_t size, std::align_val_t a) { return ::operator new(size, a); }
NH_PUBLIC_HOT void operator delete(void* p) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p) noexcept { ::operator delete(p); }
NH_PUBLIC void operator delete(void* p, std::align_val_t) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p, std::align_val_t a) noexcept { ::operator delete(p, a); }

namespace nh {
namespace {

// By these names the functions above are reached whatever the program has.
[[gnu::alias("_ZdlPv")]] Delete our_delete;
[[gnu::alias("_ZdaPv")]] Delete our_array_delete;
[[gnu::alias("_ZdlPvSt11align_val_t")]] AlignedDelete our_aligned_delete;
[[gnu::alias("_ZdaPvSt11align_val_t")]] AlignedDelete our_aligned_array_delete;

constinit const DeleteForms kForms = {{&::operator delete, &our_delete},
                                      {&::operator delete[], &our_array_delete},
                                      {&::operator delete, &our_aligned_delete},
                                      {&::operator delete[], &our_aligned_array_delete}};

// static_operators.S has them for the static library, where the names above are internal ones.
extern "C" [[gnu::weak, gnu::visibility("hidden")]] const DeleteForms numaheap_internal_deletes;

const DeleteForms& forms() { return &numaheap_internal_deletes != nullptr ? numaheap_internal_deletes : kForms; }

// What the fast path has declined. A program that was linked at a fixed address and takes the address of operator delete has
// a stub of its own for it: that counts as a replacement, and calls ours after all.
// The window may have grown since the last time.
void delete_here(const DeleteForms& forms, void* p, std::size_t size, std::size_t alignment) {
  if (forms.are_ours()) __atomic_store_n(&g_hot.delete_bytes, g_hot.used_bytes, __ATOMIC_RELEASE);
  release_sized(p, size, alignment, true);
}
[[gnu::noinline]] void delete_slow(void* p, std::size_t size) {
  const DeleteForms& f = forms();
  return f.one.is_ours() ? delete_here(f, p, size, 1) : f.one.used(p);
}
[[gnu::noinline]] void delete_array_slow(void* p, std::size_t size) {
  const DeleteForms& f = forms();
  return f.array.is_ours() && f.one.is_ours() ? delete_here(f, p, size, 1) : f.array.used(p);
}
[[gnu::noinline]] void delete_slow(void* p, std::size_t size, std::align_val_t a) {
  const DeleteForms& f = forms();
  return f.aligned_one.is_ours() ? delete_here(f, p, size, static_cast<std::size_t>(a)) : f.aligned_one.used(p, a);
}
[[gnu::noinline]] void delete_array_slow(void* p, std::size_t size, std::align_val_t a) {
  const DeleteForms& f = forms();
  const bool here = f.aligned_array.is_ours() && f.aligned_one.is_ours();
  return here ? delete_here(f, p, size, static_cast<std::size_t>(a)) : f.aligned_array.used(p, a);
}

// Where sizes are trusted and the list has no room: the object has its mark by now, but nobody has looked at it.
[[gnu::noinline]] void delete_marked(void* p, std::size_t size) {
  mark_word(p) = 0;
  release_sized(p, size, 1, true);
}

// False: only the slow path can tell what is to be done.
[[gnu::always_inline]] inline bool delete_fast(void* p, std::size_t size) {
  if (kTrustSizes && size - 1 < kMaxSmallSize) [[likely]] {
    switch (mcache_free_trusting(p, size, g_hot.delete_bytes)) {
      case FreeOutcome::kDone: return true;
      case FreeOutcome::kOdd: return false;
      case FreeOutcome::kFull: return delete_marked(p, size), true;
    }
  }
  switch (mcache_free_checked(p, size, g_hot.delete_bytes)) {
    case FreeOutcome::kDone: return true;
    case FreeOutcome::kOdd: return false;
    case FreeOutcome::kFull: return release_full(p), true;
  }
  return false;
}
[[gnu::always_inline]] inline bool delete_fast(void* p, std::size_t size, std::align_val_t a) {
  const auto alignment = static_cast<std::size_t>(a);
  if (!rounding_aligns(alignment)) [[unlikely]] return false;
  switch (mcache_free_checked(p, align_up(size, alignment), g_hot.delete_bytes)) {
    case FreeOutcome::kDone: return true;
    case FreeOutcome::kOdd: return false;
    case FreeOutcome::kFull: return release_full(p), true;
  }
  return false;
}

}  // namespace
}  // namespace nh

NH_PUBLIC_HOT void operator delete(void* p, std::size_t size) noexcept {
  if (!nh::delete_fast(p, size)) nh::delete_slow(p, size);
}
NH_PUBLIC void operator delete[](void* p, std::size_t size) noexcept {
  if (!nh::delete_fast(p, size)) nh::delete_array_slow(p, size);
}
NH_PUBLIC_HOT void operator delete(void* p, std::size_t size, std::align_val_t a) noexcept {
  if (!nh::delete_fast(p, size, a)) nh::delete_slow(p, size, a);
}
NH_PUBLIC void operator delete[](void* p, std::size_t size, std::align_val_t a) noexcept {
  if (!nh::delete_fast(p, size, a)) nh::delete_array_slow(p, size, a);
}
