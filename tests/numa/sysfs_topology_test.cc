#include "numa/sysfs_topology.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "machines.h"

namespace nh {
namespace {

std::unique_ptr<Topology> load(const FakeTree& tree) {
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  EXPECT_TRUE(t->check());
  return t;
}
std::unique_ptr<Topology> load(const FakeMachine& machine) { return load(FakeTree(machine)); }

// The node whose memory serves a CPU.
int home(const Topology& t, int cpu) { return t.node_of_heap(t.heap_of_cpu(CpuId(cpu))).value; }

std::vector<int> order(const Topology& t, int from) {
  std::vector<int> ids;
  const unsigned index = t.index_of(NodeId(from));
  for (unsigned rank = 0; rank < t.fallback_count(index); rank++) {
    ids.push_back(t.node_of_heap(t.fallback(index, rank)).value);
  }
  return ids;
}
using Ids = std::vector<int>;

TEST(CpusThatComeLater, GetTheirNodeFromSysfsThen) {
  FakeTree tree(with_offline_cpus());
  const SysfsRoot root{tree.path()};
  const auto t = load(tree);
  for (const int cpu : {0, 8, 31}) EXPECT_TRUE(t->is_settled(CpuId(cpu))) << cpu;
  const CpuId late(10), unnamed(11), elsewhere(12);
  EXPECT_FALSE(t->is_settled(late));
  EXPECT_EQ(home(*t, 10), 0);
  tree.write("/sys/devices/system/cpu/cpu10/node1/cpulist", "8,10,15\n");
  errno = 4711;
  settle_cpu_by_sysfs(root, late, t.get());
  EXPECT_EQ(errno, 4711);
  EXPECT_TRUE(t->is_settled(late));
  EXPECT_EQ(t->node_of_cpu(late), NodeId(1));
  EXPECT_EQ(home(*t, 10), 1);
  // What /sys does not tell is not asked for again and again.
  settle_cpu_by_sysfs(root, unnamed, t.get());
  EXPECT_TRUE(t->is_settled(unnamed));
  EXPECT_EQ(t->node_of_cpu(unnamed), NodeId(0));
  // The CPU of a node that came later goes to the nearest of those that were there.
  tree.write("/sys/devices/system/node/online", "0-3,77\n");
  tree.write("/sys/devices/system/node/node77/distance", "30 30 20 30 10\n");
  tree.write("/sys/devices/system/cpu/cpu12/node77/cpulist", "12\n");
  settle_cpu_by_sysfs(root, elsewhere, t.get());
  EXPECT_TRUE(t->is_settled(elsewhere));
  EXPECT_EQ(home(*t, 12), 2);
  // Others are as they were, and the next filling starts afresh.
  EXPECT_EQ(home(*t, 8), 1);
  EXPECT_FALSE(t->is_settled(CpuId(9)));
  EXPECT_TRUE(t->check());
  load_sysfs_topology(root, t.get());
  EXPECT_FALSE(t->is_settled(late));
  EXPECT_EQ(home(*t, 10), 0);
}

TEST(CpusThatComeLater, NumbersOutOfRangeNeedNothing) {
  auto t = load(FakeMachine::uniform(2, 2));
  for (const int cpu : {-1, int{kMaxCpus}}) {
    EXPECT_TRUE(t->is_settled(CpuId(cpu)));
    t->settle_cpu(CpuId(cpu), NodeId(1));
    EXPECT_EQ(home(*t, cpu), 0);
  }
  t->settle_cpu(CpuId(1), NodeId(1));
  EXPECT_EQ(home(*t, 1), 0) << "a CPU that has a node keeps it";
}

class EveryMachine : public ::testing::TestWithParam<NamedMachine> {};

INSTANTIATE_TEST_SUITE_P(Machines, EveryMachine, ::testing::ValuesIn(all_machines()),
                         [](const auto& p) { return std::string(p.param.name); });

TEST_P(EveryMachine, IsReadAsItWasWritten) {
  const FakeMachine& machine = GetParam().machine;
  const auto t = load(machine);
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  ASSERT_EQ(t->node_count(), machine.nodes.size());
  EXPECT_FALSE(t->truncated());
  std::size_t with_memory = 0, cpus = 0;
  for (std::size_t i = 0; i < machine.nodes.size(); i++) {
    const FakeNode& expected = machine.nodes[i];
    const unsigned index = t->index_of(NodeId(expected.id));
    ASSERT_LT(index, t->node_count()) << expected.id;
    const NodeInfo& node = t->node(index);
    EXPECT_EQ(node.has_memory, expected.memory_kib != 0);
    EXPECT_EQ(node.memory_bytes, expected.memory_kib * KiB);
    EXPECT_EQ(node.cpus, expected.cpus.size());
    EXPECT_EQ(node.memory_only(), expected.cpus.empty() && expected.memory_kib != 0);
    for (const int cpu : expected.cpus) {
      EXPECT_EQ(t->node_of_cpu(CpuId(cpu)).value, expected.id) << cpu;
      EXPECT_TRUE(t->cpus_of_node(index).has(CpuId(cpu)));
      EXPECT_TRUE(t->possible_cpus().has(CpuId(cpu)));
    }
    with_memory += node.has_memory;
    cpus += expected.cpus.size();
    for (std::size_t j = 0; j < machine.distances.size(); j++) {
      EXPECT_EQ(t->distance(index, t->index_of(NodeId(machine.nodes[j].id))), machine.distances[i][j]);
    }
  }
  EXPECT_EQ(t->heap_count(), with_memory);
  EXPECT_EQ(t->known_cpus().count(), cpus);
}

TEST_P(EveryMachine, OrdersNeverStepOverANearerHeap) {
  const auto t = load(GetParam().machine);
  for (unsigned from = 0; from < t->node_count(); from++) {
    for (unsigned rank = 1; rank < t->fallback_count(from); rank++) {
      const unsigned nearer = t->fallback(from, rank - 1).value;
      const unsigned further = t->fallback(from, rank).value;
      EXPECT_NE(further, from);
      if (nearer == from) continue;
      EXPECT_LE(t->node(nearer).kind, t->node(further).kind);
      if (t->node(nearer).kind != t->node(further).kind) continue;
      EXPECT_LE(t->distance(from, nearer), t->distance(from, further));
      if (t->distance(from, nearer) == t->distance(from, further)) {
        EXPECT_LE(t->node(nearer).memory_only(), t->node(further).memory_only());
      }
    }
  }
}

TEST(SysfsTopology, ExpanderAtTheDistanceOfTheOtherPackageComesAfterIt) {
  const auto t = load(expander_memory());
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 2}));
  EXPECT_EQ(order(*t, 1), (Ids{1, 0, 2}));
  EXPECT_EQ(t->node(2).tier, 2);
}

