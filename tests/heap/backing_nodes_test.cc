// The ladder on machines of several nodes, and with pages of 1 GiB.
#include "heap/ladder.h"

namespace nh::test {
namespace {

// ---- several nodes -----------------------------------------------------------------------------------------------

TEST(Ladder, AHugetlbMappingIsBoundOnceAsAWhole) {
  Ladder l(two_nodes(0, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back(0, 2), 0);
  ASSERT_EQ(l.back(2, 2), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kBind), 1u);
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(1));
  EXPECT_EQ(l.os.policy_of(l.at(31)).mode, BindMode::kBind);
  EXPECT_EQ(l.units[31].bound, BindMode::kBind);
}

// It is faulted in by use, and not always by a thread of its node.
TEST(Ladder, AHeapsFirstUnitBelongsToItsNodeFromTheStart) {
  Ladder l(two_nodes(0, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back_small(), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
  EXPECT_EQ(l.os.policy_of(l.at(0)).mode, BindMode::kPreferred) << "a fault on a full node must not kill";
  EXPECT_EQ(l.os.touch(l.at(0), kOsPageSize, NodeId(0)), 0);
  EXPECT_EQ(l.os.node_of(l.at(0)), NodeId(1));
}

TEST(Ladder, AStrictHeapsFirstUnitIsBound) {
  Backer::Config c = bound_to(NodeId(1));
  c.strict = true;
  Ladder l(two_nodes(0, 64), c);
  ASSERT_EQ(l.back_small(), 0);
  EXPECT_EQ(l.os.policy_of(l.at(0)).mode, BindMode::kBind);
}

// The node matters more than the page size.
TEST(Ladder, ADryNodeGetsThpRatherThanAnotherNodesHugePages) {
  Ladder l(two_nodes(2, 64), bound_to(NodeId(0)));
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "22tt");
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(0));
}

// Pages lie where they were proven; afterwards the kernel may move them to who uses them, which it does only where no policy
// is, and a copy after a fork may lie elsewhere.
TEST(Ladder, ProvenMemoryHasNoPolicyAndIsBoundAgainBeforeItIsRefilled) {
  Ladder l(two_nodes(0, 0, 256 * MiB), bound_to(NodeId(0), HugePagesOption::kThp));
  ASSERT_EQ(l.back(0, 32), 0);
  for (unsigned u = 0; u < 32; u++) EXPECT_EQ(l.os.policy_of(l.at(u)).mode, BindMode::kDefault);
  EXPECT_EQ(l.units[7].bound, BindMode::kDefault);
  ASSERT_EQ(l.release(0, 8), 8u);
  l.os.set_memory(NodeId(0), 0);
  EXPECT_EQ(l.back(0, 8), ENOMEM) << "a full node says so; other nodes' memory is for the caller to ask for";
  l.os.set_memory(NodeId(0), 256 * MiB);
  EXPECT_EQ(l.back(0, 8), 0);
  EXPECT_EQ(l.os.node_of(l.at(0)), NodeId(0));
}

// Populating memory that is bound to a full node ends in the kernel's killer, not in an error.
TEST(Ladder, AFullNodeIsNotPopulated) {
  FakeOsConfig full = two_nodes(0, 0);
  full.node_room = kHugeSize - 1;
  Ladder l(full, bound_to(NodeId(1), HugePagesOption::kThp));
  const std::size_t before = l.os.calls(FakeCall::kPopulate);
  EXPECT_EQ(l.back(0, 1), ENOMEM);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), before);
  EXPECT_EQ(l.kinds(), "");
}

// All of it or nothing, and nothing costs nothing.
TEST(Ladder, ARequestThatTheNodeCannotHoldIsRefusedAtOnce) {
  FakeOsConfig config = two_nodes(0, 0);
  config.node_room = 100 * MiB;
  Ladder l(config, bound_to(NodeId(1), HugePagesOption::kThp));
  EXPECT_EQ(l.back(0, 51), ENOMEM);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
  EXPECT_EQ(l.os.mapping_count(), 0u);
  EXPECT_EQ(l.back(0, 50), 0);
}

