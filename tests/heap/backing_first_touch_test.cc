// The ladder for memory that the program faults in: when pages of the pools serve, and why not.
#include <functional>

#include "heap/ladder.h"

namespace nh::test {
namespace {

const NodeSet kBoth = [] {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  return both;
}();

TEST(Ladder, FirstTouchKeepsItsReservation) {
  Ladder l(machine(8), first_touch());
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "2222");
  EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 4) << "what was asked for and no more";
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u) << "whoever touches it first decides where it lies";
  HugePool pool;
  ASSERT_TRUE(l.os.ops().huge_pool(kHugeSize, NodeId(), &pool));
  EXPECT_EQ(pool.reserved, 4u);
  l.os.set_pool_pages(NodeId(0), kHugeSize, 4);
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.touch(l.at(u), kHugeSize, NodeId(0)), 0) << "no SIGBUS";
}

// Where nodes are left out that the kernel would take.
TEST(Ladder, FirstTouchKeepsToItsNodesWhereOthersAreLeftOut) {
  Backer::Config c = first_touch(NodeSet::of(NodeId(1)));
  {
    Ladder usual(two_nodes(0, 0), c);
    ASSERT_EQ(usual.back(0, 2), 0);
    EXPECT_EQ(usual.os.policy_of(usual.at(0)).mode, BindMode::kDefault);
  }
  c.keeps_to_nodes = true;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.os.policy_of(l.at(1)).mode, BindMode::kBind);
  EXPECT_EQ(l.os.policy_of(l.at(1)).nodes, NodeSet::of(NodeId(1)));
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
}