TEST(SysfsTopology, CpusBesideEmptySlotsUseTheNearestMemory) {
  const auto t = load(nodes_without_memory());
  EXPECT_EQ(t->heap_count(), 2u);
  EXPECT_EQ(home(*t, 5), 0);
  EXPECT_EQ(home(*t, 13), 2);
  EXPECT_EQ(t->node_of_cpu(CpuId(5)), NodeId(1));
}

TEST(SysfsTopology, ClustersFallBackWithinTheirPackageFirst) {
  const auto t = load(sub_numa_clusters());
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(order(*t, 6), (Ids{6, 7, 4, 5, 0, 1, 2, 3}));
  EXPECT_EQ(order(*t, 3), (Ids{3, 2, 0, 1, 4, 5, 6, 7}));
}

TEST(SysfsTopology, CoreComplexesFallBackToTheirNeighbourThenTheirPackage) {
  const auto t = load(core_complexes());
  EXPECT_EQ(order(*t, 5), (Ids{5, 4, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(home(*t, 128 + 8 * 15), 15);
}

TEST(SysfsTopology, FastMemoryIsForThoseWhoAskAndSlowMemoryComesLast) {
  const auto t = load(three_kinds_of_memory());
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 4}));
  EXPECT_EQ(order(*t, 1), (Ids{1, 0, 4}));
  EXPECT_EQ(order(*t, 2), (Ids{2, 0, 1, 4})) << "of what somebody asked for there and it cannot give";
  for (int cpu = 0; cpu < 16; cpu++) EXPECT_EQ(home(*t, cpu), cpu / 8);
}

