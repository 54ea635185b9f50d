// Kinds, orders and best nodes on machines with several kinds of memory, as /sys tells them.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "machines.h"
#include "numa/sysfs_topology.h"

namespace nh {
namespace {

using Ids = std::vector<int>;

std::unique_ptr<Topology> load(const FakeMachine& machine) {
  const FakeTree tree(machine);
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  EXPECT_TRUE(t->check());
  return t;
}

const NodeInfo& node(const Topology& t, int id) { return t.node(t.index_of(NodeId(id))); }

Ids of_kind(const Topology& t, NodeKind kind) {
  Ids ids;
  for (unsigned h = 0; h < t.heap_count(); h++) {
    if (t.node(h).kind == kind) ids.push_back(t.node(h).id);
  }
  return ids;
}

Ids order(const Topology& t, int from) {
  const unsigned index = t.index_of(NodeId(from));
  Ids ids;
  for (unsigned rank = 0; rank < t.fallback_count(index); rank++) ids.push_back(t.node_of_heap(t.fallback(index, rank)).value);
  return ids;
}

Ids best(const Topology& t, NodeQuality quality, int from) {
  HeapId heaps[kMaxNodes];
  const unsigned count = t.best_heaps(quality, t.index_of(NodeId(from)), heaps);
  Ids ids;
  for (unsigned i = 0; i < count; i++) ids.push_back(t.node_of_heap(heaps[i]).value);
  return ids;
}

TEST(Power9, GpusMemoryIsNobodysFallback) {
  const auto t = load(power9_with_gpus());
  EXPECT_EQ(of_kind(*t, NodeKind::kDevice), (Ids{252, 253, 254, 255}));
  EXPECT_EQ(order(*t, 0), (Ids{0, 8}));
  EXPECT_EQ(order(*t, 8), (Ids{8, 0}));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 8), (Ids{8, 0}));
  EXPECT_EQ(t->allowed_nodes(true).count(), 2u);
}

TEST(GraceHopper, GpusMemoryIsNobodysFallback) {
  for (const bool with_driver : {true, false}) {
    const auto t = load(grace_hopper(with_driver));
    EXPECT_EQ(t->heap_count(), 2u);
    EXPECT_EQ(of_kind(*t, NodeKind::kDevice), Ids{1});
    EXPECT_EQ(node(*t, 1).reason, KindReason::kGpu);
    EXPECT_EQ(order(*t, 0), Ids{0});
    EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0), Ids{0});
  }
  const auto four = load(four_grace_hoppers());
  EXPECT_EQ(four->node_count(), 36u);
  EXPECT_EQ(of_kind(*four, NodeKind::kDevice), (Ids{4, 12, 20, 28}));
  EXPECT_EQ(order(*four, 2), (Ids{2, 3, 0, 1}));
}

TEST(OneKindOfMemory, IsOrdinaryWhateverItIsMadeOf) {
  for (const FakeMachine& machine : {mi300a(), a64fx(), core_complexes(), sixty_four_sparse()}) {
    const auto t = load(machine);
    EXPECT_EQ(of_kind(*t, NodeKind::kOrdinary).size(), machine.nodes.size());
    EXPECT_EQ(t->helper_count(), machine.nodes.size());
    EXPECT_FALSE(t->has_kind(NodeKind::kFast));
  }
  EXPECT_EQ(order(*load(a64fx()), 6), (Ids{6, 7, 4, 5}));
  EXPECT_EQ(order(*load(sixty_four_sparse()), 200).size(), 64u);
}

TEST(XeonMax, HbmIsForThoseWhoAsk) {
  const auto t = load(xeon_max_flat());
  EXPECT_EQ(of_kind(*t, NodeKind::kFast), (Ids{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(node(*t, 8).reason, KindReason::kPerformance);
  EXPECT_EQ(node(*t, 8).bandwidth, 204'800u) << "the mean of reads and writes";
  EXPECT_EQ(node(*t, 8).latency, 140u);
  EXPECT_EQ(order(*t, 5), (Ids{5, 6, 7, 4, 0, 1, 2, 3}));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 5), (Ids{13, 12, 14, 15, 8, 9, 10, 11, 5, 6, 7, 4, 0, 1, 2, 3}));
  EXPECT_EQ(best(*t, NodeQuality::kLatency, 5).front(), 5);
  EXPECT_EQ(best(*t, NodeQuality::kCapacity, 5).front(), 5);
}

TEST(KnightsLanding, McdramIsForThoseWhoAsk) {
  const auto t = load(knights_landing());
  EXPECT_EQ(of_kind(*t, NodeKind::kFast), (Ids{4, 5, 6, 7}));
  EXPECT_EQ(order(*t, 1), (Ids{1, 2, 3, 0}));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 1), (Ids{5, 4, 6, 7, 1, 2, 3, 0}));
  FakeMachine another = knights_landing();
  another.cpu_model = 85;
  EXPECT_EQ(of_kind(*load(another), NodeKind::kSlow), (Ids{4, 5, 6, 7})) << "nothing is known";
}

