#include "numa/weights.h"

#include <numeric>

#include "base/format.h"
#include "os/procfs.h"

namespace nh {
namespace {

constexpr unsigned kMostNodes = UnitTurns::kMost / 2;

}  // namespace

unsigned UnitTurns::turns_of(NodeId n) const {
  unsigned turns = 0;
  for (unsigned i = 0; i < count; i++) turns += node[i] == n;
  return turns;
}

bool turns_by_bandwidth(const NodeSet& nodes, const Topology& topology, UnitTurns* out) {
  out->count = 0;
  const NodeInfo* members[kMostNodes];
  unsigned count = 0;
  std::uint64_t all = 0;
  for (unsigned h = 0; h < topology.heap_count(); h++) {
    const NodeInfo& node = topology.node(h);
    if (!nodes.has(node.node())) continue;
    if (node.bandwidth == 0 || count == kMostNodes) return false;
    members[count++] = &node;
    all += node.bandwidth;
  }
  if (count == 0) return false;
  // As many turns as nodes at most, and a turn more for each that would have none.
  unsigned weight[kMostNodes], common = 0, sum = 0;
  for (unsigned i = 0; i < count; i++) {
    weight[i] = static_cast<unsigned>((std::uint64_t{members[i]->bandwidth} * kMostNodes + all / 2) / all);
    if (weight[i] == 0) weight[i] = 1;
    common = std::gcd(common, weight[i]);
  }
  for (unsigned i = 0; i < count; i++) sum += weight[i] /= common;
  // Smooth weighted round robin: everybody earns its weight in each turn, the richest takes the turn and pays for it.
  int earned[kMostNodes] = {};
  for (; out->count < sum && out->count < UnitTurns::kMost; out->count++) {
    unsigned richest = 0;
    for (unsigned i = 0; i < count; i++) {
      earned[i] += static_cast<int>(weight[i]);
      if (earned[i] > earned[richest]) richest = i;
    }
    earned[richest] -= static_cast<int>(sum);
    out->node[out->count] = members[richest]->node();
  }
  return true;
}

unsigned kernel_weight(const SysfsRoot& root, NodeId node) {
  Text<300> path;
  path.text(root.path).text("/sys/kernel/mm/mempolicy/weighted_interleave/node").sdec(node.value);
  std::uint64_t weight = 0;
  return read_number(path.c_str(), &weight) && weight != 0 ? static_cast<unsigned>(weight) : 1;
}

}  // namespace nh
