// The ladder for memory that is spread over nodes, evenly and by weights.
#include "heap/ladder.h"

namespace nh::test {
namespace {

Backer::Config interleaved(HugePagesOption huge = HugePagesOption::kAuto) {
  Backer::Config c = bound_to(NodeId(0), huge);
  c.kind = HeapKind::kInterleaved;
  c.nodes.add(NodeId(1));
  c.policy = BindMode::kInterleave;
  return c;
}

TEST(Ladder, InterleavedMemorySpreads) {
  Ladder l(two_nodes(0, 0), interleaved(HugePagesOption::kThp));
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), kArenaSize / 2);
  EXPECT_EQ(l.os.policy_of(l.at(0)).mode, BindMode::kInterleave);
}

TEST(Ladder, InterleavedMemoryTakesHugetlbWhereEveryNodeHasItsShare) {
  Ladder l(two_nodes(16, 16), interleaved());
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.kinds(), std::string(32, '2'));
  EXPECT_EQ(l.os.bytes_on(NodeId(0), true), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), true), kArenaSize / 2);
}

TEST(Ladder, InterleavedMemoryThatTheNodesCannotHoldTogetherIsRefused) {
  FakeOsConfig full = two_nodes(0, 0);
  full.node_room = 8 * kHugeSize;
  Ladder l(full, interleaved(HugePagesOption::kThp));
  EXPECT_EQ(l.back(0, 20), ENOMEM);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
  EXPECT_EQ(l.back(0, 16), 0);
}

// A dry node's turn would go to the other node's pool: spread memory of smaller pages is what was asked for.
TEST(Ladder, InterleavedMemorySpreadsWhereThePoolsAreUneven) {
  Ladder l(two_nodes(64, 15), interleaved());
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), kArenaSize / 2);
}

// A machine whose second node has three times the weight of the first.
FakeOsConfig uneven(std::size_t pages_on_0, std::size_t pages_on_1, std::size_t memory = 4 * GiB) {
  FakeOsConfig config = two_nodes(pages_on_0, pages_on_1, memory);
  config.nodes[1].weight = 3;
  return config;
}
Backer::Config weighted(HugePagesOption huge = HugePagesOption::kAuto) {
  Backer::Config c = interleaved(huge);
  c.policy = BindMode::kWeighted;
  return c;
}

TEST(Ladder, WeightedMemoryIsSpreadByTheKernel) {
  Ladder l(uneven(0, 0), weighted(HugePagesOption::kThp));
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), kArenaSize / 4);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), 3 * kArenaSize / 4);
  EXPECT_EQ(l.os.policy_of(l.at(9)).mode, BindMode::kWeighted);
  EXPECT_EQ(l.units[9].bound, BindMode::kWeighted);
}

// The share of a node may be nearly all, and a dry node's turn would go to another's pool.
TEST(Ladder, WeightedMemoryTakesHugetlbWhereAnyNodeHasAllOfIt) {
  Ladder l(uneven(32, 32), weighted());
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.kinds(), std::string(32, '2'));
  EXPECT_EQ(l.os.bytes_on(NodeId(1), true), 3 * kArenaSize / 4);
}
TEST(Ladder, WeightedMemoryIsOffThePoolsOtherwise) {
  Ladder l(uneven(64, 31), weighted());
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), 3 * kArenaSize / 4);
}

// What kernels get that have no weights: node 1 has three turns of four.
const UnitTurns kTurns{.count = 4, .node = {NodeId(1), NodeId(0), NodeId(1), NodeId(1)}};

TEST(Ladder, UnitsTakeTurnsWhereTheKernelHasNoWeights) {
  Backer::Config config = interleaved();
  config.turns = &kTurns;
  Ladder l(two_nodes(64, 64), config);
  ASSERT_EQ(l.back(0, 20), 0);
  ASSERT_EQ(l.back(20, 12), 0);
  for (unsigned u = 0; u < 32; u++) EXPECT_EQ(l.os.node_of(l.at(u)), kTurns.of(address(l.at(u)) >> kHugeShift)) << u;
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), 3 * kArenaSize / 4);
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  // None has a policy, or each would be a mapping of its own.
  EXPECT_EQ(l.os.calls(FakeCall::kBind), 0u);
  for (unsigned u = 0; u < 32; u++) EXPECT_EQ(l.units[u].bound, BindMode::kDefault);
  ASSERT_EQ(l.release(4, 4), 4u);
  ASSERT_EQ(l.back(4, 4), 0);
  for (unsigned u = 4; u < 8; u++) EXPECT_EQ(l.os.node_of(l.at(u)), kTurns.of(address(l.at(u)) >> kHugeShift)) << u;
}

TEST(Ladder, AFullNodesTurnsGoToTheOthers) {
  Backer::Config config = interleaved(HugePagesOption::kThp);
  config.turns = &kTurns;
  Ladder l(two_nodes(0, 0), config);
  l.os.set_memory(NodeId(1), 8 * kHugeSize);
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), 8 * kHugeSize);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), 24 * kHugeSize);
}

}  // namespace
}  // namespace nh::test
