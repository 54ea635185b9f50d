#include "process/large_home.h"

#include <cstdint>

#include <sys/syscall.h>
#include <unistd.h>

#include "cache/large_route.h"
#include "cache/layout.h"

namespace nh {

constinit std::atomic<unsigned> g_bound_heap{kMaxHeaps};

namespace {

// From here on objects of a process that spans nodes are large: what glibc's malloc maps by itself, too.
constexpr std::size_t kTouchedMin = 128 * KiB;
// Elsewhere from here on, where whole units cost little.
constexpr std::size_t kExtentMin = 4 * MiB;
// A border between the parts of two nodes costs half a huge page in the mean: less than a hundredth, and a fiftieth.
constexpr std::size_t kTouchedPagesPerNode = 128 * MiB;
constexpr std::size_t kPoolMinPerNode = 48 * MiB;

constinit InheritedPolicy g_inherited;

void set(std::size_t& word, std::size_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

// Bins up to `most` bytes, below the sizes that have the best memory.
void set_bins(std::size_t most) {
  LargeRoute& route = g_large_route;
  if (most > kMaxBinBytes) most = kMaxBinBytes;
  set(route.bin_max, most < route.best_min ? most : route.best_min - 1);
}

void set_best() {
  const LargeOption& large = g_process.options.large;
  if (large.kind < LargeKind::kBandwidth) return;
  g_large_route.best_min = large.from != 0 ? large.from : large_min();
  g_large_route.best_max = large.to;
}

bool names_nodes(const Placement& placement) {
  return placement.kind == PlacementKind::kBind || placement.kind == PlacementKind::kPreferred;
}

// The nodes whose memory threads of this process may touch first.
unsigned touching_nodes() {
  const Process& p = g_process;
  const NodeSet ordinary = p.topology.allowed_nodes(false);
  unsigned count = 0;
  for (NodeId n = ordinary.first(); n.valid(); n = ordinary.next(NodeId(n.value + 1))) count += p.nearest.nodes.has(n);
  return count;
}

// The heap that serves all CPUs that the calling thread may run on; kMaxHeaps: there are several.
unsigned heap_of_affinity() {
  const Process& p = g_process;
  CpuSet cpus;
  if (::syscall(SYS_sched_getaffinity, 0, sizeof cpus, &cpus) <= 0) return kMaxHeaps;
  unsigned heap = kMaxHeaps;
  for (CpuId cpu = cpus.first(); cpu.valid(); cpu = cpus.next(CpuId(cpu.value + 1))) {
    const unsigned serves = first_heap(p.nearest, p.topology, cpu).value;
    if (heap != kMaxHeaps && serves != heap) return kMaxHeaps;
    heap = serves;
  }
  return heap;
}

// The row for a process that spans nodes, or for all others.
void set_route(bool spans) {
  const Process& p = g_process;
  LargeRoute& route = g_large_route;
  const std::size_t min = large_min();
  const bool touches = has_first_touch();
  if (spans && touches) {
    const std::size_t pages_min = p.options.given(OptionId::kLargeMin) ? min : kTouchedMin;
    const std::size_t limit = touching_nodes() * kTouchedPagesPerNode;
    const std::size_t pages_end = limit > pages_min ? limit : pages_min;
    set(route.pages_lists, list_offset(paged_twin(p.first_touch), SpanClass()));
    set_bins(pages_min - 1);
    set(route.extent_max, 0);
    set(route.extent_min, pages_end);
    set(route.pool_min, touching_nodes() * kPoolMinPerNode);
    set(route.pages_end, pages_end);
    set(route.pages_min, pages_min);
    set(route.leave_from, pages_min);
    return;
  }
  // Under NUMAHEAP_POLICY=interleave every CPU's own heap is the interleaved one; by weights it is the same.
  const LargeKind large = p.options.large.kind;
  const bool interleaves = large == LargeKind::kInterleave && p.placement.kind != PlacementKind::kInterleave;
  const bool weighs = large == LargeKind::kWeighted && p.placement.kind != PlacementKind::kWeighted;
  const bool own = !touches && !interleaves && !weighs;
  set_bins(own ? kMaxBinBytes : min - 1);
  set(route.pages_min, SIZE_MAX);
  set(route.pages_end, 0);
  set(route.pool_min, SIZE_MAX);
  set(route.extent_min, touches ? min : SIZE_MAX);
  set(route.extent_max, touches ? kMaxKeptUnits * kHugeSize : 0);
  // On one node they may as well grow where they are.
  set(route.leave_from, touches && p.topology.heap_count() > 1 ? min : SIZE_MAX);
}

void set_home(Home home) { g_process.heaps[g_process.first_touch].heap.set_home(home); }

NodeId decide() {
  const Process& p = g_process;
  const Placement& placement = p.placement;
  const bool by_kernel = policy_places(g_inherited);
  NodeId node;
  BindMode mode = BindMode::kPreferred;
  unsigned heap = kMaxHeaps;
  if (p.topology.heap_count() > 1 && has_first_touch() && !by_kernel) {
    if (names_nodes(placement) && placement.nodes.count() == 1) {
      node = placement.nodes.first();
      if (placement.kind == PlacementKind::kBind) mode = BindMode::kBind;
    } else if (p.nearest.nodes.count() == 1) {
      node = p.nearest.nodes.first();
    } else if (heap = heap_of_affinity(); heap != kMaxHeaps) {
      node = p.topology.node_of_heap(HeapId(heap));
      // A preference would let memory leave the nodes of a binding. Within it the kernel takes the nearest by itself.
      if (placement.kind == PlacementKind::kBind) mode = BindMode::kDefault;
    }
  }
  set_home({node, node.valid() ? mode : BindMode::kDefault});
  set_route(p.topology.heap_count() > 1 && !by_kernel && !node.valid());
  g_bound_heap.store(heap, std::memory_order_relaxed);
  return node;
}

}  // namespace

bool has_first_touch() {
  const Process& p = g_process;
  const LargeKind large = p.options.large.kind;
  if (large == LargeKind::kLocal || large == LargeKind::kInterleave || large == LargeKind::kWeighted) return false;
  // A placement that was asked for by name counts for large objects too, unless NUMAHEAP_LARGE was given. One node that was
  // named is a home.
  const Placement& placement = p.placement;
  if (placement.kind == PlacementKind::kLocal || placement.inherited) return true;
  // Sizes for which the best memory is asked leave the others as they are.
  if (p.options.given(OptionId::kLarge) && large == LargeKind::kFirstTouch) return true;
  return names_nodes(placement) && placement.nodes.count() == 1;
}

std::size_t large_min() {
  const Options& options = g_process.options;
  return options.given(OptionId::kLargeMin) ? options.large_min : kExtentMin;
}

bool policy_places(const InheritedPolicy& inherited) {
  using Mode = InheritedPolicy::Mode;
  return inherited.mode == Mode::kInterleave || inherited.mode == Mode::kWeighted || inherited.mode == Mode::kPreferredMany;
}

void decide_large(const InheritedPolicy& inherited) {
  g_inherited = inherited;
  set_best();
  decide();
}

NodeId rebind_large() { return decide(); }

void span_nodes() {
  g_bound_heap.store(kMaxHeaps, std::memory_order_relaxed);
  // The node stays known, for what was bound to it.
  set_home({g_process.heaps[g_process.first_touch].heap.backer().home().node, BindMode::kDefault});
  set_route(true);
}

}  // namespace nh
