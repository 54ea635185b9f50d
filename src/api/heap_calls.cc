#include "api/heap_calls.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "api/bad_pointer.h"
#include "api/classify.h"
#include "large/large.h"
#include "large/sampled.h"
#include "api/placed.h"
#include "base/bits.h"
#include "cache/tiny.h"
#include "large/realloc_policy.h"
#include "process/background.h"
#include "process/memory_limit.h"
#include "process/process.h"

namespace nh {
namespace {

void* out_of_memory() {
  errno = ENOMEM;
  return nullptr;
}

// Free objects of other sizes are memory, too: no allocation fails before they have gone home.
template <typename Allocate>
void* or_out_of_memory(Allocate&& allocate) {
  void* p = allocate();
  if (p != nullptr) return p;
  release_kept();
  p = allocate();
  return p != nullptr ? p : out_of_memory();
}

// untouched: as for CpuCaches::alloc().
void* allocate_small(SpanClass c, bool* untouched = nullptr) {
  void* p = or_out_of_memory([=] { return g_caches.alloc(c, untouched); });
  if (p == nullptr) return nullptr;
  if (has_mark(c) && (untouched == nullptr || !*untouched)) unmark(p);
  return p;
}

// Aborts on anything but the start of an object that is not known to be free.
Found object_at(const void* p, const char* call) {
  const Found found = classify(p);
  if (found.kind != PointerKind::kObject) bad_pointer(p, call, found);
  return found;
}

}  // namespace

void* allocate_slow(std::size_t size) {
  if (!ensure_started()) return out_of_memory();
  if (void* p = allocate_sampled(size)) return p;
  return allocate_small(class_for(size));
}

void* allocate_noscan(std::size_t size) {
  if (size >= kTinySize && size <= kMaxSmallSize) [[likely]] {
    void* p;
    if (mcache_alloc_class(noscan_class_for(size), &p)) [[likely]] return p;
  }
  if (size > kMaxSmallSize) return allocate_large(size, true);
  if (!ensure_started()) return out_of_memory();
  if (void* p = allocate_sampled(size, 16, true)) return p;
  if (size == 8) return or_out_of_memory([] { return eight_alloc(g_caches); });
  if (size < kTinySize && size != 0) return or_out_of_memory([size] { return tiny_alloc(g_caches, size); });
  return allocate_small(noscan_class_for(size == 0 ? 16 : size));
}

namespace {

// alignment: at least a page. size: less than kHugeSize.
void* allocate_paged(std::size_t alignment, std::size_t size, bool noscan) {
  void* p;
  if (!noscan && allocate_paged_fast(alignment, size, &p)) return p;
  if (!ensure_started()) return out_of_memory();
  const SpanClass c = class_for_aligned(size, alignment, noscan);
  if (c.none()) return allocate_large_paged(size, alignment, noscan);
  if ((p = allocate_sampled(size, alignment, noscan)) != nullptr) return p;
  p = or_out_of_memory([c] { return g_caches.alloc_paged(c); });
  if (p == nullptr) return nullptr;
  unmark(p);
  return p;
}

}  // namespace

void* allocate_aligned(std::size_t alignment, std::size_t size, bool noscan) {
  if (alignment >= kOsPageSize && size < kHugeSize) return allocate_paged(alignment, size, noscan);
  void* p;
  const SpanClass c = class_for_aligned(size, alignment < 16 ? 16 : alignment, noscan);
  if (!c.none() && mcache_alloc_class(c, &p)) return p;
  if (!ensure_started() || size > PTRDIFF_MAX) return out_of_memory();
  if (!c.none()) {
    p = allocate_sampled(size, alignment, noscan);
    return p != nullptr ? p : allocate_small(c);
  }
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
  } else if ((p = allocate_sampled(bytes, 16, noscan, true)) != nullptr) {
    return p;
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

[[gnu::noinline]] void free_extent_full(MSpan* span, const void* caller) {
  const int saved = errno;
  free_large(span);
  memory_was_freed(caller);
  errno = saved;
}

[[gnu::noinline]] void free_rare(void* p, const void* caller) {
  const Found found = classify(p);
  if (found.kind == PointerKind::kNull) return;
  if (found.kind != PointerKind::kObject) bad_pointer(p, "free", found);
  const int saved = errno;
  const SpanClass c = found.span_class();
  if (c == kTinyClass) {
    if (!tiny_free(g_caches, p, *found.span)) double_free(p, "free", found);
  } else if (c == kLargeClass) {
    if (!free_sampled(found.span)) double_free(p, "free", found);  // by another thread at the same time
    memory_was_freed(caller);
  } else if (!has_mark(c)) {
    if (!eight_free(g_caches, p, *found.span)) double_free(p, "free", found);
  } else {
    mark_word(p) = free_mark(p);
    return free_full(p, caller);
  }
  errno = saved;
}

[[gnu::always_inline]] inline void free_extent(MSpan* extent, const void* caller) {
  if (!mcache_free_extent(extent)) free_extent_full(extent, caller);
}

[[gnu::always_inline]] inline void free_odd(void* p, const void* caller) {
  MSpan* extent = mcache_find_extent(p);
  extent != nullptr ? free_extent(extent, caller) : free_rare(p, caller);
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
  if (MSpan* extent = mcache_find_extent(p)) {
    if (size > kMaxSmallSize && size <= extent->elem_size) return free_extent(extent, __builtin_return_address(0));
  }
  const Found object = object_at(p, "free");
  const SpanClass c = object.span_class();
  const std::size_t usable = usable_bytes(p, object);
  bool right = size <= usable;
  if (object.span->sampled()) {
    // Its class does not come from its size, but its bytes do, where it is not large.
    const bool large = usable > kMaxSmallSize;
    right = right && (!exact || (large ? size > kMaxSmallSize : size + 16 > usable));
  } else if (right && !is_large(c) && c != kTinyClass) {
    const SpanClass expected = alignment > 16 ? class_for_aligned(size, alignment, false) : class_for(size);
    // realloc() leaves an object in place while it still fills more than half of it.
    right = size_class_of(expected) == size_class_of(c) || (!exact && size * 2 > usable);
  } else if (right && is_large(c) && exact && alignment <= kPageSize) {
    right = size > kMaxSmallSize;
  }
  if (!right) size_mismatch(p, size, usable);
  release(p);
}

std::size_t usable_size(const void* p) {
  LiveObject live;
  if (mcache_find(p, &live)) return size_class(entry_class(live.entry)).bytes;
  return p == nullptr ? 0 : usable_bytes(p, object_at(p, "malloc_usable_size"));
}

namespace {

void* allocate_like(const MSpan& span, std::size_t size) {
  if (span.placed()) return allocate_beside(span, size);
  return span.noscan() ? allocate_noscan(size) : allocate(size);
}

ReallocObject described(const Found& found, std::size_t usable) {
  const std::size_t kind = entry_kind(found.entry);
  ReallocObject object;
  object.usable = usable;
  object.below = kSizesOfKind.most[kind] == 0 ? usable : kSizesOfKind.below[kind];
  object.placed = found.span->placed();
  const HeapId heap(found.span->heap);
  object.first_touch = heap == g_process.first_touch || heap == paged_twin(g_process.first_touch);
  return object;
}

[[gnu::noinline]] void* reallocate_slow(void* p, std::size_t size, const void* caller) {
  if (p == nullptr) return allocate(size);
  const Found object = object_at(p, "realloc");
  if (size == 0) {
    release_for(p, caller);
    return nullptr;
  }
  if (size > PTRDIFF_MAX) return out_of_memory();
  MSpan* const span = object.span;
  const std::size_t usable = usable_bytes(p, object);
  const ReallocPlan plan = plan_realloc(described(object, usable), size, g_large_route);
  if (plan.stay) return p;
  if (plan.resize_to != 0 && g_process.heaps.resize_large(span, plan.resize_to, current_node())) {
    if (span->sampled()) sampled_resized(span, size);
    return p;
  }
  const int saved = errno;
  void* moved = allocate_like(*span, plan.move_to);
  if (moved == nullptr && plan.move_to != size) moved = allocate_like(*span, size);
  // Shrinking cannot fail: the object stays as it is.
  if (moved == nullptr && size > usable) return nullptr;
  errno = saved;
  if (moved == nullptr) return p;
  std::memcpy(moved, p, size < usable ? size : usable);
  release_for(p, caller);
  return moved;
}

// An object of a cache that does not stay. Between two classes of malloc() with what this CPU has at hand, if that will do.
[[gnu::noinline]] void* move_small(void* p, PageEntry entry, std::size_t size, const void* caller) {
  const SpanClass c = entry_class(entry);
  const bool plain = c.is_small() && !c.is_placed() && !c.noscan();
  const std::size_t usable = size_class(c).bytes;
  void* moved;
  if (!plain || size == 0 || !mcache_alloc(with_room_to_grow(usable, size, false, g_large_route), &moved)) {
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
  const std::size_t kind = entry_kind(live.entry);
  if (stays(kSizesOfKind.below[kind], kSizesOfKind.most[kind], size)) return p;
  return move_small(p, live.entry, size, __builtin_return_address(0));
}

}  // namespace nh
