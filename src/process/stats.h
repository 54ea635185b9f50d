// The statistics of the process, and their three forms: text, JSON, a table with a row per heap.
#pragma once

#include <numaheap/numaheap.h>

#include "base/format.h"

namespace nh {

// index below the number of heaps. cached_bytes: what CpuCaches::totals() found for this heap.
numaheap_heap_stats collect_heap(unsigned index, std::uint64_t cached_bytes);

void write_stats_text(TextWriter& out);
void write_stats_json(TextWriter& out);
// The table of `numaheap run --report`.
void write_report(TextWriter& out);

}  // namespace nh
