// Where large objects come from, by their size, and which of them the lists of a CPU may serve.
//
//   the process        more than 32 KiB       from                  from
//   has one node, or   the CPU's own heap,    4 MiB: the first-touch heap, whole units on huge pages, extents that
//   is bound to one    in bins                CPUs keep up to 32 MiB. Of a bound process it lies on that node
//   spans nodes        the CPU's own heap,    128 KiB: touched pages,   nodes x 128 MiB: the first-touch heap,
//                      in bins                in bins up to 4 MiB       with a pool of huge pages nodes x 48 MiB
//
// The sizes are NUMAHEAP_LARGE_MIN's where that is given. Why: who writes first to a huge page places 2 MiB, which is wrong
// for half of them wherever the parts of two threads meet. Touched pages are base pages, each of which is placed by itself;
// those that have come to rest on one node become huge pages later on (MHeap::collapse). Above nodes x 128 MiB all such
// borders are less than a hundredth. Pages of a pool, which was set up for large arrays, are used from where they are a
// fiftieth.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

// The row of that table which is in force. Before start nothing is kept. It changes when a process turns out to span nodes
// (process/large_home.h), a word at a time: any mixture of two rows serves.
struct LargeRoute {
  std::size_t bin_max = 0;            // up to here the bins of the running CPU's heap
  std::size_t extent_min = SIZE_MAX;  // from here on extents of first-touch memory,
  std::size_t extent_max = 0;         // which CPUs keep up to here
  std::size_t pages_min = SIZE_MAX;   // from here on touched pages,
  std::size_t pages_end = 0;          // below this size,
  std::size_t pool_min = SIZE_MAX;    // or extents from here on where they get pages of a pool
  std::size_t leave_from = SIZE_MAX;  // an object of a node's heap that grows to this size moves to first-touch memory
  std::size_t pages_lists = 0;        // where a CPU's lists of touched pages begin
  std::size_t best_min = SIZE_MAX;    // from here on none of these, but the memory that NUMAHEAP_LARGE finds best,
  std::size_t best_max = 0;           // up to here. Both never change after the start; bins end below best_min

  bool is_best(std::size_t size) const { return size >= best_min && size <= best_max; }
  bool is_extent(std::size_t size) const { return size >= word(extent_min) && size <= word(extent_max) && !is_best(size); }
  bool is_touched_pages(std::size_t size) const {
    return size >= word(pages_min) && size < word(pages_end) && !is_best(size);
  }
  // What is less than this belongs to the heap of a CPU's node.
  std::size_t first_touch_min() const {
    const std::size_t extents = word(extent_min), pages = word(pages_min);
    return pages < extents ? pages : extents;
  }

  static std::size_t word(const std::size_t& w) { return __atomic_load_n(&w, __ATOMIC_RELAXED); }
};
extern LargeRoute g_large_route [[gnu::visibility("hidden")]];

}  // namespace nh
