// Large objects: where they come from and where they go when they are freed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/mcache.h"

namespace nh {

// Requests that a list of the running CPU may serve: objects of the local heap's bins, extents of first-touch memory.
// Before start there are none.
struct LargeRoute {
  std::size_t bin_max = 0;
  std::size_t extent_min = SIZE_MAX;
  std::size_t extent_max = 0;
  bool is_extent(std::size_t size) const { return size >= extent_min && size <= extent_max; }
};
extern LargeRoute g_large_route [[gnu::visibility("hidden")]];

// A large object (more than kMaxSmallSize) from this CPU's list. False: take the slow way.
[[gnu::always_inline]] inline bool allocate_bin_fast(std::size_t size, bool noscan, void** object) {
  return size <= g_large_route.bin_max && mcache_alloc_bin(size, noscan, object);
}

// A large object (more than kMaxSmallSize), aligned to a page; nullptr and ENOMEM when memory is exhausted.
void* allocate_large(std::size_t size, bool noscan);
// malloc() jumps here.
void* allocate_large(std::size_t size);
// The same, reading as zero.
void* allocate_large_zeroed(std::size_t size, bool noscan);
// alignment: a power of two. Takes small sizes, too.
void* allocate_large_aligned(std::size_t size, std::size_t alignment, bool noscan);

// Frees a large object that no CPU keeps.
void free_large(MSpan* span);

// At start: which sizes the CPU caches are asked for.
void route_large_objects();

}  // namespace nh
