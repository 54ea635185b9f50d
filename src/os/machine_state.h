// What is known of the machine at the moment: one snapshot of what /proc and /sys say, from which the table answers.
//
// Counters (pools, room of nodes, use of the memory cgroup) are kept for some ms, settings (THP mode, which groups we are
// in and what they are limited to) for a second, constants for good. Of the threads that find an answer aged one reads,
// the others go on with the old one; nobody waits for a lock, so that a signal handler or an interposed mmap that calls
// malloc may come in between. What this process changes itself is counted in:
//   - reservations and room that was granted since the last reading are subtracted,
//   - memory that was given back has the counters read anew, so that a wrong "nothing left" does not outlive it,
//   - so do pages that were populated, for the pools, and failures of that.
//
// Private to src/os/. The contracts of the first six are in os.h.
#pragma once

#include <cstddef>

#include "os/os.h"

namespace nh::linux_os_detail {

bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out);
bool nodes_have_room(const NodeSet& nodes, std::size_t bytes);
std::uint64_t memory_of(const NodeSet& nodes);
bool hugetlb_fault_limited(std::size_t page_bytes);
int thp_mode();
bool memory_limit(MemoryLimit* out);

void forget_machine_state();
void repair_machine_state_after_fork();

// To be called after each system call that had one of these effects.
void note_reserved(std::size_t page_bytes, std::size_t pages);  // a pool promised us pages
void note_populated(bool ok);                                   // pages were faulted in, or could not be
void note_given_back();

}  // namespace nh::linux_os_detail
