// The calls that the malloc family, operator new and the public API are made of. They start the heap if need be, keep
// errno on success, and abort with one line on a pointer that is not a live object of ours.
#pragma once

#include <cstddef>

#include "large/large.h"
#include "base/bits.h"
#include "cache/mcache.h"

namespace nh {

// Where a small request that the fast path could not serve goes. nullptr and ENOMEM when memory is exhausted.
[[gnu::noinline]] void* allocate_slow(std::size_t size);
// A pointer that the fast path could not free (FreeOutcome::kOdd), nullptr included.
[[gnu::noinline]] void release_odd(void* p);
// An object whose list is full (FreeOutcome::kFull).
[[gnu::noinline]] void release_full(void* p);

[[gnu::always_inline]] inline void* allocate(std::size_t size) {
  void* p;
  if (mcache_alloc(size, &p)) [[likely]] return p;
  return size > kMaxSmallSize ? allocate_large(size) : allocate_slow(size);
}

[[gnu::always_inline]] inline void release(void* p) {
  switch (mcache_free(p)) {
    case FreeOutcome::kDone: return;
    case FreeOutcome::kOdd: return release_odd(p);
    case FreeOutcome::kFull: return release_full(p);
  }
}

void* allocate_noscan(std::size_t size);
// Any alignment. False: take the slow way.
[[gnu::always_inline]] inline bool allocate_aligned_fast(std::size_t alignment, std::size_t size, void** object) {
  if (!rounding_aligns_below_page(alignment) || size - 1 >= kMaxSmallSize) [[unlikely]] return false;
  return mcache_alloc_small(align_up(size, alignment), object);
}
// From a page on. Programs make calls that take single OS pages (guard pages, I/O buffers) on what they have asked to be
// aligned to one, and hugetlb memory would refuse them: such objects have heaps of their own. False: take the slow way.
[[gnu::always_inline]] inline bool allocate_paged_fast(std::size_t alignment, std::size_t size, void** object) {
  if (!rounding_aligns_to_pages(alignment) || size - 1 >= kMaxSmallSize) return false;
  return mcache_alloc_paged(align_up(size, alignment), object);
}
// alignment: a power of two.
void* allocate_aligned(std::size_t alignment, std::size_t size, bool noscan = false);
void* allocate_zeroed(std::size_t count, std::size_t size, bool noscan = false);
void* reallocate(void* p, std::size_t size);
// Bytes that may be written; 0 for nullptr.
std::size_t usable_size(const void* p);

// Frees an object that the caller says was allocated with this size and alignment (at most 16 where unknown). exact: the
// object cannot have been resized, so its class must be the one of the size.
void release_sized(void* p, std::size_t size, std::size_t alignment, bool exact);
// The same, trying the fast path first. alignment: 1 where unknown.
[[gnu::always_inline]] inline void release_sized_fast(void* p, std::size_t size, std::size_t alignment, bool exact) {
  if (!rounding_aligns(alignment)) [[unlikely]] return release_sized(p, size, alignment, exact);
  // A size that wraps around becomes 0, which is of no class.
  switch (mcache_free_checked(p, align_up(size, alignment), hot_used_bytes())) {
    case FreeOutcome::kDone: return;
    case FreeOutcome::kOdd: return release_sized(p, size, alignment, exact);
    case FreeOutcome::kFull: return release_full(p);
  }
}

}  // namespace nh