TEST(Ladder, FirstTouchTakesHugetlbForWholeExtentsOnly) {
  Ladder l(machine(8), first_touch());
  ASSERT_EQ(l.back(0, 4, 9 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(), "tttt");
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  // Decided anew for every request.
  ASSERT_EQ(l.back(4, 4), 0);
  EXPECT_EQ(l.kinds(), "tttt2222");
}

// No node need hold all of it.
TEST(Ladder, FirstTouchTakesWhatTheNodesHaveTogether) {
  Ladder l(two_nodes(170, 170), first_touch(kBoth));
  ASSERT_EQ(l.back(0, 280), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u) << "nobody has touched it";
  for (unsigned u = 0; u < 280; u++) ASSERT_EQ(l.os.touch(l.at(u), kHugeSize, NodeId(u < 140 ? 0 : 1)), 0);
  for (unsigned u = 0; u < 280; u++) ASSERT_EQ(l.os.node_of(l.at(u)), NodeId(u < 140 ? 0 : 1));
  EXPECT_EQ(l.os.hugetlb_bytes(), 280 * kHugeSize);
}

// Threads that divide it evenly would find their pages on other nodes.
TEST(Ladder, FirstTouchNeedsAShareOnEveryNode) {
  const std::uint64_t before = fallbacks(Fallback::kHugetlbUneven);
  Ladder lopsided(two_nodes(64, 1), first_touch(kBoth));
  ASSERT_EQ(lopsided.back(0, 4), 0);
  EXPECT_EQ(lopsided.kinds(), "tttt");
  EXPECT_EQ(fallbacks(Fallback::kHugetlbUneven), before + 1);
}

// They do not divide it quite evenly.
TEST(Ladder, FirstTouchLeavesRoomToSpare) {
  const std::uint64_t before = fallbacks(Fallback::kHugetlbShort);
  for (const std::size_t units : {32, 30}) {
    Ladder l(two_nodes(16, 16), first_touch(kBoth));
    ASSERT_EQ(l.back(0, units), 0);
    EXPECT_EQ(l.kinds(), std::string(units, units == 32 ? 't' : '2'));
  }
  EXPECT_EQ(fallbacks(Fallback::kHugetlbShort), before + 1);
}

TEST(Ladder, FirstTouchCountsWhatOthersWerePromised) {
  Ladder l(two_nodes(8, 8), first_touch(kBoth));
  ASSERT_EQ(l.back(0, 8), 0);
  ASSERT_EQ(l.back(8, 6), 0);
  ASSERT_EQ(l.back(14, 3), 0);
  EXPECT_EQ(l.kinds(), "22222222222222ttt");
}

// A node without CPUs: memory that nobody touches first.
TEST(Ladder, FirstTouchCountsTheNodesThatTheProcessRunsOn) {
  Backer::Config c = first_touch(NodeSet::of(NodeId(0)));
  c.serving = kBoth;
  {
    Ladder elsewhere(two_nodes(2, 64), c);
    ASSERT_EQ(elsewhere.back(0, 4), 0);
    EXPECT_EQ(elsewhere.kinds(), "tttt");
  }
  Ladder here(two_nodes(8, 0), c);
  ASSERT_EQ(here.back(0, 4), 0);
  EXPECT_EQ(here.kinds(), "2222");
  here.os.set_online(NodeId(1), false);
  ASSERT_EQ(here.back(4, 2), 0);
  EXPECT_EQ(here.kinds(), "2222tt") << "what was reserved may be what the process may not use any more";
}

// The kernel's killer is worse than a page on another node.
TEST(Ladder, FirstTouchTakesUnevenPoolsWhereOrdinaryMemoryHasNoRoom) {
  FakeOsConfig machine = two_nodes(12, 2);
  machine.node_room = 4 * kHugeSize;
  Ladder l(machine, first_touch(kBoth));
  ASSERT_EQ(l.back(0, 10), 0);
  EXPECT_EQ(l.kinds(), "2222222222");
}
TEST(Ladder, FirstTouchTakesWhatThePoolsHaveWhereOrdinaryMemoryHasNoRoom) {
  FakeOsConfig machine = two_nodes(4, 4);
  machine.node_room = 4 * kHugeSize;
  Ladder l(machine, first_touch(kBoth));
  ASSERT_EQ(l.back(0, 12), 0);
  EXPECT_EQ(l.kinds(), "22222222tttt");
  for (unsigned u = 0; u < 12; u++) EXPECT_EQ(l.os.touch(l.at(u), kHugeSize, NodeId(0)), 0);
}

TEST(Ladder, FirstTouchWithEnoughOnEveryNode) {
  Ladder even(two_nodes(4, 4), first_touch(kBoth));
  ASSERT_EQ(even.back(0, 4), 0);
  EXPECT_EQ(even.kinds(), "2222");
  for (unsigned u = 0; u < 4; u++) {
    EXPECT_EQ(even.os.touch(even.at(u), kHugeSize, NodeId(u % 2 == 0 ? 0 : 1)), 0);
    EXPECT_EQ(even.os.node_of(even.at(u)), NodeId(u % 2 == 0 ? 0 : 1));
  }
}

// The program's faults may be kept from the pages that were reserved, and would end in a SIGBUS.
TEST(Ladder, FirstTouchTakesNoHugetlbWhileANodeIsGone) {
  Ladder l(two_nodes(64, 64), first_touch(kBoth));
  l.os.set_online(NodeId(1), false);
  ASSERT_EQ(l.back(0, 2), 0);
  l.os.set_online(NodeId(1), true);
  ASSERT_EQ(l.back(2, 2), 0);
  EXPECT_EQ(l.kinds(), "tt22");
}

// Each reason is counted as itself.
TEST(Ladder, WhyFirstTouchMemoryIsNotOnThePool) {
  struct Case {
    Fallback why;
    std::function<void(FakeOsConfig&, Backer::Config&)> change;
  };
  const Case cases[] = {
      {Fallback::kHugetlbDry, [](FakeOsConfig& os, Backer::Config&) { os.nodes[0].pages_2m = 0; }},
      {Fallback::kHugetlbShort, [](FakeOsConfig& os, Backer::Config&) { os.nodes[0].pages_2m = 1; }},
      {Fallback::kHugetlbPolicy, [](FakeOsConfig&, Backer::Config& c) { c.reservations_hold = false; }},
      {Fallback::kHugetlbGroup, [](FakeOsConfig& os, Backer::Config&) { os.hugetlb_fault_limited = true; }},
      {Fallback::kHugetlbLeft, [](FakeOsConfig&, Backer::Config&) { leave_pool(); }},
  };
  for (const Case& c : cases) {
    FakeOsConfig os = machine(64);
    Backer::Config config = first_touch();
    c.change(os, config);
    Ladder l(os, config);
    std::uint64_t all = 0, one = fallbacks(c.why);
    for (unsigned f = 0; f < static_cast<unsigned>(Fallback::kCount); f++) all += fallbacks(static_cast<Fallback>(f));
    EXPECT_EQ(l.back(0, 2), 0);
    return_to_pool();
    EXPECT_EQ(l.kinds(), "tt") << fallback_name(c.why);
    EXPECT_EQ(fallbacks(c.why), one + 1) << fallback_name(c.why);
    for (unsigned f = 0; f < static_cast<unsigned>(Fallback::kCount); f++) all -= fallbacks(static_cast<Fallback>(f));
    EXPECT_EQ(all, std::uint64_t{0} - 1) << fallback_name(c.why) << " and no other";
  }
}

TEST(Ladder, ReleasedFirstTouchMemoryStartsOver) {
  Ladder l(machine(4), first_touch());
  ASSERT_EQ(l.back(0, 4), 0);
  for (unsigned u = 0; u < 4; u++) ASSERT_EQ(l.os.touch(l.at(u), kHugeSize, NodeId(0)), 0);
  l.use();
  EXPECT_EQ(l.release(0, 2), 2u);
  EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 2);
  HugePool pool;
  ASSERT_TRUE(l.os.ops().huge_pool(kHugeSize, NodeId(), &pool));
  EXPECT_EQ(pool.free, 2u) << "for other ranks";
  l.os.set_pool_pages(NodeId(0), kHugeSize, 2);  // somebody took them
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(), "tt22");
  l.use();
  EXPECT_EQ(l.at(2)[0], 1);
}

