// Which kind a node is, who helps out, and which nodes are best for what: the rules, on topologies filled by hand.
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "numa/topology.h"

namespace nh {
namespace {

struct Memory {
  unsigned gib = 16;
  bool cpus = false;
  KindReason named = KindReason::kNone;
  unsigned tier = 0;
  unsigned bandwidth = 0;
  unsigned latency = 0;
};

std::unique_ptr<Topology> machine(const std::vector<Memory>& nodes) {
  auto t = std::make_unique<Topology>();
  for (std::size_t n = 0; n < nodes.size(); n++) {
    NodeInfo info;
    info.id = static_cast<int>(n);
    info.has_memory = nodes[n].gib != 0;
    info.memory_bytes = nodes[n].gib * GiB;
    info.named = nodes[n].named;
    info.tier = static_cast<std::uint8_t>(nodes[n].tier);
    info.bandwidth = nodes[n].bandwidth;
    info.latency = nodes[n].latency;
    t->add_node(info);
  }
  for (std::size_t n = 0; n < nodes.size(); n++) {
    if (nodes[n].cpus) t->add_cpu(CpuId(static_cast<int>(n)), NodeId(static_cast<int>(n)));
  }
  t->finish(TopologySource::kSysfs);
  EXPECT_TRUE(t->check());
  return t;
}

std::vector<int> order(const Topology& t, int from) {
  const unsigned index = t.index_of(NodeId(from));
  std::vector<int> ids;
  for (unsigned rank = 0; rank < t.fallback_count(index); rank++) ids.push_back(t.node_of_heap(t.fallback(index, rank)).value);
  return ids;
}

std::vector<int> best(const Topology& t, NodeQuality quality, int from) {
  HeapId heaps[kMaxNodes];
  std::vector<int> ids;
  const unsigned count = t.best_heaps(quality, t.index_of(NodeId(from)), heaps);
  for (unsigned i = 0; i < count; i++) ids.push_back(t.node_of_heap(heaps[i]).value);
  return ids;
}

using Ids = std::vector<int>;
constexpr Memory kDram{.cpus = true, .tier = 4, .bandwidth = 100'000, .latency = 100};

void expect_kind(const Memory& memory, NodeKind kind, KindReason reason) {
  const auto t = machine({kDram, memory});
  EXPECT_EQ(t->node(1).kind, kind);
  EXPECT_EQ(t->node(1).reason, reason);
}

TEST(NodeKinds, WhatIsNamedCounts) {
  expect_kind({.named = KindReason::kHighBandwidth}, NodeKind::kFast, KindReason::kHighBandwidth);
  expect_kind({.named = KindReason::kCxl, .bandwidth = 900'000}, NodeKind::kSlow, KindReason::kCxl);
  expect_kind({.named = KindReason::kPersistent, .tier = 1}, NodeKind::kSlow, KindReason::kPersistent);
  expect_kind({.named = KindReason::kGpu, .tier = 1}, NodeKind::kDevice, KindReason::kGpu);
}

TEST(NodeKinds, FiguresCountWhereTheyAreClear) {
  expect_kind({.bandwidth = 150'000, .latency = 180}, NodeKind::kFast, KindReason::kPerformance);
  expect_kind({.tier = 22, .bandwidth = 400'000}, NodeKind::kFast, KindReason::kPerformance);
  expect_kind({.bandwidth = 66'000, .latency = 100}, NodeKind::kSlow, KindReason::kPerformance);
  expect_kind({.bandwidth = 100'000, .latency = 150}, NodeKind::kSlow, KindReason::kPerformance);
  expect_kind({.tier = 4, .bandwidth = 110'000, .latency = 120}, NodeKind::kOrdinary, KindReason::kPerformance);
}

TEST(NodeKinds, ThenTheTierBesideThatOfTheCpus) {
  expect_kind({.tier = 3}, NodeKind::kFast, KindReason::kTier);
  expect_kind({.tier = 5, .bandwidth = 110'000, .latency = 120}, NodeKind::kSlow, KindReason::kTier);
  expect_kind({.tier = 4}, NodeKind::kSlow, KindReason::kNoCpus);
  expect_kind({}, NodeKind::kSlow, KindReason::kNoCpus);
}

TEST(NodeKinds, ANodeWithCpusIsOrdinaryWhateverItIsMadeOf) {
  const auto t = machine({{.cpus = true, .named = KindReason::kHighBandwidth}, {.cpus = true, .tier = 1, .bandwidth = 1}});
  for (const unsigned i : {0u, 1u}) {
    EXPECT_EQ(t->node(i).kind, NodeKind::kOrdinary);
    EXPECT_EQ(t->node(i).reason, KindReason::kCpus);
  }
}

// Two packages with DRAM; fast, slow and device memory behind each.
std::vector<Memory> everything() {
  return {kDram, kDram,
          {.gib = 8, .named = KindReason::kHighBandwidth, .tier = 1, .bandwidth = 400'000, .latency = 130},
          {.gib = 8, .named = KindReason::kHighBandwidth, .tier = 1, .bandwidth = 400'000, .latency = 130},
          {.gib = 64, .named = KindReason::kCxl, .tier = 5, .bandwidth = 30'000, .latency = 250},
          {.gib = 96, .named = KindReason::kGpu, .bandwidth = 3'000'000, .latency = 700}};
}

TEST(NodeKinds, SlowMemoryHelpsLastFastMemoryAndDevicesDoNot) {
  const auto t = machine(everything());
  EXPECT_EQ(order(*t, 0), (Ids{0, 1, 4}));
  EXPECT_EQ(order(*t, 1), (Ids{1, 0, 4}));
  EXPECT_EQ(t->helper_count(), 3u);
  EXPECT_EQ(order(*t, 3), (Ids{3, 0, 1, 4}));
  EXPECT_EQ(order(*t, 5), (Ids{5, 0, 1, 4}));
  EXPECT_EQ(t->allowed_nodes(false).count(), 2u);
  EXPECT_FALSE(t->allowed_nodes(true).has(NodeId(5)));
  EXPECT_TRUE(t->requestable_nodes().has(NodeId(5)));
}

TEST(NodeKinds, WhatIsLeftHelps) {
  const auto t = machine(everything());
  const auto allow = [&](std::initializer_list<int> ids) {
    NodeSet set;
    for (const int id : ids) set.add(NodeId(id));
    t->set_allowed(set);
    EXPECT_TRUE(t->check());
    return order(*t, 0);
  };
  EXPECT_EQ(allow({2, 3, 4, 5}), (Ids{2, 3, 4})) << "no ordinary memory";
  EXPECT_EQ(allow({3}), Ids{3});
  EXPECT_EQ(allow({5}), Ids{5});
  EXPECT_EQ(allow({4, 5}), Ids{4});
  EXPECT_FALSE(t->has_kind(NodeKind::kFast));
  EXPECT_EQ(allow({}), (Ids{0, 1, 4}));
  EXPECT_TRUE(t->has_kind(NodeKind::kFast));
}

TEST(BestNodes, ByWhatTheMachineTells) {
  const auto t = machine(everything());
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0), (Ids{2, 3, 0, 1, 4}));
  EXPECT_EQ(best(*t, NodeQuality::kLatency, 1), (Ids{1, 0, 2, 3, 4}));
  EXPECT_EQ(best(*t, NodeQuality::kCapacity, 1), (Ids{4, 1, 0, 2, 3}));
}

TEST(BestNodes, TheNearestOfThoseThatAreEquallyGood) {
  auto t = std::make_unique<Topology>();
  for (int n = 0; n < 4; n++) {
    NodeInfo info;
    info.id = n;
    info.has_memory = true;
    info.memory_bytes = (n == 1 ? 15 : 16) * GiB;  // node 0 lacks what the firmware took: no reason to go far
    info.named = n >= 2 ? KindReason::kHighBandwidth : KindReason::kNone;
    t->add_node(info);
  }
  for (int n = 0; n < 2; n++) t->add_cpu(CpuId(n), NodeId(n));
  for (int n = 0; n < 2; n++) t->set_distance(NodeId(n), NodeId(n + 2), 13);
  t->finish(TopologySource::kSysfs);
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0), (Ids{2, 3, 0, 1}));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 1), (Ids{3, 2, 1, 0}));
  EXPECT_EQ(best(*t, NodeQuality::kLatency, 1), (Ids{1, 0, 3, 2})) << "nobody tells: fast memory is no quicker";
  EXPECT_EQ(best(*t, NodeQuality::kCapacity, 1), (Ids{1, 0, 3, 2}));
}

// Somewhat more of the better kind is no reason to take it for its size.
TEST(BestNodes, CapacityIsWhatWasBought) {
  const auto first = [](unsigned ordinary_mib, unsigned fast_mib) {
    auto t = std::make_unique<Topology>();
    NodeInfo info;
    info.has_memory = true;
    info.memory_bytes = ordinary_mib * MiB;
    t->add_node(info);
    info.id = 1;
    info.memory_bytes = fast_mib * MiB;
    info.named = KindReason::kHighBandwidth;
    t->add_node(info);
    t->add_cpu(CpuId(0), NodeId(0));
    t->finish(TopologySource::kSysfs);
    return best(*t, NodeQuality::kCapacity, 0).front();
  };
  EXPECT_EQ(first(16000, 16384), 0);
  EXPECT_EQ(first(503, 504), 0);
  EXPECT_EQ(first(16384, 16000), 0);
  EXPECT_EQ(first(16000, 32768), 1);
  EXPECT_EQ(first(0, 16000), 0) << "not known";
}

TEST(BestNodes, OnlyAllowedOnesAndAtLeastOne) {
  const auto t = machine(everything());
  t->set_allowed(NodeSet::of(NodeId(1)));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0), Ids{1});
  t->set_allowed(NodeSet::of(NodeId(5)));
  EXPECT_EQ(best(*t, NodeQuality::kBandwidth, 0), Ids{5});
  EXPECT_EQ(best(*machine({{.cpus = true}}), NodeQuality::kCapacity, 0), Ids{0});
}

}  // namespace
}  // namespace nh
