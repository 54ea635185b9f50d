#include "numa/policy.h"

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "machines.h"
#include "memory_machines.h"
#include "numa/sysfs_topology.h"

namespace nh {
namespace {

using Mode = InheritedPolicy::Mode;

NodeSet nodes(std::initializer_list<int> ids) {
  NodeSet set;
  for (const int id : ids) set.add(NodeId(id));
  return set;
}

std::unique_ptr<Topology> load(const FakeMachine& machine) {
  const FakeTree tree(machine);
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  return t;
}

InheritedPolicy inherited(Mode mode, const NodeSet& set = {}) {
  InheritedPolicy policy;
  policy.mode = mode;
  policy.nodes = set;
  return policy;
}

struct Settled {
  Placement placement;
  std::string problem;
};
Settled settle(const char* option, const Topology& t, const InheritedPolicy& from = inherited(Mode::kDefault)) {
  PolicyOption policy;
  const bool given = option != nullptr;
  EXPECT_TRUE(!given || parse_policy(option, &policy)) << option;
  Text<256> problem;
  Settled settled;
  settled.placement = settle_placement(policy, given, from, t, &problem);
  settled.problem = std::string(problem.view());
  return settled;
}

// The node that a request from a CPU tries first.
int first(const Placement& placement, const Topology& t, int cpu) {
  return t.node_of_heap(first_heap(placement, t, CpuId(cpu))).value;
}

// All of them, in order, for a request from a node.
std::vector<int> order(const Placement& placement, const Topology& t, int node) {
  HeapId heaps[kMaxNodes];
  std::vector<int> ids;
  const unsigned count = heaps_in_order(placement, t, t.index_of(NodeId(node)), heaps);
  for (unsigned i = 0; i < count; i++) ids.push_back(t.node_of_heap(heaps[i]).value);
  return ids;
}
using Ids = std::vector<int>;

TEST(Policy, LocalIsTheNodeOfTheCpu) {
  const auto t = load(sub_numa_clusters());
  const Settled s = settle(nullptr, *t);
  EXPECT_EQ(s.placement.kind, PlacementKind::kLocal);
  EXPECT_FALSE(s.placement.inherited);
  EXPECT_EQ(first(s.placement, *t, 12), 3);
}

TEST(Policy, BindStartsAtTheNearestOfItsNodes) {
  const auto t = load(sub_numa_clusters());
  const Settled s = settle("bind:1,4-5", *t);
  EXPECT_EQ(s.problem, "");
  EXPECT_EQ(first(s.placement, *t, 0), 1);
  EXPECT_EQ(first(s.placement, *t, 20), 5);
  EXPECT_EQ(first(s.placement, *t, 28), 4) << "node 7: 4 and 5 are equally far";
}

TEST(Policy, PreferredStartsThereFromEverywhere) {
  const auto t = load(FakeMachine::uniform(4, 4));
  const Settled s = settle("preferred:2", *t);
  EXPECT_EQ(first(s.placement, *t, 0), 2);
  EXPECT_EQ(first(s.placement, *t, 15), 2);
}

TEST(Policy, SeveralArePreferredTheNearestFirstThenTheOthersHelp) {
  const auto t = load(xeon_with_optane());
  const Settled s = settle("preferred:1-2", *t);
  EXPECT_EQ(s.problem, "");
  EXPECT_EQ(s.placement.nodes, nodes({1, 2}));
  EXPECT_EQ(order(s.placement, *t, 0), (Ids{1, 2, 0, 3})) << "ordinary memory before slow, as ever";
  EXPECT_EQ(order(s.placement, *t, 1), (Ids{1, 2, 0, 3}));
  EXPECT_EQ(order(settle("preferred:0-1", *t).placement, *t, 1), (Ids{1, 0, 3, 2}));
  EXPECT_EQ(order(settle("bind:0-1", *t).placement, *t, 1), (Ids{1, 0})) << "nobody else";
  const Settled part = settle("preferred:3,9", *t);
  EXPECT_EQ(part.placement.nodes, nodes({3}));
  EXPECT_NE(part.problem, "");
}

TEST(Policy, TheBestForSomethingTheNearestFirst) {
  const auto t = load(xeon_max_flat());
  const Settled fast = settle("bandwidth", *t);
  EXPECT_EQ(fast.problem, "");
  EXPECT_EQ(fast.placement.kind, PlacementKind::kBest);
  EXPECT_EQ(first(fast.placement, *t, 0), 8);
  EXPECT_EQ(first(fast.placement, *t, 5 * 14), 13);
  // When all HBM is full, the asker's own DDR and not that of the HBM that it asked first.
  const Ids from_5 = order(fast.placement, *t, 5);
  ASSERT_EQ(from_5.size(), 16u);
  EXPECT_EQ(Ids(from_5.begin(), from_5.begin() + 4), (Ids{13, 12, 14, 15})) << "its package's";
  EXPECT_EQ(from_5[8], 5);
  EXPECT_EQ(first(settle("latency", *t).placement, *t, 5 * 14), 5);
  EXPECT_EQ(first(settle("capacity", *t).placement, *t, 5 * 14), 5) << "a node of DDR is larger than one of HBM";
}

TEST(Policy, CapacityIsWhereSlowMemoryIs) {
  const auto t = load(xeon_with_cxl());
  const Placement capacity = settle("capacity", *t).placement;
  EXPECT_EQ(order(capacity, *t, 0), (Ids{2, 0, 1}));
  EXPECT_EQ(order(capacity, *t, 1), (Ids{2, 1, 0})) << "the next best of the asker";
  EXPECT_EQ(order(settle("bandwidth", *t).placement, *t, 1), (Ids{1, 0, 2}));
}

TEST(Policy, TheBestOfWhatABindingLeaves) {
  const auto t = load(knights_landing());
  const InheritedPolicy bound = inherited(Mode::kBind, nodes({1, 2, 6, 7}));
  const Placement fast = settle("bandwidth", *t, bound).placement;
  EXPECT_EQ(fast.nodes, nodes({1, 2, 6, 7}));
  EXPECT_EQ(order(fast, *t, 1), (Ids{6, 7, 1, 2}));
  FakeMachine machine = knights_landing();
  machine.mems_allowed = "0-3,5";
  EXPECT_EQ(first(settle("bandwidth", *load(machine)).placement, *load(machine), 0), 5);
}

TEST(Policy, TheBestWhereAllAreAlikeIsLocalAndThatIsSaid) {
  for (const char* const option : {"bandwidth", "latency", "capacity"}) {
    const auto t = load(FakeMachine::uniform(4, 4));
    const Settled s = settle(option, *t);
    EXPECT_EQ(s.placement.kind, PlacementKind::kLocal);
    EXPECT_EQ(s.problem, std::string("NUMAHEAP_POLICY=") + option + ": the memory that this process may use is all of one kind "
                         "(`numaheap topo`); the policy is local");
    const Settled bound = settle(option, *t, inherited(Mode::kBind, nodes({2, 3})));
    EXPECT_EQ(bound.placement.kind, PlacementKind::kBind);
    // It is so, too, where a binding or a cpuset leaves one kind only.
    const auto mixed = load(knights_landing());
    EXPECT_NE(settle(option, *mixed, inherited(Mode::kBind, nodes({0, 1}))).problem, "");
    EXPECT_EQ(settle(option, *mixed).problem, "");
  }
}

TEST(Policy, DeviceMemoryHasToBeNamed) {
  const auto t = load(grace_hopper());
  const InheritedPolicy none = inherited(Mode::kDefault);
  EXPECT_NE(settle("bandwidth", *t).problem, "") << "the GPU's memory does not count";
  EXPECT_EQ(settle("bind:1", *t).placement.nodes, nodes({1}));
  EXPECT_EQ(order(settle("preferred:1", *t).placement, *t, 0), (Ids{1, 0}));
  EXPECT_EQ(settle("weighted", *t).placement.nodes, nodes({0}));
  EXPECT_EQ(settle("interleave:all", *t).placement.nodes, nodes({0}));
  EXPECT_EQ(nodes_for_requests(settle(nullptr, *t).placement, none, *t), nodes({0, 1}));
  // Requests for something, in a process that is bound there.
  Placement best = settle("bind:1", *t).placement;
  best.kind = PlacementKind::kBest;
  EXPECT_EQ(order(best, *t, 0), Ids{1});
}

TEST(Policy, WeightedAloneIsForAllKinds) {
  const auto t = load(knights_landing());
  const Settled s = settle("weighted", *t);
  EXPECT_EQ(s.placement.kind, PlacementKind::kWeighted);
  EXPECT_EQ(s.placement.nodes.count(), 8u);
  EXPECT_EQ(settle("weighted:0,4", *t).placement.nodes, nodes({0, 4}));
  EXPECT_EQ(first(s.placement, *t, 16), 1) << "its heap is another's matter";
  const Settled taken_over = settle(nullptr, *t, inherited(Mode::kWeighted, nodes({0, 4})));
  EXPECT_EQ(taken_over.placement.kind, PlacementKind::kWeighted);
  EXPECT_EQ(taken_over.placement.nodes, nodes({0, 4}));
}

TEST(Policy, InterleaveAloneSparesMemoryOnlyNodes) {
  const auto t = load(knights_landing());
  EXPECT_EQ(settle("interleave", *t).placement.nodes, nodes({0, 1, 2, 3}));
  EXPECT_EQ(settle("interleave:all", *t).placement.nodes, nodes({0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(settle("bind:4-7", *t).placement.nodes, nodes({4, 5, 6, 7}));
  EXPECT_EQ(first(settle("bind:4-7", *t).placement, *t, 16), 5) << "the MCDRAM of the own quadrant";
}

TEST(Policy, NodesThatDoNotExistAreNamed) {
  const auto t = load(nodes_without_memory());
  const Settled part = settle("bind:0-3,9", *t);
  EXPECT_EQ(part.placement.nodes, nodes({0, 2}));
  EXPECT_EQ(part.problem, "NUMAHEAP_POLICY=bind:0-3,9: memory can be had on nodes 0,2 only; the others are left out");
  const Settled none = settle("preferred:1", *t);
  EXPECT_EQ(none.placement.kind, PlacementKind::kLocal);
  EXPECT_EQ(none.problem, "NUMAHEAP_POLICY=preferred:1: memory can be had on nodes 0,2 only; the policy is ignored");
}

TEST(Policy, CpusetIsNeverLeft) {
  FakeMachine machine = FakeMachine::uniform(4, 4);
  machine.mems_allowed = "1-2";
  const auto t = load(machine);
  EXPECT_EQ(first(settle(nullptr, *t).placement, *t, 0), 1);
  EXPECT_EQ(first(settle("preferred:2", *t).placement, *t, 0), 2);
  EXPECT_EQ(settle("interleave", *t).placement.nodes, nodes({1, 2}));
  EXPECT_EQ(settle("bind:all", *t).placement.nodes, nodes({1, 2}));
  EXPECT_NE(settle("bind:0", *t).problem, "");
}

// What single requests may name.
TEST(Policy, RequestsStayWithinCpusetAndBindings) {
  FakeMachine machine = FakeMachine::uniform(4, 4);
  const auto t = load(machine);
  const InheritedPolicy none = inherited(Mode::kDefault), bound = inherited(Mode::kBind, nodes({2, 3}));
  EXPECT_EQ(nodes_for_requests(settle(nullptr, *t).placement, none, *t), nodes({0, 1, 2, 3}));
  EXPECT_EQ(nodes_for_requests(settle(nullptr, *t, bound).placement, bound, *t), nodes({2, 3}));
  EXPECT_EQ(nodes_for_requests(settle("interleave:2", *t, bound).placement, bound, *t), nodes({2, 3}));
  EXPECT_EQ(nodes_for_requests(settle("bind:0-1", *t).placement, none, *t), nodes({0, 1}));
  EXPECT_EQ(nodes_for_requests(settle("preferred:1", *t).placement, none, *t), nodes({0, 1, 2, 3})) << "no limit";
  machine.mems_allowed = "1-2";
  const auto small = load(machine);
  EXPECT_EQ(nodes_for_requests(settle(nullptr, *small).placement, none, *small), nodes({1, 2}));
  const auto fast = load(knights_landing());
  EXPECT_TRUE(nodes_for_requests(settle(nullptr, *fast).placement, none, *fast).has(NodeId(7))) << "if asked for";
}

TEST(Policy, InheritedPolicyCountsWhereNoneIsGiven) {
  const auto t = load(FakeMachine::uniform(4, 4));
  Settled s = settle(nullptr, *t, inherited(Mode::kBind, nodes({2, 3})));
  EXPECT_EQ(s.placement.kind, PlacementKind::kBind);
  EXPECT_TRUE(s.placement.inherited);
  EXPECT_EQ(first(s.placement, *t, 0), 2);
  s = settle(nullptr, *t, inherited(Mode::kInterleave, nodes({0, 1})));
  EXPECT_EQ(s.placement.kind, PlacementKind::kInterleave);
  EXPECT_EQ(s.placement.nodes, nodes({0, 1}));
  s = settle(nullptr, *t, inherited(Mode::kPreferred, nodes({3})));
  EXPECT_EQ(s.placement.kind, PlacementKind::kPreferred);
  s = settle(nullptr, *t, inherited(Mode::kPreferredMany, nodes({1, 3})));
  EXPECT_EQ(first(s.placement, *t, 12), 3);
  for (const Mode mode : {Mode::kDefault, Mode::kUnknown}) {
    s = settle(nullptr, *t, inherited(mode));
    EXPECT_EQ(s.placement.kind, PlacementKind::kLocal);
    EXPECT_FALSE(s.placement.inherited);
  }
}

TEST(Policy, InheritedBindingLimitsWhatIsGiven) {
  const auto t = load(FakeMachine::uniform(4, 4));
  const InheritedPolicy bound = inherited(Mode::kBind, nodes({2, 3}));
  EXPECT_EQ(settle("bind:all", *t, bound).placement.nodes, nodes({2, 3}));
  EXPECT_EQ(settle("interleave", *t, bound).placement.nodes, nodes({2, 3}));
  const Settled local = settle("local", *t, bound);
  EXPECT_EQ(first(local.placement, *t, 0), 2);
  EXPECT_EQ(first(local.placement, *t, 12), 3);
  const Settled outside = settle("bind:0", *t, bound);
  EXPECT_EQ(outside.placement.nodes, nodes({2, 3}));
  EXPECT_TRUE(outside.placement.inherited);
  EXPECT_NE(outside.problem, "");
}

TEST(Policy, GivenPolicyBeatsAnInheritedPreference) {
  const auto t = load(FakeMachine::uniform(4, 4));
  const InheritedPolicy interleaved = inherited(Mode::kInterleave, nodes({0, 1, 2, 3}));
  EXPECT_EQ(settle("local", *t, interleaved).placement.kind, PlacementKind::kLocal);
  EXPECT_EQ(settle("bind:1", *t, interleaved).placement.nodes, nodes({1}));
}

TEST(Policy, InheritedNodesWithoutMemoryAreDropped) {
  const auto t = load(nodes_without_memory());
  EXPECT_EQ(settle(nullptr, *t, inherited(Mode::kInterleave, nodes({0, 1}))).placement.nodes, nodes({0}));
  EXPECT_EQ(settle(nullptr, *t, inherited(Mode::kPreferred, nodes({1}))).placement.kind, PlacementKind::kLocal);
}

// What NUMAHEAP_NODES leaves of a machine.
struct Left {
  std::unique_ptr<Topology> topology;
  std::string problem;
  bool applied = false;
};
Left leave(const FakeMachine& machine, const char* option) {
  NodesOption nodes;
  EXPECT_TRUE(parse_nodes(option, &nodes));
  Left left{std::make_unique<Topology>(), "", false};
  const FakeTree tree(machine);
  left.topology->leave_out(nodes_left_out(nodes));
  load_sysfs_topology(SysfsRoot{tree.path()}, left.topology.get());
  EXPECT_TRUE(left.topology->check());
  Text<256> problem;
  left.applied = settle_nodes(nodes, *left.topology, &problem);
  left.problem = std::string(problem.view());
  return left;
}

TEST(Nodes, LeftOutOnesCountAsWithoutMemory) {
  const Left left = leave(FakeMachine::uniform(4, 4), "!0,2");
  EXPECT_TRUE(left.applied);
  EXPECT_EQ(left.problem, "");
  const Topology& t = *left.topology;
  EXPECT_EQ(t.heap_count(), 2u);
  EXPECT_EQ(t.node_count(), 4u);
  HeapId heap;
  EXPECT_FALSE(t.heap_of_node(NodeId(0), &heap));
  EXPECT_EQ(t.node_of_heap(t.heap_of_cpu(CpuId(0))), NodeId(1));
  EXPECT_EQ(t.node_of_cpu(CpuId(0)), NodeId(0));
  EXPECT_EQ(t.allowed_nodes(true), nodes({1, 3}));
  EXPECT_EQ(settle("bind:0-1", t).placement.nodes, nodes({1}));
  EXPECT_EQ(leave(FakeMachine::uniform(4, 4), "1,3").topology->allowed_nodes(true), nodes({1, 3}));
}

TEST(Nodes, FastMemoryIsTheOnlyMemoryWhereTheRestIsLeftOut) {
  const Left left = leave(xeon_max_flat(), "8-15");
  EXPECT_EQ(left.topology->helper_count(), 8u);
  EXPECT_EQ(first(settle(nullptr, *left.topology).placement, *left.topology, 5 * 14), 13);
}

TEST(Nodes, WhatTheMachineHasNotIsSaid) {
  const Left unknown = leave(FakeMachine::uniform(2, 4), "!1,7-8");
  EXPECT_TRUE(unknown.applied);
  EXPECT_EQ(unknown.problem, "NUMAHEAP_NODES=!1,7-8: the machine has no node 7-8");
  for (const char* const none : {"!0-1", "7"}) {
    const Left left = leave(FakeMachine::uniform(2, 4), none);
    EXPECT_FALSE(left.applied) << none;
    EXPECT_NE(left.problem.find("no node with memory is left"), std::string::npos) << left.problem;
  }
  EXPECT_FALSE(leave(FakeMachine::uniform(1, 4), "1").applied);
  EXPECT_TRUE(leave(FakeMachine::uniform(1, 4), "0").applied);
}

// Device memory: not meant by "all" or by default, but by its name and by an inherited binding.
TEST(Policy, DevicesAreForThoseWhoNameThem) {
  const auto t = load(grace_hopper());
  EXPECT_EQ(settle("bind:all", *t).placement.nodes, nodes({0}));
  EXPECT_EQ(settle("interleave", *t).placement.nodes, nodes({0}));
  EXPECT_EQ(settle("bind:1", *t).placement.nodes, nodes({1}));
  const Settled bound = settle(nullptr, *t, inherited(Mode::kBind, nodes({1})));
  EXPECT_EQ(bound.placement.nodes, nodes({1}));
  EXPECT_EQ(first(bound.placement, *t, 0), 1);
  const InheritedPolicy none = inherited(Mode::kDefault);
  EXPECT_EQ(nodes_for_requests(settle(nullptr, *t).placement, none, *t), nodes({0, 1}));
}

TEST(Policy, NoPlaceToWriteTheProblemIsFine) {
  const auto t = load(FakeMachine::uniform(2, 2));
  PolicyOption policy;
  ASSERT_TRUE(parse_policy("bind:7", &policy));
  EXPECT_EQ(settle_placement(policy, true, InheritedPolicy(), *t, nullptr).kind, PlacementKind::kLocal);
}

TEST(Policy, OneNodeIsAlwaysTheFirst) {
  const auto t = load(FakeMachine::uniform(1, 4));
  for (const char* const option : {"local", "interleave", "bind:0", "preferred:0"}) {
    EXPECT_EQ(first(settle(option, *t).placement, *t, 3), 0) << option;
  }
}

TEST(Policy, AskingTheKernelKeepsErrno) {
  errno = 77;
  const InheritedPolicy policy = read_inherited_policy();
  EXPECT_EQ(errno, 77);
  EXPECT_EQ(policy.mode == Mode::kUnknown, policy.error != 0);
}

}  // namespace
}  // namespace nh
