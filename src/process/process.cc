#include "process/process.h"

#include <cerrno>

#include "base/check.h"
#include "cache/large_route.h"
#include "numa/sysfs_topology.h"
#include "process/large_home.h"
#include "process/start.h"
#include "process/upkeep.h"

namespace nh {

constinit Process g_process;

namespace {

enum class State : int { kNone, kReady, kFailed };
std::atomic<State> g_state{State::kNone};
Lock g_start_lock{LockRank::kInit};

}  // namespace

bool started() { return g_state.load(std::memory_order_acquire) == State::kReady; }

bool ensure_started() {
  const State state = g_state.load(std::memory_order_acquire);
  if (state != State::kNone) return state == State::kReady;
  // A hook in place of mmap that calls malloc while this thread is starting is refused: nobody else could go on.
  if (g_start_lock.held_by_me()) return false;
  LockGuard guard(g_start_lock);
  if (g_state.load(std::memory_order_relaxed) != State::kNone) return started();
  const int saved = errno;
  const bool ok = start_process();
  errno = saved;
  if (!ok) warn_line("no address space for the heap (ulimit -v?); every allocation will fail");
  g_state.store(ok ? State::kReady : State::kFailed, std::memory_order_release);
  return ok;
}

namespace {

// The topology with this CPU in it, even if it was offline at the start.
const Topology& topology_for(CpuId cpu) {
  Topology& t = g_process.topology;
  if (!t.is_settled(cpu)) [[unlikely]] settle_cpu_by_sysfs(SysfsRoot(), cpu, &t);
  return t;
}

}  // namespace

HeapId home_of_cpu(CpuId cpu) { return topology_for(cpu).heap_of_cpu(cpu); }

HeapId nearest_heap() {
  const CpuId cpu = g_caches.current_cpu();
  return first_heap(g_process.nearest, topology_for(cpu), cpu);
}

HeapId best_heap(NodeQuality quality) {
  const CpuId cpu = g_caches.current_cpu();
  Placement best = g_process.nearest;
  best.kind = PlacementKind::kBest;
  best.quality = quality;
  return first_heap(best, topology_for(cpu), cpu);
}

unsigned helpers_of(Help help, HeapId h, CpuId cpu, HeapId* out) {
  const Process& p = g_process;
  const Topology& t = topology_for(cpu);
  Placement placement = help == Help::kPolicy ? p.placement : p.nearest;
  if (help != Help::kPolicy) {
    placement.kind = PlacementKind::kBest;
    placement.quality = help == Help::kLatency ? NodeQuality::kLatency
                        : help == Help::kCapacity ? NodeQuality::kCapacity : NodeQuality::kBandwidth;
  }
  const unsigned all = heaps_in_order(placement, t, t.index_of(t.node_of_cpu(cpu)), out);
  // Twins help twins, but for touched pages.
  const bool twins = h.value >= p.originals && h != paged_twin(p.first_touch);
  unsigned count = 0;
  for (unsigned i = 0; i < all; i++) {
    if (help == Help::kFast && t.node(out[i].value).kind != NodeKind::kFast) continue;
    out[count++] = twins ? paged_twin(out[i]) : out[i];
  }
  return count;
}

NodeId current_node() { return g_process.topology.node_of_heap(nearest_heap()); }

HeapId heap_of_cpu(CpuId cpu) {
  const Process& p = g_process;
  note_running_on(topology_for(cpu), cpu);
  if (p.placement.kind == PlacementKind::kInterleave) return p.interleaved;
  if (p.placement.kind == PlacementKind::kWeighted) return p.weighted;
  return first_heap(p.placement, topology_for(cpu), cpu);
}

HeapId first_touch_heap(std::size_t bytes) {
  const HeapId extents = g_process.first_touch;
  if (bytes >= LargeRoute::word(g_large_route.pages_end)) return extents;
  const bool pool = bytes >= LargeRoute::word(g_large_route.pool_min) && g_process.heaps[extents].heap.has_pool_for(bytes);
  return pool ? extents : paged_twin(extents);
}

namespace {

// Without regard to the sizes that have the best memory.
HeapId usual_heap_for_large(std::size_t bytes) {
  const HeapId own = heap_of_cpu(g_caches.current_cpu());  // first: it may find that the process spans nodes
  const Process& p = g_process;
  if (bytes >= g_large_route.first_touch_min()) return first_touch_heap(bytes);
  if (bytes < large_min()) return own;
  switch (p.options.large.kind) {
    case LargeKind::kInterleave: return p.interleaved;
    case LargeKind::kWeighted: return p.weighted;
    default: return own;
  }
}

}  // namespace

HeapChoice heap_for_large(std::size_t bytes) {
  if (!g_large_route.is_best(bytes)) return {usual_heap_for_large(bytes), g_process.help};
  switch (g_process.options.large.kind) {
    case LargeKind::kLatency: return {best_heap(NodeQuality::kLatency), Help::kLatency};
    case LargeKind::kCapacity: return {best_heap(NodeQuality::kCapacity), Help::kCapacity};
    default: return {best_heap(NodeQuality::kBandwidth), Help::kBandwidth};
  }
}

HeapChoice heap_for_paged(std::size_t bytes) {
  HeapChoice choice = {heap_of_cpu(g_caches.current_cpu()), g_process.help};
  if (g_large_route.is_best(bytes)) choice = heap_for_large(bytes);
  choice.heap = paged_twin(choice.heap);
  return choice;
}

// Before the program's own constructors where the linker lets us; the first allocation may have come earlier still.
[[gnu::constructor(101)]] static void construct() {
  if (!ensure_started()) return;
  start_upkeep();
}

}  // namespace nh
