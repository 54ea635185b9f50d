#include "numa/policy.h"

#include <cerrno>

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace nh {
namespace {

// Newer than the oldest kernel headers we build with.
constexpr int kPreferredManyMode = 5;       // MPOL_PREFERRED_MANY, 5.15
constexpr int kWeightedInterleaveMode = 6;  // MPOL_WEIGHTED_INTERLEAVE, 6.9

NodeSet intersection(const NodeSet& a, const NodeSet& b) {
  NodeSet both;
  for (NodeId n = a.first(); n.valid(); n = a.next(NodeId(n.value + 1))) {
    if (b.has(n)) both.add(n);
  }
  return both;
}

// The nodes that may be used at all: with memory, in the cpuset, in an inherited binding.
NodeSet usable_nodes(const InheritedPolicy& inherited, const Topology& topology) {
  const NodeSet allowed = topology.requestable_nodes();
  if (inherited.mode != InheritedPolicy::Mode::kBind) return allowed;
  const NodeSet bound = intersection(allowed, inherited.nodes);
  return bound.empty() ? allowed : bound;
}

NodeQuality quality_of(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kLatency: return NodeQuality::kLatency;
    case PolicyKind::kCapacity: return NodeQuality::kCapacity;
    default: return NodeQuality::kBandwidth;
  }
}

Placement inherited_placement(const InheritedPolicy& inherited, const Topology& topology) {
  Placement placement;
  placement.nodes = intersection(inherited.nodes, usable_nodes(inherited, topology));
  if (!inherited.is_set() || placement.nodes.empty()) {
    placement.nodes = NodeSet();
    return placement;
  }
  placement.inherited = true;
  switch (inherited.mode) {
    case InheritedPolicy::Mode::kBind: placement.kind = PlacementKind::kBind; break;
    case InheritedPolicy::Mode::kInterleave: placement.kind = PlacementKind::kInterleave; break;
    case InheritedPolicy::Mode::kWeighted: placement.kind = PlacementKind::kWeighted; break;
    default: placement.kind = PlacementKind::kPreferred; break;
  }
  return placement;
}

}  // namespace

InheritedPolicy read_inherited_policy() {
  InheritedPolicy policy;
  const int saved = errno;
  int mode = 0;
  const unsigned long bits = NodeSet::kBits;
  if (::syscall(SYS_get_mempolicy, &mode, policy.nodes.words(), bits, nullptr, 0) != 0) {
    policy.error = errno;
    policy.nodes = NodeSet();
    errno = saved;
    return policy;
  }
  switch (mode & ~MPOL_MODE_FLAGS) {
    case MPOL_PREFERRED:
      // Without nodes it is the old spelling of "local".
      policy.mode = policy.nodes.empty() ? InheritedPolicy::Mode::kDefault : InheritedPolicy::Mode::kPreferred;
      break;
    case MPOL_BIND: policy.mode = InheritedPolicy::Mode::kBind; break;
    case MPOL_INTERLEAVE: policy.mode = InheritedPolicy::Mode::kInterleave; break;
    case kWeightedInterleaveMode: policy.mode = InheritedPolicy::Mode::kWeighted; break;
    case kPreferredManyMode: policy.mode = InheritedPolicy::Mode::kPreferredMany; break;
    default: policy.mode = InheritedPolicy::Mode::kDefault; break;
  }
  return policy;
}

NodeSet nodes_left_out(const NodesOption& nodes) {
  NodeSet out;
  for (int id = 0; id < int{NodeSet::kBits}; id++) {
    if (!nodes.allows(NodeId(id))) out.add(NodeId(id));
  }
  return out;
}

bool settle_nodes(const NodesOption& nodes, const Topology& topology, TextWriter* problem) {
  const auto complain = [&](std::string_view what) {
    problem->text("NUMAHEAP_NODES=");
    write_nodes(*problem, nodes);
    problem->text(what);
  };
  // The first node counts as having memory where none does.
  if (topology.left_out().has(topology.node(0).node())) {
    complain(": no node with memory is left; it is ignored");
    return false;
  }
  NodeSet missing = nodes.list.nodes;
  for (unsigned i = 0; i < topology.node_count(); i++) missing.remove(topology.node(i).node());
  if (!missing.empty() && !topology.truncated()) {
    complain(": the machine has no node ");
    write_node_list(*problem, missing);
  }
  return true;
}

