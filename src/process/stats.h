// The statistics of the process, and their three forms: text, JSON, a table with a row per heap.
#pragma once

#include <numaheap/numaheap.h>

#include "base/format.h"

namespace nh {

// Of a heap and its paged twin together. index below reported_heaps(). cached: what CpuCaches::totals() found.
numaheap_heap_stats collect_heap(unsigned index, const std::uint64_t* cached);
unsigned reported_heaps();

// What mallinfo() needs of a heap: running counts, nothing that takes the locks of its classes.
struct HeapUse {
  std::uint64_t committed_bytes;
  std::uint64_t hugetlb_bytes;
  std::uint64_t idle_bytes;   // committed, but in no span
  std::uint64_t small_bytes;  // in small objects that the program holds
  std::uint64_t large_bytes;  // in large ones
  std::uint64_t large_objects;
};
HeapUse heap_use(unsigned index, std::uint64_t cached_bytes);

// At exit they also say what is in RAM (memory_use.h), which takes the kernel a walk over all pages.
enum class Moment { kAnytime, kExit };
void write_stats_text(TextWriter& out, Moment moment);
void write_stats_json(TextWriter& out, Moment moment);
// The table of `numaheap run --report`.
void write_report(TextWriter& out);

// A column of a table: part of whole in percent, "-" where there is no whole.
void write_share(TextWriter& out, std::uint64_t part, std::uint64_t whole, std::size_t width);

}  // namespace nh
