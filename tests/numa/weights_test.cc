// How much of weighted memory lies on which node.
#include "numa/weights.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "fake_machine.h"

namespace nh {
namespace {

// A node with a CPU for each bandwidth.
std::unique_ptr<Topology> machine(const std::vector<unsigned>& bandwidths) {
  auto t = std::make_unique<Topology>();
  for (std::size_t n = 0; n < bandwidths.size(); n++) {
    NodeInfo info;
    info.id = static_cast<int>(2 * n);
    info.has_memory = true;
    info.memory_bytes = GiB;
    info.bandwidth = bandwidths[n];
    t->add_node(info);
  }
  t->finish(TopologySource::kSysfs);
  return t;
}
NodeSet all_of(const Topology& t) {
  NodeSet nodes;
  for (unsigned h = 0; h < t.heap_count(); h++) nodes.add(t.node(h).node());
  return nodes;
}
std::vector<int> turns(const std::vector<unsigned>& bandwidths) {
  const auto t = machine(bandwidths);
  UnitTurns turns;
  std::vector<int> ids;
  EXPECT_TRUE(turns_by_bandwidth(all_of(*t), *t, &turns));
  for (unsigned i = 0; i < turns.count; i++) ids.push_back(turns.node[i].value);
  return ids;
}
using Ids = std::vector<int>;

TEST(Weights, TurnsAreSpreadOut) {
  EXPECT_EQ(turns({100, 100}), (Ids{0, 2}));
  EXPECT_EQ(turns({100, 300}), (Ids{2, 0, 2, 2})) << "and not one node's all in a row";
  EXPECT_EQ(turns({200, 100, 100}), (Ids{0, 2, 4, 0}));
  EXPECT_EQ(turns({7}), Ids{0});
}

TEST(Weights, NearEnoughAndNobodyIsLeftOut) {
  const auto t = machine({204'800, 76'800, 1});
  UnitTurns turns;
  ASSERT_TRUE(turns_by_bandwidth(all_of(*t), *t, &turns));
  EXPECT_LE(turns.count, UnitTurns::kMost);
  EXPECT_EQ(turns.turns_of(NodeId(0)), 23u);
  EXPECT_EQ(turns.turns_of(NodeId(2)), 9u);
  EXPECT_EQ(turns.turns_of(NodeId(4)), 1u);
  EXPECT_EQ(turns.turns_of(NodeId(1)), 0u);
  EXPECT_EQ(turns.of(turns.count), turns.node[0]) << "round and round";
}

TEST(Weights, OnlyOfTheNodesInQuestion) {
  const auto t = machine({100, 0, 300});
  UnitTurns turns;
  NodeSet nodes;
  nodes.add(NodeId(0));
  nodes.add(NodeId(4));
  EXPECT_TRUE(turns_by_bandwidth(nodes, *t, &turns));
  EXPECT_EQ(turns.turns_of(NodeId(4)), 3u);
  EXPECT_FALSE(turns_by_bandwidth(all_of(*t), *t, &turns)) << "one is unknown";
  EXPECT_EQ(turns.count, 0u);
}

TEST(Weights, ThirtyTwoNodesAtMost) {
  UnitTurns turns;
  const auto most = machine(std::vector<unsigned>(32, 5)), too_many = machine(std::vector<unsigned>(33, 5));
  EXPECT_TRUE(turns_by_bandwidth(all_of(*most), *most, &turns));
  EXPECT_EQ(turns.count, 32u);
  EXPECT_FALSE(turns_by_bandwidth(all_of(*too_many), *too_many, &turns));
}

TEST(Weights, TheKernelsAreRead) {
  const FakeTree tree(FakeMachine::uniform(2, 2));
  const std::filesystem::path folder = std::string(tree.path()) + "/sys/kernel/mm/mempolicy/weighted_interleave";
  EXPECT_EQ(kernel_weight(SysfsRoot{tree.path()}, NodeId(0)), 1u) << "none are told";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "node1") << "5\n";
  EXPECT_EQ(kernel_weight(SysfsRoot{tree.path()}, NodeId(1)), 5u);
  EXPECT_EQ(kernel_weight(SysfsRoot{tree.path()}, NodeId(0)), 1u);
}

}  // namespace
}  // namespace nh