// vm.max_map_count. Where the pages are dropped their reservation goes with them: a store could find the pool dry.
TEST(Ladder, WhatCannotBeUnmappedIsNeverUsedAgain) {
  Ladder l(machine(4), first_touch());
  ASSERT_EQ(l.back(0, 3), 0);
  ASSERT_EQ(l.os.touch(l.at(0), 3 * kHugeSize, NodeId(0)), 0);
  l.os.fail_all(FakeCall::kUnmap, ENOMEM);
  EXPECT_EQ(l.release(0, 1), 1u);
  EXPECT_EQ(l.os.hugetlb_bytes(), 2 * kHugeSize);
  EXPECT_EQ(l.units[0].state, UnitState::kLost);
  l.os.fail_all(FakeCall::kDiscard, EINVAL);
  EXPECT_EQ(l.release(1, 1), 0u) << "locked memory is what it was";
  l.os.clear_failures();
  EXPECT_EQ(l.back(0, 1), EEXIST);
  EXPECT_EQ(l.kinds(), ".22");
  l.use();
}

TEST(Ladder, MemoryThatTheProgramFaultsInServesAgainThough) {
  Ladder l(machine(0), first_touch());
  ASSERT_EQ(l.back(0, 2), 0);
  l.use();
  l.os.set_address_limit(8 * GiB);
  l.os.fail_all(FakeCall::kUnmap, ENOMEM);
  EXPECT_EQ(l.release(0, 1), 1u);
  ASSERT_EQ(l.back(0, 1), 0);
  EXPECT_EQ(l.at(0)[0], 0);
}

// Programs that touch little of a large object live on glibc, and do so here: only what could not be there at all is refused.
TEST(Ladder, MoreThanTheNodesThatServeAreMadeOfIsRefused) {
  Backer::Config c = first_touch(NodeSet::of(NodeId(0)));
  c.strict = true;
  c.most_bytes = GiB;
  {
    Ladder bound(two_nodes(0, 0, GiB), c);
    EXPECT_FALSE(bound.backer.exceeds_memory(GiB));
    EXPECT_TRUE(bound.backer.exceeds_memory(GiB + 1));
    bound.os.set_memory(NodeId(0), 2 * GiB);
    EXPECT_FALSE(bound.backer.exceeds_memory(2 * GiB)) << "there is more by now";
  }
  c.strict = false;
  Ladder free(two_nodes(0, 0, GiB), c);
  EXPECT_FALSE(free.backer.exceeds_memory(2 * GiB)) << "a cpuset that has become wider";
  EXPECT_TRUE(free.backer.exceeds_memory(2 * GiB + 1));
}

}  // namespace
}  // namespace nh::test
