#include "numa/topology.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace nh {
namespace {

NodeInfo node(int id, bool has_memory = true) {
  NodeInfo info;
  info.id = id;
  info.has_memory = has_memory;
  return info;
}

NodeSet nodes(std::initializer_list<int> ids) {
  NodeSet set;
  for (const int id : ids) set.add(NodeId(id));
  return set;
}

// Nodes 0 .. count - 1 with one CPU each, all equally far apart.
std::unique_ptr<Topology> ring(int count) {
  auto t = std::make_unique<Topology>();
  for (int n = 0; n < count; n++) t->add_node(node(n));
  for (int n = 0; n < count; n++) t->add_cpu(CpuId(n), NodeId(n));
  t->finish(TopologySource::kSysfs);
  return t;
}

// The order in which a node's heaps are tried, as node numbers; only the allowed ones.
std::vector<int> order(const Topology& t, int from) {
  std::vector<int> ids;
  const unsigned index = t.index_of(NodeId(from));
  for (unsigned rank = 0; rank < t.fallback_count(index); rank++) {
    ids.push_back(t.node_of_heap(t.fallback(index, rank)).value);
  }
  return ids;
}

using Ids = std::vector<int>;

TEST(Topology, ThereAlwaysIsAHeap) {
  Topology t;
  t.finish(TopologySource::kSingleNode);
  EXPECT_EQ(t.heap_count(), 1u);
  EXPECT_EQ(t.node_of_heap(HeapId(0)), NodeId(0));
  EXPECT_EQ(t.heap_of_cpu(CpuId(8191)), HeapId(0));
  EXPECT_EQ(t.possible_cpu_limit(), 1u);
  EXPECT_TRUE(t.check());

  t.clear();
  t.add_node(node(3, false));
  t.finish(TopologySource::kSysfs);
  EXPECT_EQ(t.heap_count(), 1u);
  EXPECT_EQ(t.node_of_heap(HeapId(0)), NodeId(3));
  EXPECT_TRUE(t.check());
}

TEST(Topology, NodesWithMemoryComeFirst) {
  Topology t;
  for (const int id : {9, 4, 0, 7}) EXPECT_TRUE(t.add_node(node(id, id != 4 && id != 0)));
  EXPECT_FALSE(t.add_node(node(9)));
  t.finish(TopologySource::kSysfs);
  EXPECT_EQ(t.heap_count(), 2u);
  EXPECT_EQ(t.node_count(), 4u);
  EXPECT_EQ(t.node(0).id, 7);
  EXPECT_EQ(t.node(1).id, 9);
  EXPECT_EQ(t.node(2).id, 0);
  EXPECT_EQ(t.node(3).id, 4);
  HeapId heap;
  EXPECT_TRUE(t.heap_of_node(NodeId(9), &heap));
  EXPECT_EQ(heap, HeapId(1));
  EXPECT_FALSE(t.heap_of_node(NodeId(4), &heap));
  EXPECT_FALSE(t.heap_of_node(NodeId(5), &heap));
  EXPECT_FALSE(t.heap_of_node(NodeId(), &heap));
  EXPECT_TRUE(t.check());
}

TEST(Topology, EqualDistancesGoUpwardsFromTheOwnNumberAndAround) {
  const auto t = ring(4);
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(order(*t, 1), (Ids{1, 2, 3, 0}));
  EXPECT_EQ(order(*t, 2), (Ids{2, 3, 0, 1}));
  EXPECT_EQ(order(*t, 3), (Ids{3, 0, 1, 2}));
}

TEST(Topology, DistanceComesFirst) {
  auto t = std::make_unique<Topology>();
  for (int n = 0; n < 4; n++) t->add_node(node(n));
  for (int n = 0; n < 4; n++) t->add_cpu(CpuId(n), NodeId(n));
  t->set_distance(NodeId(0), NodeId(3), 12);
  t->set_distance(NodeId(0), NodeId(1), 40);
  t->finish(TopologySource::kSysfs);
  EXPECT_EQ(order(*t, 0), (Ids{0, 3, 2, 1}));
  EXPECT_EQ(t->distance(0, 0), 10);
  EXPECT_EQ(t->distance(0, 2), 20);
  EXPECT_EQ(t->distance(0, 3), 12);
  EXPECT_EQ(t->distance(3, 0), 20) << "distances need not be symmetric";
}

TEST(Topology, OwnNodeIsFirstWhateverTheFirmwareSays) {
  auto t = ring(3);
  Topology odd;
  for (int n = 0; n < 3; n++) odd.add_node(node(n));
  odd.set_distance(NodeId(1), NodeId(1), 99);
  odd.finish(TopologySource::kSysfs);
  ASSERT_TRUE(t->refine(odd));
  EXPECT_EQ(order(*t, 1).front(), 1);
}

TEST(Topology, MemoryOnlyNodesWaitForTheirTurn) {
  Topology t;
  for (int n = 0; n < 3; n++) t.add_node(node(n));
  t.add_cpu(CpuId(0), NodeId(0));
  t.add_cpu(CpuId(1), NodeId(2));
  t.finish(TopologySource::kSysfs);
  EXPECT_TRUE(t.node(1).memory_only());
  EXPECT_EQ(order(t, 0), (Ids{0, 2, 1})) << "equal distance: the ordinary node first";
  t.clear();
  for (int n = 0; n < 3; n++) t.add_node(node(n));
  t.add_cpu(CpuId(0), NodeId(0));
  t.add_cpu(CpuId(1), NodeId(2));
  t.set_distance(NodeId(0), NodeId(1), 15);
  t.finish(TopologySource::kSysfs);
  EXPECT_EQ(order(t, 0), (Ids{0, 2, 1})) << "kind before distance";
  EXPECT_EQ(t.allowed_nodes(false), nodes({0, 2}));
  EXPECT_EQ(t.allowed_nodes(true), nodes({0, 1, 2}));
}

TEST(Topology, CpusOfANodeWithoutMemoryUseTheNearest) {
  Topology t;
  for (int n = 0; n < 3; n++) t.add_node(node(n, n != 1));
  for (int n = 0; n < 3; n++) t.add_cpu(CpuId(n), NodeId(n));
  t.set_distance(NodeId(1), NodeId(0), 30);
  t.set_distance(NodeId(1), NodeId(2), 20);
  t.finish(TopologySource::kSysfs);
  EXPECT_EQ(t.node_of_cpu(CpuId(1)), NodeId(1));
  EXPECT_EQ(t.node_of_heap(t.heap_of_cpu(CpuId(1))), NodeId(2));
  EXPECT_EQ(order(t, 1), (Ids{2, 0}));
  EXPECT_EQ(order(t, 0), (Ids{0, 2}));
}

TEST(Topology, ForbiddenNodesComeLastAndComeBack) {
  const auto t = ring(4);
  t->set_allowed(nodes({1, 3, 900}));
  EXPECT_EQ(t->helper_count(), 2u);
  EXPECT_EQ(order(*t, 0), (Ids{1, 3}));
  EXPECT_EQ(order(*t, 3), (Ids{3, 1}));
  EXPECT_EQ(t->node_of_heap(t->heap_of_cpu(CpuId(2))), NodeId(3));
  EXPECT_EQ(t->node_of_cpu(CpuId(2)), NodeId(2));
  EXPECT_EQ(t->allowed_nodes(true), nodes({1, 3}));
  EXPECT_FALSE(t->is_allowed(NodeId(0)));
  EXPECT_TRUE(t->check());
  t->set_allowed(nodes({0, 1, 2, 3}));
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 2, 3}));
  t->set_allowed(nodes({17}));
  EXPECT_EQ(t->helper_count(), 4u) << "a set that names none of ours says nothing";
  EXPECT_TRUE(t->check());
}

