// Limits of memory and what is done near them: NUMAHEAP_LIMIT, and the limit of the memory control group if that is lower
// than the machine's memory.
#pragma once

namespace nh {

// From now on heaps ask before they grow. Where that would use more than nine tenths of a limit, the thread that asks
// first gives back what is idle, and transparent huge pages are not asked for.
void init_memory_limit();

// Whether the process uses more than nine tenths of a limit now.
bool memory_is_tight();

// What CPUs, transfer caches and mcentrals keep goes home, where it can become an object of any size: before an allocation
// fails for want of memory.
void release_kept();

}  // namespace nh