TEST(Ladder, WhatThePoolGivesNeedsNoRoomOnTheNode) {
  FakeOsConfig config = two_nodes(0, 8);
  config.node_room = 2 * kHugeSize;
  Ladder l(config, bound_to(NodeId(1)));
  EXPECT_EQ(l.back(0, 11), ENOMEM);
  EXPECT_EQ(l.back(0, 10), 0);
  EXPECT_EQ(l.kinds(), "22222222tt");
}

TEST(Ladder, StrictMemoryStaysBound) {
  Backer::Config c = bound_to(NodeId(0), HugePagesOption::kThp);
  c.strict = true;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.os.policy_of(l.at(7)).mode, BindMode::kBind);
}

TEST(Ladder, RefusedBindingIsCountedAndSurvived) {
  for (const int error : {EPERM, EINVAL, ENOSYS}) {
    Ladder l(two_nodes(64, 64), bound_to(NodeId(0)));
    const std::uint64_t before = fallbacks(Fallback::kBindRefused);
    l.os.fail_all(FakeCall::kBind, error);
    EXPECT_EQ(l.back(0, 2), 0);
    EXPECT_EQ(fallbacks(Fallback::kBindRefused), before + 1);
    EXPECT_EQ(l.units[0].bound, BindMode::kDefault);
    l.use();
  }
}

// A cpuset that changes at run time.
TEST(Ladder, MemoryOfANodeThatWentAwayLiesElsewhereUntilItComesBack) {
  Ladder l(two_nodes(0, 0), bound_to(NodeId(1), HugePagesOption::kThp));
  ASSERT_EQ(l.back(0, 1), 0);
  const std::uint64_t before = fallbacks(Fallback::kNodeGone), refused = fallbacks(Fallback::kBindRefused);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(1, 1), 0);
  EXPECT_GT(fallbacks(Fallback::kNodeGone), before);
  EXPECT_EQ(fallbacks(Fallback::kBindRefused), refused);
  EXPECT_EQ(l.os.node_of(l.at(1)), NodeId(0));
  EXPECT_EQ(l.os.policy_of(l.at(1)).mode, BindMode::kDefault);
  l.os.set_online(NodeId(1), true);
  const std::uint64_t gone = fallbacks(Fallback::kNodeGone);
  EXPECT_EQ(l.back(2, 1), 0);
  ASSERT_EQ(l.release(1, 1), 1u);
  EXPECT_EQ(l.back(1, 1), 0);
  for (const std::size_t u : {1u, 2u}) {
    EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(1));
    EXPECT_EQ(l.os.policy_of(l.at(u)).mode, BindMode::kDefault);
  }
  EXPECT_EQ(fallbacks(Fallback::kNodeGone), gone);
}

// A hugetlb mapping that could not be bound would never be: it is not made.
TEST(Ladder, WithoutItsNodeAHeapTakesNoPoolPages) {
  Ladder l(two_nodes(64, 64), bound_to(NodeId(1)));
  l.os.set_online(NodeId(1), false);
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(), "tt");
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  l.os.set_online(NodeId(1), true);
  ASSERT_EQ(l.back(2, 2), 0);
  EXPECT_EQ(l.kinds(), "tt22");
  EXPECT_EQ(l.os.node_of(l.at(2)), NodeId(1));
}

TEST(Ladder, AStrictHeapHasNoMemoryWhileItsNodeIsGone) {
  Backer::Config c = bound_to(NodeId(1), HugePagesOption::kThp);
  c.strict = true;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(0, 1), 0);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(1, 1), ENOMEM);
  l.os.set_online(NodeId(1), true);
  EXPECT_EQ(l.back(1, 1), 0);
  EXPECT_EQ(l.os.node_of(l.at(1)), NodeId(1));
}

