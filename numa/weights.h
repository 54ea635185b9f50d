// How much of weighted memory lies on which node.
//
// The kernel spreads it by weights of its own (MPOL_WEIGHTED_INTERLEAVE, Linux 6.9), which its administrator sets and which
// follow the nodes' bandwidths from Linux 6.16 on. For older kernels units take turns: a node that has three times
// another's bandwidth comes three times as often.
//
// Thread safety: pure functions over a filled Topology; kernel_weight() reads a file.
#pragma once

#include "base/node_set.h"
#include "base/units.h"
#include "numa/sysfs_topology.h"
#include "numa/topology.h"

namespace nh {

// The nodes that one unit after the other goes to.
struct UnitTurns {
  static constexpr unsigned kMost = 64;
  unsigned count = 0;  // 0: nobody takes turns
  NodeId node[kMost];

  NodeId of(std::uintptr_t unit_number) const { return node[unit_number % count]; }
  unsigned turns_of(NodeId n) const;
};

// By the bandwidths that the machine tells, a node's turns spread out as evenly as they can be. False, and no turns, where
// it does not tell that of every node, or where there are more than 32 nodes.
bool turns_by_bandwidth(const NodeSet& nodes, const Topology& topology, UnitTurns* out);

// 1 where the kernel tells none.
unsigned kernel_weight(const SysfsRoot& root, NodeId node);

}  // namespace nh
