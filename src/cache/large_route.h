// Which large objects the lists of a CPU may serve.
#pragma once

#include <cstddef>
#include <cstdint>

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

}  // namespace nh
