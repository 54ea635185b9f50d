// Static data on huge pages of a pool (NUMAHEAP_STATIC=2m): put there at the start, taken off like all else before a fork.
#pragma once

#include <cstddef>

#include "os/segments.h"
#include "process/pool_runs.h"

namespace nh {

// In the constructor of a process with one thread. The pages are reserved and not touched, but for those that hold something
// already, so that the program's own faults place them. zeroes: what holds nothing is zero; otherwise all of the range
// is copied. False: the range is what it was, and why is said.
bool move_static_data_to_pool(const AddressRange& range, bool zeroes);

// For fork; pool_runs.h has the contracts.
bool static_data_on_pool();
bool is_static_on_pool(const void* p);
void for_each_static_run(void (*visit)(void* argument, const PoolRun& run), void* argument);
void note_static_ordinary(std::size_t bytes);
void note_static_kept(std::size_t bytes);
void lose_kept_static_data();

}  // namespace nh