TEST(SysfsTopology, ConfinedToOneNodeOfManyThereIsNoFallback) {
  FakeMachine machine = FakeMachine::uniform(64, 4, 40);
  machine.mems_allowed = "63";
  const auto t = load(machine);
  EXPECT_EQ(order(*t, 0), Ids{63});
  EXPECT_EQ(order(*t, 63), Ids{63});
  EXPECT_EQ(home(*t, 0), 63);
}

TEST(SysfsTopology, CpusThatMayComeLaterCount) {
  FakeMachine machine = FakeMachine::uniform(2, 4);
  machine.possible_cpus = "0-63,128";
  const auto t = load(machine);
  EXPECT_EQ(t->possible_cpu_limit(), 129u);
  EXPECT_EQ(t->possible_cpus().count(), 65u);
  EXPECT_EQ(t->known_cpus().count(), 8u);
  EXPECT_EQ(home(*t, 60), 0);
}

TEST(SysfsTopology, CpusetIsObeyed) {
  FakeMachine machine = FakeMachine::uniform(4, 4);
  machine.mems_allowed = "2-3";
  machine.cpus_allowed = "8-11,15";
  FakeTree tree(machine);
  const auto t = load(tree);
  EXPECT_EQ(t->heap_count(), 4u) << "the nodes stay: the cpuset may widen";
  EXPECT_EQ(t->helper_count(), 2u);
  EXPECT_EQ(home(*t, 0), 2);
  EXPECT_EQ(home(*t, 9), 2);
  EXPECT_EQ(home(*t, 15), 3);
  CpuSet cpus;
  ASSERT_TRUE(read_allowed_cpus(SysfsRoot{tree.path()}, &cpus));
  EXPECT_EQ(cpus.count(), 5u);
  EXPECT_TRUE(cpus.has(CpuId(15)));
  // And when it widens.
  NodeSet nodes;
  tree.write("/proc/self/status", "Mems_allowed_list:\t0,2\n");
  ASSERT_TRUE(read_allowed_nodes(SysfsRoot{tree.path()}, &nodes));
  t->set_allowed(nodes);
  EXPECT_EQ(home(*t, 0), 0);
  EXPECT_EQ(home(*t, 15), 0) << "node 3 was taken away; 0 and 2 are equally far, and 0 is next after 3";
}

TEST(SysfsTopology, OneNodeNeedsThreeFiles) {
  FakeTree tree;
  tree.write("/sys/devices/system/node/online", "0\n");
  tree.write("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       24631280 kB\n");
  tree.write("/sys/devices/system/cpu/possible", "0-1\n");
  const auto t = load(tree);
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  EXPECT_EQ(t->node(0).memory_bytes, 24631280 * KiB);
  EXPECT_EQ(t->node(0).cpus, 2u);
  EXPECT_EQ(t->possible_cpu_limit(), 2u);
}