// A huge page that cannot be had is replaced while the node is gone: its unit has lost the mapping's policy.
TEST(Ladder, AUnitReplacedWhileTheNodeIsGoneIsBoundAgain) {
  Ladder l(two_nodes(1, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back(0, 1), 0);
  l.os.set_online(NodeId(1), false);
  ASSERT_EQ(l.back(1, 2), 0);
  EXPECT_EQ(l.kinds(), "22t") << "node 0 has one huge page";
  EXPECT_EQ(l.os.policy_of(l.at(2)).mode, BindMode::kDefault);
  l.os.set_online(NodeId(1), true);
  ASSERT_EQ(l.release(2, 1), 1u);
  ASSERT_EQ(l.back(2, 2), 0);
  EXPECT_EQ(l.os.policy_of(l.at(2)).mode, BindMode::kDefault);
  EXPECT_EQ(l.os.node_of(l.at(2)), NodeId(1));
  EXPECT_EQ(l.os.node_of(l.at(3)), NodeId(1));
}

// Its room says nothing about the nodes that serve.
TEST(Ladder, AFullNodeThatIsGoneRefusesNothing) {
  FakeOsConfig full = two_nodes(0, 0);
  full.node_room = kHugeSize - 1;
  Ladder l(full, bound_to(NodeId(1), HugePagesOption::kThp));
  EXPECT_EQ(l.back(0, 1), ENOMEM);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(0, 1), 0);
}

// Nothing keeps the kernel from another node's pool then.
TEST(Ladder, WithoutBindingADryNodeGetsThpToo) {
  Ladder l(two_nodes(2, 64), bound_to(NodeId(0)));
  l.os.fail_all(FakeCall::kBind, EPERM);
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "22tt");
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(0));
}

// ---- 1 GiB -------------------------------------------------------------------------------------------------------

TEST(Ladder, A1GiBPageOfANodeThatIsGone) {
  for (const bool strict : {false, true}) {
    FakeOsConfig machine = two_nodes(0, 0);
    for (FakeNode& node : machine.nodes) node.pages_1g = 1;
    Backer::Config c = bound_to(NodeId(1), HugePagesOption::k1G);
    c.strict = strict;
    Ladder l(machine, c);
    l.os.set_online(NodeId(1), false);
    EXPECT_EQ(l.map_1g(), !strict);
    EXPECT_EQ(l.os.hugetlb_bytes(), strict ? 0 : GiB) << "a policy that binds takes no other node's";
  }
}

TEST(Ladder, APageOf1GiBBacksAllItsUnits) {
  Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
  ASSERT_TRUE(l.map_1g());
  EXPECT_EQ(l.os.hugetlb_bytes(), GiB);
  EXPECT_EQ(l.kinds(), std::string(32, '1'));
  EXPECT_EQ(l.in_state(UnitState::kBacked), Ladder::kUnits);
  l.use();
  EXPECT_EQ(l.back(100, 32), 0) << "nothing left to do";
  EXPECT_EQ(l.release(100, 32), 0u) << "a part of it cannot be given back";
}

TEST(Ladder, A1GiBPageThatCannotBeHadLeavesNoTrace) {
  for (const FakeCall call : {FakeCall::kHugePool, FakeCall::kMapNewHugetlb, FakeCall::kPopulate}) {
    Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
    l.os.fail_call(call, 1, EFAULT);
    EXPECT_FALSE(l.map_1g());
    EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
    EXPECT_EQ(l.os.mapping_count(), 0u);
    EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits);
    EXPECT_EQ(l.back(0, 1), 0) << "2 MiB pages serve";
    EXPECT_EQ(l.kinds(), "2");
  }
}

TEST(Ladder, A1GiBPageGoesAroundWhatIsInTheWay) {
  Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
  l.os.add_obstacle(address(l.at(77)), kOsPageSize);
  EXPECT_FALSE(l.map_1g());
  EXPECT_EQ(l.back(0, 77), 0);
}

}  // namespace
}  // namespace nh::test
