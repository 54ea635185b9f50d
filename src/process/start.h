// The start of the heap: settings, machine, policy, memory, caches, in this order.
#pragma once

#include "process/process.h"

namespace nh {

// Called once per process, by ensure_started() and under its lock. It fills g_process and opens the caches. False: the
// process gets no address space. Ends the process where NUMAHEAP_STRICT asks for that.
bool start_process();

// Something that was asked for cannot be had. That is said, and under NUMAHEAP_STRICT it is the end of the process.
void cannot_honour(const Options& options, const char* line);

// The parts of start.cc that lie in start_heaps.cc. False: no address space.
bool set_up_address_space(Process& p);
bool set_up_heaps(Process& p, const InheritedPolicy& inherited);
// Which heaps help which, by the topology as it is now.
void set_up_fallbacks(Process& p);

}  // namespace nh
