// What goes on beside allocation: giving idle memory back, reports at exit, fork.
#pragma once

#include <cstddef>

namespace nh {

// From the library's constructor: hwloc's refinement of the topology, atfork handlers. May allocate.
void start_upkeep();

// Gives everything free back at once; returns the bytes released.
std::size_t trim_all();

// From the constructor: what report_at_exit() will need.
void prepare_report();
// Writes what NUMAHEAP_STATS and NUMAHEAP_REPORT ask for; at exit.
void report_at_exit();
// In a fork child: another thread may have been writing a report.
void repair_reports_after_fork();

}  // namespace nh
