// Where large objects lie: the process decides, by the table in cache/large_route.h.
//
// A process is bound to one node where it may use the memory of no other (numactl --membind, a cpuset, NUMAHEAP_POLICY), where
// one was named that it prefers, or where the CPUs that it may run on when the library starts all belong to one (mpirun,
// numactl --cpunodebind, taskset). Then its first-touch memory lies there, whoever touches it.
//
// By its CPUs a process is bound only until a thread of it runs on one of another node: that is found out when the CPU's cache
// is made or a large object asked for there, and counts until rebind_large().
//
// Thread safety: any thread, but for decide_large().
#pragma once

#include "process/process.h"

namespace nh {

// Whether large objects go to first-touch memory at all, as NUMAHEAP_LARGE and NUMAHEAP_POLICY have it.
bool has_first_touch();
// What NUMAHEAP_LARGE_MIN says, or 4 MiB.
std::size_t large_min();
// Whether the policy that the process inherited spreads memory, whoever touches it.
bool policy_places(const InheritedPolicy& inherited);

// Once, when heaps and caches are there.
void decide_large(const InheritedPolicy& inherited);
// The same again, by the CPUs that the calling thread may run on now. Returns the node that the process is bound to.
NodeId rebind_large();

// The heap whose node's CPUs the process is bound to; kMaxHeaps: it is not bound by its CPUs.
extern std::atomic<unsigned> g_bound_heap;
[[gnu::cold]] void span_nodes();
// The calling thread runs on this CPU.
inline void note_running_on(const Topology& topology, CpuId cpu) {
  const unsigned bound = g_bound_heap.load(std::memory_order_relaxed);
  if (bound != kMaxHeaps && first_heap(g_process.nearest, topology, cpu).value != bound) [[unlikely]] span_nodes();
}

}  // namespace nh