TEST(Topology, OnlyMemoryOnlyNodesAllowed) {
  Topology t;
  for (int n = 0; n < 2; n++) t.add_node(node(n));
  t.add_cpu(CpuId(0), NodeId(0));
  t.finish(TopologySource::kSysfs);
  t.set_allowed(nodes({1}));
  EXPECT_EQ(t.allowed_nodes(false), nodes({1}));
  EXPECT_EQ(t.node_of_heap(t.heap_of_cpu(CpuId(0))), NodeId(1));
}

TEST(Topology, UnknownCpusCountAsTheFirstNodes) {
  const auto t = ring(4);
  for (const int cpu : {4, 8191, 8192, 1 << 30, -1}) {
    EXPECT_EQ(t->node_of_cpu(CpuId(cpu)), NodeId(0)) << cpu;
    EXPECT_EQ(t->heap_of_cpu(CpuId(cpu)), HeapId(0)) << cpu;
  }
}

TEST(Topology, FirstNodeNamedForACpuStays) {
  Topology t;
  for (int n = 0; n < 2; n++) t.add_node(node(n));
  EXPECT_TRUE(t.add_cpu(CpuId(3), NodeId(1)));
  EXPECT_FALSE(t.add_cpu(CpuId(3), NodeId(0)));
  EXPECT_FALSE(t.add_cpu(CpuId(4), NodeId(7)));
  EXPECT_FALSE(t.add_cpu(CpuId(8192), NodeId(0)));
  EXPECT_FALSE(t.add_cpu(CpuId(-1), NodeId(0)));
  t.finish(TopologySource::kSysfs);
  EXPECT_EQ(t.node_of_cpu(CpuId(3)), NodeId(1));
  EXPECT_EQ(t.possible_cpu_limit(), 4u);
  EXPECT_EQ(t.cpus_of_node(1).count(), 1u);
  EXPECT_TRUE(t.check());
}

