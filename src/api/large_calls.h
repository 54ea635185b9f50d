// Large objects: where they come from and where they go when they are freed.
#pragma once

#include <cstddef>

#include "heap/mspan.h"

namespace nh {

// A large object (more than kMaxSmallSize), aligned to a page; nullptr and ENOMEM when memory is exhausted.
void* allocate_large(std::size_t size, bool noscan);
// The same, reading as zero.
void* allocate_large_zeroed(std::size_t size, bool noscan);
// alignment: a power of two. Takes small sizes, too.
void* allocate_large_aligned(std::size_t size, std::size_t alignment, bool noscan);

// Frees a large object that no CPU keeps.
void free_large(MSpan* span);

// At start: which sizes the CPU caches are asked for.
void route_large_objects();

}  // namespace nh
