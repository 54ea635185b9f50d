// operator new and delete, all forms, without libstdc++.
//
// When memory is exhausted the standard asks for a loop over the new_handler and then std::bad_alloc, and both live in
// libstdc++ (or libc++), of which the library must not depend. They are looked up at that moment: a weak reference
// first, then the global scope, then whatever C++ runtime is loaded at all (a C program may have dlopened a C++ plugin
// with RTLD_LOCAL). Only where there is none does the process abort, because then nobody could catch anything.
#include <cerrno>
#include <cstddef>
#include <new>

#include <dlfcn.h>

#include "api/heap_calls.h"
#include "api/large_calls.h"
#include "base/bits.h"
#include "base/build.h"
#include "base/check.h"
#include "base/format.h"
#include "os/loader.h"

namespace std {
// Thrown by address only; its definition is libstdc++'s.
[[gnu::weak]] void __throw_bad_alloc();
}  // namespace std
extern "C" {
[[gnu::weak]] void (*_ZSt15get_new_handlerv())();
}

namespace nh {
namespace {

using Handler = void (*)();
using GetHandler = Handler (*)();
using Throw = void (*)();

constexpr const char* kRuntimes[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};

void* find_in_runtime(const char* name) {
  if (!has_loader()) return nullptr;
  if (void* symbol = find_symbol(RTLD_DEFAULT, name); symbol != nullptr) return symbol;
  for (const char* runtime : kRuntimes) {
    void* handle = open_library(runtime, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == nullptr) continue;
    // NOLOAD counted a reference: it stays, since an exception from there may be in flight.
    if (void* symbol = find_symbol(handle, name); symbol != nullptr) return symbol;
  }
  return nullptr;
}

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

// Tries again as long as a new_handler is installed; nullptr when none is.
[[gnu::noinline, gnu::cold]] void* retry(std::size_t size, std::size_t alignment) {
  for (;;) {
    Handler handler = current_handler();
    if (handler == nullptr) return nullptr;
    handler();  // may throw, or free something
    void* p = alignment == 0 ? allocate(size) : allocate_aligned(alignment, size);
    if (p != nullptr) return p;
  }
}

[[gnu::noinline, gnu::cold]] void* retry_or_throw(std::size_t size, std::size_t alignment) {
  void* p = retry(size, alignment);
  if (p == nullptr) throw_bad_alloc(size);
  return p;
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

// The nothrow forms call the handler, too, and it may throw: then they return nullptr. libnumaheap is built without
// exceptions, so catching is left to the C++ runtime's own nothrow form, which calls the throwing one, that is ours, in a
// try block. Without such a runtime (a static program) what a handler throws ends the process.
[[gnu::noinline, gnu::cold]] void* retry_nothrow(std::size_t size, std::size_t alignment) {
  if (current_handler() == nullptr) return nullptr;
  for (const char* runtime : kRuntimes) {
    void* handle = open_library(runtime, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == nullptr) continue;
    if (alignment == 0) {
      using New = void* (*)(std::size_t, const std::nothrow_t&);
      if (auto theirs = reinterpret_cast<New>(find_symbol(handle, "_ZnwmRKSt9nothrow_t"))) return theirs(size, std::nothrow_t());
    } else {
      using New = void* (*)(std::size_t, std::align_val_t, const std::nothrow_t&);
      if (auto theirs = reinterpret_cast<New>(find_symbol(handle, "_ZnwmSt11align_val_tRKSt9nothrow_t"))) {
        return theirs(size, std::align_val_t{alignment}, std::nothrow_t());
      }
    }
  }
  return retry(size, alignment);
}

void* new_nothrow(std::size_t size) {
  void* p = allocate(size);
  return p != nullptr ? p : retry_nothrow(size, 0);
}
void* new_aligned_nothrow(std::size_t size, std::align_val_t alignment) {
  void* p = allocate_aligned(static_cast<std::size_t>(alignment), size);
  return p != nullptr ? p : retry_nothrow(size, static_cast<std::size_t>(alignment));
}

// Where sizes are trusted and the fast path could not go by them. Marked: the object has its mark by now, but nobody has
// looked at it.
[[gnu::noinline]] void delete_trusted_slow(void* p, std::size_t size) { release_sized(p, size, 1, true); }
[[gnu::noinline]] void delete_marked_slow(void* p, std::size_t size) {
  mark_word(p) = 0;
  release_sized(p, size, 1, true);
}

[[gnu::always_inline]] inline void delete_sized(void* p, std::size_t size) {
  if (kTrustSizes && size - 1 < kMaxSmallSize) [[likely]] {
    switch (mcache_free_trusting(p, size)) {
      case FreeOutcome::kDone: return;
      case FreeOutcome::kOdd: return delete_trusted_slow(p, size);
      case FreeOutcome::kFull: return delete_marked_slow(p, size);
    }
  }
  release_sized_fast(p, size, 1, true);
}

}  // namespace
}  // namespace nh

#define NH_PUBLIC [[gnu::visibility("default")]]
#define NH_PUBLIC_HOT NH_PUBLIC [[gnu::aligned(64)]]  // malloc.cc says why

NH_PUBLIC_HOT void* operator new(std::size_t size) { return nh::new_object(size); }
NH_PUBLIC void* operator new[](std::size_t size) { return nh::new_object(size); }
NH_PUBLIC void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return nh::new_nothrow(size); }
NH_PUBLIC void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return nh::new_nothrow(size); }
NH_PUBLIC_HOT void* operator new(std::size_t size, std::align_val_t a) { return nh::new_aligned(size, a); }
NH_PUBLIC void* operator new[](std::size_t size, std::align_val_t a) { return nh::new_aligned(size, a); }
NH_PUBLIC void* operator new(std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept {
  return nh::new_aligned_nothrow(size, a);
}
NH_PUBLIC void* operator new[](std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept {
  return nh::new_aligned_nothrow(size, a);
}

NH_PUBLIC_HOT void operator delete(void* p) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p) noexcept { nh::release(p); }
NH_PUBLIC void operator delete(void* p, const std::nothrow_t&) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p, const std::nothrow_t&) noexcept { nh::release(p); }
NH_PUBLIC_HOT void operator delete(void* p, std::size_t size) noexcept { nh::delete_sized(p, size); }
NH_PUBLIC void operator delete[](void* p, std::size_t size) noexcept { nh::delete_sized(p, size); }
NH_PUBLIC void operator delete(void* p, std::align_val_t) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p, std::align_val_t) noexcept { nh::release(p); }
NH_PUBLIC void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { nh::release(p); }
NH_PUBLIC void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { nh::release(p); }
NH_PUBLIC_HOT void operator delete(void* p, std::size_t size, std::align_val_t a) noexcept {
  nh::release_sized_fast(p, size, static_cast<std::size_t>(a), true);
}
NH_PUBLIC void operator delete[](void* p, std::size_t size, std::align_val_t a) noexcept {
  nh::release_sized_fast(p, size, static_cast<std::size_t>(a), true);
}