TEST(SysfsTopology, NothingReadableMeansOneNode) {
  const FakeTree empty;
  errno = 77;
  const auto t = load(empty);
  EXPECT_EQ(errno, 77);
  EXPECT_EQ(t->source(), TopologySource::kSingleNode);
  EXPECT_EQ(t->heap_count(), 1u);
  EXPECT_EQ(t->node_count(), 1u);
  auto missing = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{"/nonexistent"}, missing.get());
  EXPECT_TRUE(missing->check());
  const std::string endless(2000, 'x');
  load_sysfs_topology(SysfsRoot{endless.c_str()}, missing.get());
  EXPECT_EQ(missing->source(), TopologySource::kSingleNode);
  NodeSet nodes = NodeSet::of(NodeId(1));
  EXPECT_FALSE(read_allowed_nodes(SysfsRoot{"/nonexistent"}, &nodes));
  EXPECT_TRUE(nodes.empty());
}

TEST(SysfsTopology, ACpuCountWithoutNodesStillCounts) {
  FakeTree tree;
  tree.write("/sys/devices/system/cpu/possible", "0-95\n");
  const auto t = load(tree);
  EXPECT_EQ(t->source(), TopologySource::kSingleNode);
  EXPECT_EQ(t->possible_cpu_limit(), 96u);
}

// Kernels before 4.0 end lists with a NUL.
TEST(SysfsTopology, ListsMayEndWithANul) {
  FakeTree tree(FakeMachine::uniform(4, 4));
  const std::string nul(1, '\0');
  tree.write("/sys/devices/system/node/online", "0-3\n" + nul);
  tree.write("/sys/devices/system/node/has_memory", "0-3\n" + nul);
  tree.write("/sys/devices/system/node/node3/cpulist", "12-15\n" + nul);
  tree.write("/sys/devices/system/node/node3/distance", "40 30 20 10\n" + nul);
  tree.write("/sys/devices/system/cpu/possible", "0-15\n" + nul + nul);
  const auto t = load(tree);
  EXPECT_EQ(t->heap_count(), 4u);
  EXPECT_EQ(home(*t, 15), 3);
  EXPECT_EQ(order(*t, 3), (Ids{3, 2, 1, 0}));
  EXPECT_EQ(t->possible_cpu_limit(), 16u);
}

TEST(SysfsTopology, WithoutAListOfNodesTheirDirectoriesCount) {
  FakeTree tree(sixty_four_sparse());
  tree.remove("/sys/devices/system/node/online");
  tree.write("/sys/devices/system/node/node_of_something/cpulist", "0\n");
  tree.write("/sys/devices/system/node/node99999/cpulist", "0\n");
  const auto t = load(tree);
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  EXPECT_EQ(t->heap_count(), 64u);
  EXPECT_EQ(home(*t, 127), 252);
}

// 300 nodes in a row of which 44 cannot be described; a node is nearest to those beside it.
TEST(SysfsTopology, CpusOfNodesLeftOutGoToTheNearestThatIsKept) {
  FakeMachine machine = FakeMachine::uniform(300, 1);
  for (int i = 0; i < 300; i++) {
    for (int j = 0; j < 300; j++) {
      machine.distances[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] = std::min(10 + std::abs(i - j), 255);
    }
  }
  machine.nodes[7].memory_kib = 0;
  const auto t = load(machine);
  EXPECT_TRUE(t->truncated());
  EXPECT_EQ(t->node_count(), kMaxNodes);
  EXPECT_EQ(t->heap_count(), kMaxNodes) << "nodes without memory are the first to be left out";
  EXPECT_EQ(home(*t, 299), 256);
  EXPECT_EQ(home(*t, 7), 6) << "6 and 8 are equally near";
  EXPECT_EQ(t->known_cpus().count(), 300u);
}

TEST(SysfsTopology, MoreCpusThanWeCanDescribe) {
  FakeTree tree(FakeMachine::uniform(2, 4));
  EXPECT_FALSE(load(tree)->truncated());
  tree.write("/sys/devices/system/cpu/possible", "0-8191\n");
  EXPECT_FALSE(load(tree)->truncated());
  tree.write("/sys/devices/system/cpu/possible", "0-9999\n");
  const auto t = load(tree);
  EXPECT_TRUE(t->truncated());
  EXPECT_EQ(t->possible_cpu_limit(), kMaxCpus);
  EXPECT_EQ(home(*t, 9000), 0);
}