TEST(SlowMemory, ComesAfterTheOtherPackageThoughItIsNearer) {
  for (const FakeMachine& machine : {xeon_with_optane(), xeon_with_cxl(), xeon_with_cxl_from_firmware(), expander_memory()}) {
    const auto t = load(machine);
    EXPECT_EQ(of_kind(*t, NodeKind::kOrdinary), (Ids{0, 1}));
    EXPECT_EQ(of_kind(*t, NodeKind::kSlow).size(), machine.nodes.size() - 2);
    const Ids from_zero = order(*t, 0);
    EXPECT_EQ(Ids(from_zero.begin(), from_zero.begin() + 3), (Ids{0, 1, 2}));
    EXPECT_EQ(order(*t, 1)[1], 0);
    EXPECT_EQ(best(*t, NodeQuality::kCapacity, 0)[0], 2);
    EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0)[0], 0);
    EXPECT_EQ(t->allowed_nodes(false).count(), 2u);
  }
  EXPECT_EQ(order(*load(xeon_with_optane()), 1), (Ids{1, 0, 3, 2}));
  EXPECT_EQ(best(*load(xeon_with_optane()), NodeQuality::kCapacity, 1), (Ids{3, 2, 1, 0}));
  EXPECT_EQ(node(*load(xeon_with_optane()), 2).reason, KindReason::kPersistent);
  EXPECT_EQ(node(*load(xeon_with_cxl()), 2).reason, KindReason::kCxl);
  const auto told = load(xeon_with_cxl_from_firmware());
  EXPECT_EQ(node(*told, 2).reason, KindReason::kPerformance);
  EXPECT_EQ(node(*told, 0).tier, 1) << "memory_tier64";
  EXPECT_EQ(node(*told, 2).tier, 2) << "memory_tier67";
}

TEST(MemoryFacts, ThatAreDamagedAreLeftOut) {
  FakeTree tree(xeon_max_flat());
  tree.write("/sys/devices/system/node/node9/access1/initiators/read_bandwidth", "much\n");
  tree.write("/sys/devices/system/node/node10/access1/initiators/read_latency", "99999999999999\n");
  tree.write("/sys/devices/virtual/memory_tiering/memory_tierX/nodelist", "0\n");
  tree.write("/sys/devices/virtual/memory_tiering/memory_tier9/nodelist", "\n");
  tree.write("/sys/devices/virtual/memory_tiering/memory_tier7/nodelist", "8-\n");
  tree.write("/sys/bus/dax/devices/dax9.0", "a file");
  tree.write("/proc/driver/nvidia/gpus/0000:01:00.0/numa_status", "Node: -1\n");
  tree.write("/proc/driver/nvidia/gpus/0000:02:00.0/numa_status", "Status: offline\n");
  tree.write("/proc/driver/nvidia/gpus/0000:03:00.0/numa_status", "Node: 99999\nNode: x\nNode:");
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  EXPECT_TRUE(t->check());
  EXPECT_EQ(node(*t, 9).bandwidth, 203'800u) << "that of writes";
  EXPECT_EQ(of_kind(*t, NodeKind::kDevice), Ids{});
  EXPECT_EQ(of_kind(*t, NodeKind::kFast).size(), 8u);
}

TEST(MemoryFacts, ADeviceNearerThanAnyCpuDoesNotSpeakForTheCpus) {
  FakeTree tree(xeon_with_cxl_from_firmware());
  for (const char* const what : {"read_bandwidth", "write_bandwidth"}) {
    tree.write(std::string("/sys/devices/system/node/node2/access0/initiators/") + what, "900000\n");
  }
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  EXPECT_EQ(node(*t, 2).bandwidth, 30'000u);
  EXPECT_EQ(node(*t, 2).kind, NodeKind::kSlow);
}

}  // namespace
}  // namespace nh
