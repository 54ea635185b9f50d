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

// Of these nodes the ones that an inherited binding leaves.
NodeSet within_binding(const NodeSet& nodes, const InheritedPolicy& inherited) {
  if (inherited.mode != InheritedPolicy::Mode::kBind) return nodes;
  const NodeSet bound = intersection(nodes, inherited.nodes);
  return bound.empty() ? nodes : bound;
}

// The nodes that may be used without being named: with memory, in the cpuset, in an inherited binding.
NodeSet usable_nodes(const InheritedPolicy& inherited, const Topology& topology) {
  return within_binding(topology.allowed_nodes(true), inherited);
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
  placement.nodes = intersection(inherited.nodes, within_binding(topology.requestable_nodes(), inherited));
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
    placement.nodes = usable;
    return placement;
  }
  if (policy.where.nodes.empty()) {
    const bool weighted = placement.kind == PlacementKind::kWeighted;
    placement.nodes = intersection(topology.allowed_nodes(weighted), usable);
    if (placement.nodes.empty()) placement.nodes = usable;
    return placement;
  }
  placement.nodes = intersection(policy.where.nodes, within_binding(topology.requestable_nodes(), inherited));
  if (placement.nodes == policy.where.nodes) return placement;
  if (problem != nullptr) {
    problem->text("NUMAHEAP_POLICY=");
    write_policy(*problem, policy);
    problem->text(": memory can be had on nodes ");
    write_node_list(*problem, within_binding(topology.requestable_nodes(), inherited));
    problem->text(placement.nodes.empty() ? " only; the policy is ignored" : " only; the others are left out");
  }
  return placement.nodes.empty() ? fallback : placement;
}

bool differ(const NodeSet& nodes, const Topology& topology) {
  const NodeInfo* first = nullptr;
  for (unsigned h = 0; h < topology.heap_count(); h++) {
    const NodeInfo& node = topology.node(h);
    if (!nodes.has(node.node())) continue;
    if (first != nullptr && (node.kind != first->kind || node.tier != first->tier)) return true;
    first = &node;
  }
  return false;
}

NodeSet nodes_for_requests(const Placement& placement, const InheritedPolicy& inherited, const Topology& topology) {
  return placement.kind == PlacementKind::kBind ? placement.nodes : usable_nodes(inherited, topology);
}

NodeSet nodes_to_name(const Placement& placement, const InheritedPolicy& inherited, const Topology& topology) {
  if (placement.kind == PlacementKind::kBind) return placement.nodes;
  return within_binding(topology.requestable_nodes(), inherited);
}

unsigned heaps_in_order(const Placement& placement, const Topology& topology, unsigned node_index, HeapId* out) {
  const auto is_named = [&](HeapId heap) { return placement.nodes.has(topology.node_of_heap(heap)); };
  unsigned count = 0;
  if (placement.kind == PlacementKind::kBest) {
    const unsigned all = topology.best_heaps(placement.quality, node_index, out);
    for (unsigned i = 0; i < all; i++) {
      if (is_named(out[i])) out[count++] = out[i];
    }
  } else {
    const bool names = placement.kind == PlacementKind::kBind || placement.kind == PlacementKind::kPreferred;
    for (unsigned rank = 0; names && rank < topology.heap_count(); rank++) {
      if (const HeapId heap = topology.fallback(node_index, rank); is_named(heap)) out[count++] = heap;
    }
    for (unsigned rank = 0; placement.kind != PlacementKind::kBind && rank < topology.fallback_count(node_index); rank++) {
      if (const HeapId heap = topology.fallback(node_index, rank); !names || !is_named(heap)) out[count++] = heap;
    }
  }
  // A cpuset may have taken away what was named.
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
