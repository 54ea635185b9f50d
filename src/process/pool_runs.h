// What fork has to know of memory on huge pages of a pool, and what its owners have to know of what fork did to it: heaps, and
// static data (static_pool.h). This file and pool_runs.cc are all of fork that knows how a heap keeps its units.
#pragma once

#include <cstddef>

#include "base/node_set.h"
#include "base/units.h"
#include "os/os.h"

namespace nh {

// Neighbouring huge pages of one size that hold memory in use.
struct PoolRun {
  char* start = nullptr;
  std::size_t bytes = 0;
  std::size_t page_bytes = 0;
  HeapId heap;  // of memory that lies in the window
  BindMode bound = BindMode::kDefault;  // the policy in force
  bool shared = false;  // a file that is mapped shared
  bool small = false;   // holds parts of objects that are smaller than a unit, or of static data
  bool kept = false;    // an earlier fork has kept it from children
};

// Whether the calling thread is inside a heap, with its lock held or with units that it works on: a signal handler that
// interrupted it forks. It must not wait for others then, who may be waiting for it.
bool holds_a_heap();

// Whether memory is of a kind of which a part may be on huge pages of a pool.
bool may_lie_on_pool(const void* p);
// Whether any heap has huge pages of a pool that children would miss, or is about to map some. Cheap. The caller is not
// inside a heap.
bool pool_in_use();
// Gives free memory of the heaps that have huge pages of a pool back to the system.
void release_idle_pool_pages();

// Claims the units of all heaps, waiting for threads that work on some: nobody backs or releases units until
// unclaim_pool_units(). Units that are mapped from a pool and not in use are given back. The caller is not inside a heap.
// False: some were worked on for too long, and not all are claimed. Without an end this could last for ever: the thread that
// works on them may be in a signal handler that waits for the caller, or asleep while a wake is due from the one whose
// handler is the caller.
bool claim_pool_units();
void unclaim_pool_units();
// In a fork child, before the heaps are repaired: the claims of a thread that does not exist here.
void forget_claims();

// With the units claimed, or in a fork child. Calls visit(argument, run) for all of a pool that is in use.
void for_each_pool_run(void (*visit)(void* argument, const PoolRun& run), void* argument);
// The nodes that run.bound speaks of, and the policy of ordinary memory once its pages are there.
NodeSet nodes_of_heap(HeapId heap);
BindMode lasting_policy_of(const PoolRun& part);

// A part of a run is ordinary memory now, with the same content and the policy that the part says. thp: advised to be
// transparent huge pages.
void note_ordinary(const PoolRun& part, bool thp);
// A part of a run does not exist in children.
void note_kept(const PoolRun& part);

// In a fork child: takes what was kept from it out of the heaps. True: there was some.
bool lose_kept_runs();

}  // namespace nh
