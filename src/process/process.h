// The heap of this process: set-up at the first allocation or in the constructor, whichever comes first.
//
// Start-up may happen before libc is ready (an IFUNC resolver of the program), so it takes nothing for granted: options
// from the environment or /proc, the topology from /sys, all memory by system call. What may allocate (hwloc, atfork
// handlers, threads) waits for the constructor.
#pragma once

#include "base/options.h"
#include "cache/cpu_caches.h"
#include "central/heap_set.h"
#include "heap/address_space.h"
#include "numa/policy.h"
#include "numa/topology.h"
#include "numa/weights.h"

namespace nh {

struct Process {
  Options options;
  Topology topology;
  Placement placement;
  Placement nearest;  // as if local were asked for: the nearest of the nodes that single requests may name
  NodeSet weighted_nodes;
  UnitTurns turns;      // of weighted memory, where the kernel has no weights
  AddressSpace space;
  HeapSet heaps;
  HeapId first_touch;
  HeapId interleaved;
  HeapId weighted;          // machines with one node: the interleaved heap
  HeapId interleaved_fast;  // over the nodes with fast memory; where there are not several, the interleaved heap
  unsigned originals = 0;   // heaps that are nobody's twin
  bool bound = false;          // NUMAHEAP_POLICY=bind: only the nodes that it names serve
  Help help = Help::kNeighbours;  // whom the policy lets help out
};

extern Process g_process;

// Sets the heap up if need be. False: this process gets no heap (address space refused); said on stderr once.
bool ensure_started();
// True once it is up: the test before anything that reads g_process.
bool started();

// The heap for memory like that of another, but never on hugetlb pages. Of first-touch memory: touched pages.
inline HeapId paged_twin(HeapId h) { return HeapId(h.value + g_process.originals); }

// The node of the running CPU, or the nearest one that its faults may take memory from.
NodeId current_node();
// The heap of the node that a CPU is on, whatever policy is in force.
HeapId home_of_cpu(CpuId cpu);
// The heap nearest to the running CPU of those that single requests may name.
HeapId nearest_heap();
// The first heap for it that requests for something try, of the same.
HeapId best_heap(NodeQuality quality);
// See HelpersOf.
unsigned helpers_of(Help help, HeapId h, CpuId cpu, HeapId* out);
// The heap that small objects come from on this CPU, on which the caller runs: a process that was bound to another node
// spans nodes from now on.
HeapId heap_of_cpu(CpuId cpu);
// The heap of first-touch memory for objects of so many bytes.
HeapId first_touch_heap(std::size_t bytes);
// The heap that large objects of this size go to, and who helps it out.
struct HeapChoice {
  HeapId heap;
  Help help;
};
HeapChoice heap_for_large(std::size_t bytes);
// The same for those of whatever size that are never on hugetlb pages.
HeapChoice heap_for_paged(std::size_t bytes);

}  // namespace nh