Placement settle_placement(const PolicyOption& policy, bool given, const InheritedPolicy& inherited,
                           const Topology& topology, TextWriter* problem) {
  const Placement fallback = inherited_placement(inherited, topology);
  if (!given) return fallback;

  Placement placement;
  const NodeSet usable = usable_nodes(inherited, topology);
  switch (policy.kind) {
    case PolicyKind::kLocal:
      // An inherited binding is a limit, so "local" is local within it; an inherited preference or interleaving is not.
      return fallback.kind == PlacementKind::kBind ? fallback : placement;
    case PolicyKind::kInterleave: placement.kind = PlacementKind::kInterleave; break;
    case PolicyKind::kWeighted: placement.kind = PlacementKind::kWeighted; break;
    case PolicyKind::kBind: placement.kind = PlacementKind::kBind; break;
    case PolicyKind::kPreferred: placement.kind = PlacementKind::kPreferred; break;
    case PolicyKind::kBandwidth:
    case PolicyKind::kLatency:
    case PolicyKind::kCapacity:
      placement.kind = PlacementKind::kBest;
      placement.quality = quality_of(policy.kind);
      placement.nodes = usable;
      if (differ(usable, topology)) return placement;
      if (problem != nullptr) {
        problem->text("NUMAHEAP_POLICY=");
        write_policy(*problem, policy);
        problem->text(": the memory that this process may use is all of one kind (`numaheap topo`); the policy is local");
      }
      return fallback.kind == PlacementKind::kBind ? fallback : Placement();
  }
  if (policy.where.all) {
    placement.nodes = intersection(topology.allowed_nodes(true), usable);
    if (placement.nodes.empty()) placement.nodes = usable;
    return placement;
  }
  if (policy.where.nodes.empty()) {
    const bool weighted = placement.kind == PlacementKind::kWeighted;
    placement.nodes = intersection(topology.allowed_nodes(weighted), usable);
    if (placement.nodes.empty()) placement.nodes = usable;
    return placement;
  }
  placement.nodes = intersection(policy.where.nodes, usable);
  if (placement.nodes == policy.where.nodes) return placement;
  if (problem != nullptr) {
    problem->text("NUMAHEAP_POLICY=");
    write_policy(*problem, policy);
    problem->text(": memory can be had on nodes ");
    write_node_list(*problem, usable);
    problem->text(placement.nodes.empty() ? " only; the policy is ignored" : " only; the others are left out");
  }
  return placement.nodes.empty() ? fallback : placement;
}

bool differ(const NodeSet& nodes, const Topology& topology) {
  const NodeInfo* first = nullptr;
  for (unsigned h = 0; h < topology.heap_count(); h++) {
    const NodeInfo& node = topology.node(h);
    if (!nodes.has(node.node()) || node.kind == NodeKind::kDevice) continue;
    if (first != nullptr && (node.kind != first->kind || node.tier != first->tier)) return true;
    first = &node;
  }
  return false;
}

NodeSet nodes_for_requests(const Placement& placement, const InheritedPolicy& inherited, const Topology& topology) {
  return placement.kind == PlacementKind::kBind ? placement.nodes : usable_nodes(inherited, topology);
}

unsigned heaps_in_order(const Placement& placement, const Topology& topology, unsigned node_index, HeapId* out) {
  const auto is_named = [&](HeapId heap) { return placement.nodes.has(topology.node_of_heap(heap)); };
  const bool names = placement.kind >= PlacementKind::kBind;
  const bool others = !names || placement.kind == PlacementKind::kPreferred;
  unsigned count = 0;
  if (placement.kind == PlacementKind::kBest) {
    const unsigned all = topology.best_heaps(placement.quality, node_index, out);
    for (unsigned i = 0; i < all; i++) {
      if (is_named(out[i])) out[count++] = out[i];
    }
    // A process may be bound to memory of a device, which is never the best.
    if (count != 0) return count;
  }
  for (unsigned rank = 0; names && rank < topology.heap_count(); rank++) {
    if (const HeapId heap = topology.fallback(node_index, rank); is_named(heap)) out[count++] = heap;
  }
  for (unsigned rank = 0; others && rank < topology.fallback_count(node_index); rank++) {
    if (const HeapId heap = topology.fallback(node_index, rank); !names || !is_named(heap)) out[count++] = heap;
  }
  if (count == 0) out[count++] = topology.fallback(node_index, 0);
  return count;
}

HeapId first_heap(const Placement& placement, const Topology& topology, CpuId cpu) {
  const unsigned node_index = topology.index_of(topology.node_of_cpu(cpu));
  switch (placement.kind) {
    case PlacementKind::kBest: {
      HeapId heaps[kMaxNodes];
      heaps_in_order(placement, topology, node_index, heaps);
      return heaps[0];
    }
    case PlacementKind::kBind:
    case PlacementKind::kPreferred:
      for (unsigned rank = 0; rank < topology.heap_count(); rank++) {
        const HeapId heap = topology.fallback(node_index, rank);
        if (placement.nodes.has(topology.node_of_heap(heap))) return heap;
      }
      break;
    default: break;
  }
  return topology.heap_of_cpu(cpu);
}

}  // namespace nh
