#include "api/heap_calls.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "api/bad_pointer.h"
#include "process/background.h"
#include "api/large_calls.h"
#include "api/placed.h"
#include "process/process.h"
#include "base/bits.h"
#include "cache/tiny.h"

namespace nh {
namespace {

void* out_of_memory() {
  errno = ENOMEM;
  return nullptr;
}
void* or_out_of_memory(void* p) { return p != nullptr ? p : out_of_memory(); }

// untouched: as for CpuCaches::alloc().
void* allocate_small(SpanClass c, bool* untouched = nullptr) {
  void* p = g_caches.alloc(c, untouched);
  // What CPUs keep of large objects is memory, too.
  if (p == nullptr && g_caches.drain_large()) p = g_caches.alloc(c, untouched);
  if (p == nullptr) return out_of_memory();
  if (has_mark(c) && (untouched == nullptr || !*untouched)) unmark(p);
  return p;
}

// What a pointer names. Aborts on anything but the start of an object that its span does not know to be free; an object
// of a cache that carries its mark is found out, too.
struct Object {
  MSpan* span;
  SpanClass span_class;
  std::size_t usable;
};

Object object_at(const void* p, const char* call) {
  if (!started() || !g_process.space.contains(p)) bad_pointer(p, call);
  const PageEntry entry = g_process.space.entry(p);
  MSpan* span = g_process.space.span_of(p);
  if (entry == 0 || span == nullptr) bad_pointer(p, call);
  const SpanClass c = entry_class(entry);
  const std::size_t offset = address(p) - span->start_addr;
  if (c == kLargeClass) {
    if (address(p) != span->object_addr() || span->use != SpanUse::kInUse) bad_pointer(p, call);
    return {span, c, span->elem_size};
  }
  if (c == kTinyClass) {
    const std::size_t usable = tiny_usable(g_caches, p, *span);
    if (usable == 0) bad_pointer(p, call);
    return {span, c, usable};
  }
  const SizeClass& size = size_class(c);
  if (!is_object_start(size, static_cast<std::uint32_t>(offset)) || offset >= std::size_t{size.bytes} * size.objects) {
    bad_pointer(p, call);
  }
  if (has_mark(c) ? mark_word(const_cast<void*>(p)) == free_mark(p) : !eight_is_object(p, *span)) bad_pointer(p, call);
  return {span, c, size.bytes};
}

}  // namespace

void* allocate_slow(std::size_t size) {
  if (!ensure_started()) return out_of_memory();
  return allocate_small(class_for(size));
}

void* allocate_noscan(std::size_t size) {
  if (size >= kTinySize && size <= kMaxSmallSize) [[likely]] {
    void* p;
    if (mcache_alloc_class(noscan_class_for(size), &p)) [[likely]] return p;
  }
  if (size > kMaxSmallSize) return allocate_large(size, true);
  if (!ensure_started()) return out_of_memory();
  if (size == 8) return or_out_of_memory(eight_alloc(g_caches));
  if (size < kTinySize && size != 0) return or_out_of_memory(tiny_alloc(g_caches, size));
  return allocate_small(noscan_class_for(size == 0 ? 16 : size));
}

void* allocate_aligned(std::size_t alignment, std::size_t size, bool noscan) {
  void* p;
  const SpanClass c = class_for_aligned(size, alignment < 16 ? 16 : alignment, noscan);
  if (!c.none() && mcache_alloc_class(c, &p)) return p;
  if (!ensure_started() || size > PTRDIFF_MAX) return out_of_memory();
  if (!c.none()) return allocate_small(c);
  return allocate_large_aligned(size, alignment, noscan);
}

namespace {

// Where this CPU has no object at hand, one whose pages nobody has written to need not be cleared.
[[gnu::noinline]] void* allocate_zeroed_slow(std::size_t bytes, bool noscan) {
  bool untouched = false;
  void* p;
  if (bytes < kMinUntouched) {
    p = noscan ? allocate_noscan(bytes) : allocate_slow(bytes);
  } else if (!ensure_started()) {
    return out_of_memory();
  } else if (!noscan || !mcache_alloc_class(noscan_class_for(bytes), &p)) {
    p = allocate_small(noscan ? noscan_class_for(bytes) : class_for(bytes), &untouched);
  }
  return p == nullptr || untouched ? p : std::memset(p, 0, bytes);
}

}  // namespace

void* allocate_zeroed(std::size_t count, std::size_t size, bool noscan) {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return out_of_memory();
  if (bytes <= kMaxSmallSize) {
    void* p;
    if (!noscan && mcache_alloc_small(bytes, &p)) return std::memset(p, 0, bytes);
    return allocate_zeroed_slow(bytes, noscan);
  }
  return allocate_large_zeroed(bytes, noscan);
}

namespace {

// An object that has its mark. caller: the code that free() returns to, which memory_was_freed() wants to know.
void free_full(void* p, const void* caller) {
  const int saved = errno;
  const SpanClass c = entry_class(g_process.space.entry(p));
  if (is_bin(c)) {
    free_large(g_process.space.span_of(p));
  } else {
    g_caches.free(p, c, g_process.space.heap_of(p));
  }
  memory_was_freed(caller);
  errno = saved;
}

void free_odd(void* p, const void* caller) {
  if (p == nullptr) return;
  if (!g_process.space.contains(p)) bad_pointer(p, "free");
  const PageEntry entry = g_process.space.entry(p);
  MSpan* span = g_process.space.span_of(p);
  if (entry == 0 || span == nullptr) bad_pointer(p, "free");
  const SpanClass c = entry_class(entry);
  if (c == kLargeClass) {
    if (address(p) != span->object_addr() || span->use != SpanUse::kInUse) bad_pointer(p, "free");
    if (mcache_keep_extent(span)) return;
  }
  const int saved = errno;
  if (c == kLargeClass) {
    free_large(span);
    memory_was_freed(caller);
  } else if (c == kTinyClass) {
    if (!tiny_free(g_caches, p, *span)) bad_pointer(p, "free");
  } else if (!has_mark(c)) {
    if (!eight_free(g_caches, p, *span)) bad_pointer(p, "free");
  } else {
    const SizeClass& size = size_class(c);
    const std::size_t offset = address(p) - span->start_addr;
    const bool object = is_object_start(size, static_cast<std::uint32_t>(offset)) &&
                        offset < std::size_t{size.bytes} * size.objects;
    if (!object) bad_pointer(p, "free");
    // The mark depends on the address and a random key, and malloc() clears it: no program writes it by accident. The bits
    // of the span cannot be asked, since they say nothing about an object in a cache, and a cache cannot always be emptied
    // (no membarrier) or fills again meanwhile.
    if (mark_word(p) == free_mark(p)) double_free(p, "free");
    mark_word(p) = free_mark(p);
    return free_full(p, caller);
  }
  errno = saved;
}

// release() from inside a longer call, which release() would take for the caller itself.
void release_for(void* p, const void* caller) {
  switch (mcache_free(p)) {
    case FreeOutcome::kDone: return;
    case FreeOutcome::kOdd: return free_odd(p, caller);
    case FreeOutcome::kFull: return free_full(p, caller);
  }
}

}  // namespace

void release_full(void* p) { free_full(p, __builtin_return_address(0)); }
void release_odd(void* p) { free_odd(p, __builtin_return_address(0)); }

void release_sized(void* p, std::size_t size, std::size_t alignment, bool exact) {
  if (p == nullptr) return;
  const Object object = object_at(p, "free");
  if (size > object.usable) size_mismatch(p, size, object.usable);
  if (!is_large(object.span_class) && object.span_class != kTinyClass) {
    const SpanClass expected = alignment > 16 ? class_for_aligned(size, alignment, false) : class_for(size);
    const bool same = size_class_of(expected) == size_class_of(object.span_class);
    // realloc() leaves an object in place while it still fills more than half of it.
    if (!same && (exact || size * 2 <= object.usable)) size_mismatch(p, size, object.usable);
  } else if (exact && is_large(object.span_class) && alignment <= kPageSize && size <= kMaxSmallSize) {
    size_mismatch(p, size, object.usable);
  }
  release(p);
}

std::size_t usable_size(const void* p) {
  LiveObject live;
  if (mcache_find(p, &live)) return size_class(entry_class(live.entry)).bytes;
  return p == nullptr ? 0 : object_at(p, "malloc_usable_size").usable;
}

namespace {

// realloc() treats sizes from here on as large: those grow and shrink by pages, where they are.
constexpr std::size_t kMinByPages = kMaxSmallSize / 2 + 1;
constexpr std::size_t as_large(std::size_t size) { return size > kMaxSmallSize ? size : kMaxSmallSize + 1; }

// Whether an object on a page of this kind stays where it is when it gets this size. False, too, where malloc() serves no
// size from its class.
bool stays(std::size_t kind, std::size_t size) {
  const std::size_t most = kSizesOfKind.most[kind];
  if (most > kMaxSmallSize) return size >= kMinByPages && as_large(size) > kSizesOfKind.below[kind] && size <= most;
  return size <= most && (size * 2 > most || size > kSizesOfKind.below[kind]);
}

// An object that grew once grows again, and classes are an eighth apart: a quarter more halves the number of copies
// (16 texts that grow to 32 KiB bit by bit: 14.5 ns per append, so 9). Above 16 KiB the smallest large object takes it,
// which grows without being copied (a block that grows to 1 MiB by half of its size: 2.7 us, so 1.7).
std::size_t with_room_to_grow(std::size_t size, std::size_t old_usable, bool placed) {
  if (size <= old_usable || size > kMaxSmallSize) return size;
  // Placed ones have no bin, and may lie where every large object takes 2 MiB.
  if (size >= kMinByPages && !placed && g_large_route.bin_max > kMaxSmallSize) return as_large(size);
  const std::size_t roomy = old_usable + old_usable / 4;
  return size < roomy && roomy <= kMaxSmallSize ? roomy : size;
}

// Whether a large object that gets this size should stand elsewhere: first-touch memory comes in units of 2 MiB, and less
// than half of one belongs to other heaps. Placed objects stay where they were asked for.
bool should_leave(const MSpan& span, std::size_t size) {
  return HeapId(span.heap) == g_process.first_touch && !span.placed() && size < g_large_route.extent_min &&
         size <= kHugeSize / 2;
}

void* allocate_like(const MSpan& span, std::size_t size) {
  if (span.placed()) return allocate_beside(span, size);
  return span.noscan() ? allocate_noscan(size) : allocate(size);
}

[[gnu::noinline]] void* reallocate_slow(void* p, std::size_t size, const void* caller) {
  if (p == nullptr) return allocate(size);
  const Object object = object_at(p, "realloc");
  if (size == 0) {
    release_for(p, caller);
    return nullptr;
  }
  if (size > PTRDIFF_MAX) return out_of_memory();
  if (is_large(object.span_class)) {
    if (size >= kMinByPages && !should_leave(*object.span, size) &&
        g_process.heaps.resize_large(object.span, as_large(size), current_node())) {
      return p;
    }
  } else if (size <= object.usable && size * 2 > object.usable) {
    return p;
  }
  const int saved = errno;
  const std::size_t wanted = with_room_to_grow(size, object.usable, object.span->placed());
  void* moved = allocate_like(*object.span, wanted);
  if (moved == nullptr && wanted != size) moved = allocate_like(*object.span, size);
  // Shrinking cannot fail: the object stays as it is.
  if (moved == nullptr && size > object.usable) return nullptr;
  errno = saved;
  if (moved == nullptr) return p;
  std::memcpy(moved, p, size < object.usable ? size : object.usable);
  release_for(p, caller);
  return moved;
}

// An object of a cache that does not stay. Between two classes of malloc() with what this CPU has at hand, if that will do.
[[gnu::noinline]] void* move_small(void* p, PageEntry entry, std::size_t size, const void* caller) {
  const SpanClass c = entry_class(entry);
  const bool plain = c.is_small() && !c.is_placed() && !c.noscan();
  const std::size_t usable = size_class(c).bytes;
  void* moved;
  if (!plain || size == 0 || !mcache_alloc(with_room_to_grow(size, usable, false), &moved)) {
    return reallocate_slow(p, size, caller);
  }
  std::memcpy(moved, p, size < usable ? size : usable);
  if (!mcache_push(p, {entry, free_mark(p)})) free_full(p, caller);
  return moved;
}

}  // namespace

void* reallocate(void* p, std::size_t size) {
  LiveObject live;
  if (!mcache_find(p, &live)) return reallocate_slow(p, size, __builtin_return_address(0));
  return stays(entry_kind(live.entry), size) ? p : move_small(p, live.entry, size, __builtin_return_address(0));
}

}  // namespace nh
