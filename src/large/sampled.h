// Sampled objects: large objects of any size that the profiler follows (process/sampling.h).
#pragma once

#include <cstddef>

#include "heap/mspan.h"
#include "process/sampling.h"

namespace nh {

// An object for a request whose turn it is. nullptr: sampling is off, it is not its turn, or there is no memory; the usual
// way serves. alignment: a power of two. Keeps errno.
void* sample(std::size_t size, std::size_t alignment, bool noscan, bool zeroed);
inline void* allocate_sampled(std::size_t size, std::size_t alignment = 16, bool noscan = false, bool zeroed = false) {
  return sampling() ? sample(size, alignment, noscan, zeroed) : nullptr;
}

// False: another thread has freed it.
[[nodiscard]] bool free_sampled(MSpan* span);
// It has this many bytes now.
void sampled_resized(MSpan* span, std::size_t size);

}  // namespace nh
