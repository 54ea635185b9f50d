// Which large objects the lists of a CPU may serve.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

// Requests that a list of the running CPU may serve: objects of the local heap's bins, extents of first-touch memory.
// Before start there are none. None are those sizes for which NUMAHEAP_LARGE wants the memory that is best for something.
struct LargeRoute {
  std::size_t bin_max = 0;
  std::size_t extent_min = SIZE_MAX;
  std::size_t extent_max = 0;
  std::size_t best_min = SIZE_MAX;
  std::size_t best_max = 0;
  bool is_extent(std::size_t size) const { return size >= extent_min && size <= extent_max; }
  bool is_best(std::size_t size) const { return size >= best_min && size <= best_max; }
};
extern LargeRoute g_large_route [[gnu::visibility("hidden")]];

}  // namespace nh
