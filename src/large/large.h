// Large objects: where they come from and where they go when they are freed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/mcache.h"
#include "cache/large_route.h"

namespace nh {

// g++ makes an instruction more of an atomic load and a comparison (see hot_used_bytes()).
#if defined(__SANITIZE_THREAD__)
inline std::size_t bin_max() { return LargeRoute::word(g_large_route.bin_max); }
#else
[[gnu::always_inline]] inline std::size_t bin_max() { return g_large_route.bin_max; }
#endif

// A large object (more than kMaxSmallSize) from this CPU's list. False: take the slow way.
[[gnu::always_inline]] inline bool allocate_bin_fast(std::size_t size, bool noscan, void** object) {
  if (size > bin_max()) [[unlikely]] return false;
  return mcache_alloc_bin(size, noscan, object);
}

// A large object (more than kMaxSmallSize), aligned to a page; nullptr and ENOMEM when memory is exhausted.
void* allocate_large(std::size_t size, bool noscan);
// malloc() jumps here.
void* allocate_large(std::size_t size);
// The same, reading as zero.
void* allocate_large_zeroed(std::size_t size, bool noscan);
// alignment: a power of two. Takes small sizes, too.
void* allocate_large_aligned(std::size_t size, std::size_t alignment, bool noscan);

// The same from the heaps that are never on hugetlb pages (HeapKind::kPaged). size: less than kHugeSize.
void* allocate_large_paged(std::size_t size, std::size_t alignment, bool noscan);

// Frees a large object that no CPU keeps.
void free_large(MSpan* span);

}  // namespace nh