// A cpuset that says nothing, and memory that went offline: such a node is one without memory, whoever is allowed.
TEST(SysfsTopology, EmptyCpusetsAndOfflineMemory) {
  FakeTree tree(FakeMachine::uniform(4, 4));
  tree.write("/proc/self/status", "Cpus_allowed_list:\t\nMems_allowed_list:\t\n");
  EXPECT_EQ(load(tree)->helper_count(), 4u);
  tree.write("/sys/devices/system/node/has_memory", "0,2-3\n");
  tree.write("/proc/self/status", "Mems_allowed_list:\t0,2-3\n");
  const auto t = load(tree);
  EXPECT_EQ(t->heap_count(), 3u);
  EXPECT_EQ(t->helper_count(), 3u);
  EXPECT_EQ(home(*t, 5), 2);
}

TEST(SysfsTopology, MissingPiecesAreLeftOut) {
  FakeTree tree(FakeMachine::uniform(2, 4));
  tree.remove("/sys/devices/system/node/node1/distance");
  tree.remove("/sys/devices/system/node/node1/meminfo");
  tree.remove("/sys/devices/system/node/node1/cpulist");
  tree.remove("/sys/devices/system/cpu/possible");
  const auto t = load(tree);
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  EXPECT_EQ(t->heap_count(), 2u);
  EXPECT_EQ(t->distance(0, 1), 21);
  EXPECT_EQ(t->distance(1, 0), 20);
  EXPECT_EQ(t->node(1).memory_bytes, 0u);
  EXPECT_EQ(t->known_cpus().count(), 4u);
  EXPECT_EQ(home(*t, 7), 0) << "CPUs that no node names count as the first node's";
  EXPECT_EQ(t->possible_cpu_limit(), 8u) << "from cpu/present";
}

TEST(SysfsTopology, GarbageInOneFileSpoilsOnlyThat) {
  const char* const kFiles[] = {
      "/sys/devices/system/node/online",         "/sys/devices/system/node/has_memory",
      "/sys/devices/system/node/node1/cpulist",  "/sys/devices/system/node/node1/meminfo",
      "/sys/devices/system/node/node1/distance", "/sys/devices/system/cpu/possible",
      "/proc/self/status",
  };
  const std::string kGarbage[] = {
      "", "\n", "garbage", "0-", "4-2\n", "99999999999999999999999\n", "0-4294967295\n", std::string(100'000, '7'),
      std::string(3000, '\0'), "Node 1 MemTotal: -5 kB\n", "10 21 x\n", "10 999999 0\n", "Mems_allowed_list:\n",
      "Mems_allowed_list", "Node 1 MemTotal: 99999999999999999999 kB",
  };
  for (const char* const file : kFiles) {
    for (const std::string& garbage : kGarbage) {
      FakeTree tree(FakeMachine::uniform(2, 4));
      tree.write(file, garbage);
      const auto t = load(tree);
      EXPECT_GE(t->heap_count(), 1u) << file;
      if (std::string(file) != kFiles[0]) {
        EXPECT_EQ(t->node_count(), 2u) << file;
      }
    }
  }
}

TEST(SysfsTopology, RandomBytesNeverBreakIt) {
  std::mt19937 random(20240229);
  for (int round = 0; round < 200; round++) {
    FakeTree tree(FakeMachine::uniform(2, 4));
    for (const char* const file : {"/sys/devices/system/node/online", "/sys/devices/system/node/node0/cpulist",
                                   "/sys/devices/system/node/node1/distance", "/proc/self/status"}) {
      std::string text;
      for (unsigned n = random() % 40; n > 0; n--) text += "0123456789-,\n x"[random() % 15];
      if (random() % 2 == 0) tree.write(file, text);
    }
    load(tree);
  }
}

}  // namespace
}  // namespace nh