TEST(Topology, MoreNodesThanWeCanDescribe) {
  auto t = std::make_unique<Topology>();
  for (int n = 0; n < int{kMaxNodes}; n++) EXPECT_TRUE(t->add_node(node(n)));
  EXPECT_FALSE(t->truncated());
  EXPECT_FALSE(t->add_node(node(kMaxNodes)));
  EXPECT_TRUE(t->truncated());
  EXPECT_FALSE(t->add_node(node(NodeSet::kBits)));
  EXPECT_FALSE(t->add_node(node(-1)));
  for (int n = 0; n < int{kMaxNodes}; n++) t->add_cpu(CpuId(n), NodeId(n));
  t->finish(TopologySource::kSysfs);
  EXPECT_EQ(t->heap_count(), kMaxNodes);
  EXPECT_EQ(t->heap_of_cpu(CpuId(255)), HeapId(255));
  EXPECT_TRUE(t->check());
  t->clear();
  t->finish(TopologySource::kSingleNode);
  EXPECT_EQ(t->heap_of_cpu(CpuId(255)), HeapId(0)) << "nothing of the last machine is left";
  EXPECT_FALSE(t->truncated());
  EXPECT_TRUE(t->check());
}

TEST(Topology, RefineTakesWhatSysfsDoesNotKnow) {
  const auto t = ring(2);
  Topology better;
  for (int n = 0; n < 2; n++) {
    NodeInfo info = node(n);
    info.memory_bytes = 5 * GiB;
    info.tier = static_cast<std::uint8_t>(n + 1);
    info.bandwidth = 100'000;
    better.add_node(info);
  }
  better.add_cpu(CpuId(0), NodeId(0));  // CPU 1 is offline just now
  better.set_distance(NodeId(0), NodeId(1), 14);
  better.finish(TopologySource::kHwloc);
  ASSERT_TRUE(t->refine(better));
  EXPECT_EQ(t->source(), TopologySource::kHwloc);
  EXPECT_EQ(t->node(0).memory_bytes, 5 * GiB);
  EXPECT_EQ(t->node(1).tier, 2);
  EXPECT_EQ(t->node(1).bandwidth, 100'000u);
  EXPECT_EQ(t->node(1).kind, NodeKind::kOrdinary) << "it has a CPU";
  EXPECT_EQ(t->distance(0, 1), 14);
  EXPECT_EQ(t->distance(1, 0), 20);
  EXPECT_EQ(t->node(1).cpus, 1u);
  EXPECT_EQ(t->node_of_cpu(CpuId(1)), NodeId(1));
  EXPECT_TRUE(t->check());
}

TEST(Topology, RefineRefusesAnotherMachine) {
  const auto refused = [](const Topology& other) {
    const auto t = ring(2);
    const bool taken = t->refine(other);
    EXPECT_EQ(t->source() == TopologySource::kHwloc, taken);
    EXPECT_EQ(t->distance(0, 1), 20);
    return !taken;
  };
  Topology swapped;
  for (int n = 0; n < 2; n++) swapped.add_node(node(n));
  swapped.add_cpu(CpuId(0), NodeId(1));
  swapped.set_distance(NodeId(0), NodeId(1), 14);
  swapped.finish(TopologySource::kHwloc);
  EXPECT_TRUE(refused(swapped));
  Topology renumbered;
  for (int n = 1; n < 3; n++) renumbered.add_node(node(n));
  renumbered.finish(TopologySource::kHwloc);
  EXPECT_TRUE(refused(renumbered));
  Topology memoryless;
  for (int n = 0; n < 2; n++) memoryless.add_node(node(n, n == 0));
  memoryless.finish(TopologySource::kHwloc);
  EXPECT_TRUE(refused(memoryless));
  EXPECT_TRUE(refused(*ring(3)));
}

TEST(Topology, ReadersBesideAChangeSeeHeapsThatExist) {
  const auto t = ring(16);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!stop) {
      for (int cpu = 0; cpu < 16; cpu++) {
        if (t->heap_of_cpu(CpuId(cpu)).value >= 16) wrong++;
      }
      if (t->helper_count() == 0 || t->allowed_nodes(true).count() > 16) wrong++;
    }
  });
  for (int i = 0; i < 2000; i++) t->set_allowed(i % 2 == 0 ? nodes({3, 4}) : nodes({0, 15, 7}));
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(t->check());
}

}  // namespace
}  // namespace nh
