// The ladder on machines of several nodes, for memory that the program faults in, and with pages of 1 GiB.
#include "heap/ladder.h"

namespace nh::test {
namespace {

// ---- several nodes -----------------------------------------------------------------------------------------------

TEST(Ladder, AnArenaIsBoundOnceAsAWhole) {
  Ladder l(two_nodes(0, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back(1, 3), 0);
  ASSERT_EQ(l.back(1, 12), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kBind), 1u);
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.unit(1, u)), NodeId(1));
  EXPECT_EQ(l.os.policy_of(l.unit(1, 31)).mode, BindMode::kBind);
  EXPECT_EQ(l.os.policy_of(l.unit(2, 0)).mode, BindMode::kDefault);
}

// It is faulted in by use, and not always by a thread of its node.
TEST(Ladder, AHeapsFirstUnitBelongsToItsNodeFromTheStart) {
  Ladder l(two_nodes(0, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back(0, 1), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
  EXPECT_EQ(l.os.policy_of(l.unit(0, 0)).mode, BindMode::kPreferred) << "a fault on a full node must not kill";
  EXPECT_EQ(l.os.touch(l.unit(0, 0), kOsPageSize, NodeId(0)), 0);
  EXPECT_EQ(l.os.node_of(l.unit(0, 0)), NodeId(1));
}

TEST(Ladder, AStrictHeapsFirstUnitIsBound) {
  Backer::Config c = bound_to(NodeId(1));
  c.strict = true;
  Ladder l(two_nodes(0, 64), c);
  ASSERT_EQ(l.back(0, 1), 0);
  EXPECT_EQ(l.os.policy_of(l.unit(0, 0)).mode, BindMode::kBind);
}

// The node matters more than the page size.
TEST(Ladder, ADryNodeGetsThpRatherThanAnotherNodesHugePages) {
  Ladder l(two_nodes(2, 64), bound_to(NodeId(0)));
  ASSERT_EQ(l.back(1, 0xf), 0);
  EXPECT_EQ(l.kinds(1), "22tt" + std::string(28, '.'));
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.unit(1, u)), NodeId(0));
  EXPECT_EQ(l.os.policy_of(l.unit(1, 3)).mode, BindMode::kBind) << "the fresh mapping got the arena's policy";
}

TEST(Ladder, AFullArenaIsSoftenedAndBoundAgainBeforeItIsRefilled) {
  Ladder l(two_nodes(0, 0, 256 * MiB), bound_to(NodeId(0), HugePagesOption::kThp));
  ASSERT_EQ(l.back(1, kAll), 0);
  l.backer.relax(l.group[1], l.start(1));
  EXPECT_EQ(l.os.policy_of(l.unit(1, 7)).mode, BindMode::kPreferred);
  ASSERT_EQ(l.release(1, 0xff), 0xffu);
  l.os.set_memory(NodeId(0), 0);
  EXPECT_EQ(l.back(1, 0xff), ENOMEM) << "a full node says so; other nodes' memory is for the caller to ask for";
  l.os.set_memory(NodeId(0), 256 * MiB);
  EXPECT_EQ(l.back(1, 0xff), 0);
  EXPECT_EQ(l.os.node_of(l.unit(1, 0)), NodeId(0));
}

// Populating memory that is bound to a full node ends in the kernel's killer, not in an error.
TEST(Ladder, AFullNodeIsNotPopulated) {
  FakeOsConfig full = two_nodes(0, 0);
  full.node_room = kHugeSize - 1;
  Ladder l(full, bound_to(NodeId(1), HugePagesOption::kThp));
  const std::size_t before = l.os.calls(FakeCall::kPopulate);
  EXPECT_EQ(l.back(1, 0b1), ENOMEM);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), before);
  EXPECT_EQ(l.group[1].backed, 0u);
}

TEST(Ladder, StrictArenasAreNotSoftened) {
  Backer::Config c = bound_to(NodeId(0), HugePagesOption::kThp);
  c.strict = true;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(1, kAll), 0);
  l.backer.relax(l.group[1], l.start(1));
  EXPECT_EQ(l.os.policy_of(l.unit(1, 7)).mode, BindMode::kBind);
}

TEST(Ladder, RefusedBindingIsCountedAndSurvived) {
  for (const int error : {EPERM, EINVAL, ENOSYS}) {
    Ladder l(two_nodes(64, 64), bound_to(NodeId(0)));
    const std::uint64_t before = fallbacks(Fallback::kBindRefused);
    l.os.fail_all(FakeCall::kBind, error);
    EXPECT_EQ(l.back(1, 3), 0);
    EXPECT_EQ(fallbacks(Fallback::kBindRefused), before + 1);
    EXPECT_EQ(l.group[1].bound, BindMode::kDefault);
    l.use(1);
  }
}

// A cpuset that changes at run time, in the middle of an arena and between two.
TEST(Ladder, MemoryOfANodeThatWentAwayLiesElsewhereUntilItComesBack) {
  Ladder l(two_nodes(0, 0), bound_to(NodeId(1), HugePagesOption::kThp));
  ASSERT_EQ(l.back(1, 0b1), 0);
  const std::uint64_t before = fallbacks(Fallback::kNodeGone), refused = fallbacks(Fallback::kBindRefused);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(1, 0b10), 0);
  EXPECT_EQ(fallbacks(Fallback::kNodeGone), before + 1);
  EXPECT_EQ(l.back(2, 0b1), 0);
  EXPECT_GT(fallbacks(Fallback::kNodeGone), before + 1);
  EXPECT_EQ(fallbacks(Fallback::kBindRefused), refused);
  EXPECT_EQ(l.os.node_of(l.unit(1, 1)), NodeId(0));
  EXPECT_EQ(l.os.node_of(l.unit(2, 0)), NodeId(0));
  EXPECT_EQ(l.os.policy_of(l.unit(2, 0)).mode, BindMode::kDefault);
  l.os.set_online(NodeId(1), true);
  const std::uint64_t gone = fallbacks(Fallback::kNodeGone);
  EXPECT_EQ(l.back(1, 0b100), 0);
  EXPECT_EQ(l.back(2, 0b10), 0);
  for (void* p : {l.unit(1, 2), l.unit(2, 1)}) {
    EXPECT_EQ(l.os.node_of(p), NodeId(1));
    EXPECT_EQ(l.os.policy_of(p).mode, BindMode::kBind);
  }
  EXPECT_EQ(fallbacks(Fallback::kNodeGone), gone);
}

TEST(Ladder, AStrictHeapHasNoMemoryWhileItsNodeIsGone) {
  Backer::Config c = bound_to(NodeId(1), HugePagesOption::kThp);
  c.strict = true;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(1, 0b1), 0);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(1, 0b10), ENOMEM);
  EXPECT_EQ(l.back(2, 0b1), ENOMEM);
  l.os.set_online(NodeId(1), true);
  EXPECT_EQ(l.back(1, 0b10), 0);
  EXPECT_EQ(l.back(2, 0b1), 0);
  EXPECT_EQ(l.os.node_of(l.unit(2, 0)), NodeId(1));
}

// A huge page that cannot be had is replaced while the node is gone: its unit has lost the arena's policy.
TEST(Ladder, AUnitReplacedWhileTheNodeIsGoneIsBoundAgain) {
  Ladder l(two_nodes(1, 64), bound_to(NodeId(1)));
  ASSERT_EQ(l.back(1, 0b1), 0);
  l.os.set_online(NodeId(1), false);
  ASSERT_EQ(l.back(1, 0b110), 0);
  EXPECT_EQ(l.kinds(1), "22t" + std::string(29, '.')) << "node 0 has one huge page";
  EXPECT_EQ(l.os.policy_of(l.unit(1, 2)).mode, BindMode::kDefault);
  l.os.set_online(NodeId(1), true);
  ASSERT_EQ(l.back(1, 0b1000), 0);
  EXPECT_EQ(l.os.policy_of(l.unit(1, 2)).mode, BindMode::kBind);
  EXPECT_EQ(l.os.node_of(l.unit(1, 3)), NodeId(1));
}

// Its room says nothing about the nodes that serve.
TEST(Ladder, AFullNodeThatIsGoneRefusesNothing) {
  FakeOsConfig full = two_nodes(0, 0);
  full.node_room = kHugeSize - 1;
  Ladder l(full, bound_to(NodeId(1), HugePagesOption::kThp));
  EXPECT_EQ(l.back(1, 0b1), ENOMEM);
  l.os.set_online(NodeId(1), false);
  EXPECT_EQ(l.back(1, 0b1), 0);
}

// Nothing keeps the kernel from another node's pool then.
TEST(Ladder, WithoutBindingADryNodeGetsThpToo) {
  Ladder l(two_nodes(2, 64), bound_to(NodeId(0)));
  l.os.fail_all(FakeCall::kBind, EPERM);
  ASSERT_EQ(l.back(1, 0xf), 0);
  EXPECT_EQ(l.kinds(1), "22tt" + std::string(28, '.'));
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.node_of(l.unit(1, u)), NodeId(0));
}

TEST(Ladder, InterleavedArenasSpread) {
  Backer::Config c = bound_to(NodeId(0), HugePagesOption::kThp);
  c.nodes.add(NodeId(1));
  c.bind_mode = BindMode::kInterleave;
  Ladder l(two_nodes(0, 0), c);
  ASSERT_EQ(l.back(1, kAll), 0);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), kArenaSize / 2);
  l.backer.relax(l.group[1], l.start(1));
  EXPECT_EQ(l.os.policy_of(l.unit(1, 0)).mode, BindMode::kInterleave);
}

Backer::Config interleaved() {
  Backer::Config c = bound_to(NodeId(0));
  c.nodes.add(NodeId(1));
  c.bind_mode = BindMode::kInterleave;
  return c;
}

TEST(Ladder, InterleavedArenasTakeHugetlbWhereEveryNodeHasItsShare) {
  Ladder l(two_nodes(16, 16), interleaved());
  ASSERT_EQ(l.back(1, kAll), 0);
  EXPECT_EQ(l.kinds(1), std::string(32, '2'));
  EXPECT_EQ(l.os.bytes_on(NodeId(0), true), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), true), kArenaSize / 2);
}

// A dry node's turn would go to the other node's pool: spread memory of smaller pages is what was asked for.
TEST(Ladder, InterleavedArenasSpreadWhereThePoolsAreUneven) {
  Ladder l(two_nodes(64, 15), interleaved());
  ASSERT_EQ(l.back(1, kAll), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), kArenaSize / 2);
  EXPECT_EQ(l.os.bytes_on(NodeId(1), false), kArenaSize / 2);
}

// ---- first touch -------------------------------------------------------------------------------------------------

TEST(Ladder, FirstTouchKeepsItsReservation) {
  Ladder l(machine(8), first_touch());
  ASSERT_EQ(l.back(0, 0xf, 4 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "2222" + std::string(28, '.'));
  EXPECT_EQ(l.group[0].mapped, 0xfu) << "the extent and no more";
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u) << "whoever touches it first decides where it lies";
  HugePool pool;
  ASSERT_TRUE(l.os.ops().huge_pool(kHugeSize, NodeId(), &pool));
  EXPECT_EQ(pool.reserved, 4u);
  l.os.set_pool_pages(NodeId(0), kHugeSize, 4);
  for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.os.touch(l.unit(0, u), kHugeSize, NodeId(0)), 0) << "no SIGBUS";
}

TEST(Ladder, FirstTouchTakesHugetlbForWholeExtentsOnly) {
  Ladder l(machine(8), first_touch());
  ASSERT_EQ(l.back(0, 0xf, 9 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "tttt" + std::string(28, '.'));
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  // Decided anew for every extent.
  ASSERT_EQ(l.back(0, 0xf0, 4 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "tttt2222" + std::string(24, '.'));
}

TEST(Ladder, FirstTouchNeedsThePagesOnEveryNode) {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  Ladder lopsided(two_nodes(64, 3), first_touch(both));
  ASSERT_EQ(lopsided.back(0, 0xf, 4 * kHugeSize), 0);
  EXPECT_EQ(lopsided.kinds(0), "tttt" + std::string(28, '.'));
}

TEST(Ladder, FirstTouchWithEnoughOnEveryNode) {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  Ladder even(two_nodes(4, 4), first_touch(both));
  ASSERT_EQ(even.back(0, 0xf, 4 * kHugeSize), 0);
  EXPECT_EQ(even.kinds(0), "2222" + std::string(28, '.'));
  for (unsigned u = 0; u < 4; u++) {
    EXPECT_EQ(even.os.touch(even.unit(0, u), kHugeSize, NodeId(u % 2 == 0 ? 0 : 1)), 0);
    EXPECT_EQ(even.os.node_of(even.unit(0, u)), NodeId(u % 2 == 0 ? 0 : 1));
  }
}

// The program's faults may be kept from the pages that were reserved, and would end in a SIGBUS.
TEST(Ladder, FirstTouchTakesNoHugetlbWhileANodeIsGone) {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  Ladder l(two_nodes(64, 64), first_touch(both));
  l.os.set_online(NodeId(1), false);
  ASSERT_EQ(l.back(0, 0b11, 2 * kHugeSize), 0);
  l.os.set_online(NodeId(1), true);
  ASSERT_EQ(l.back(0, 0b1100, 2 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "tt22" + std::string(28, '.'));
}

TEST(Ladder, WorthlessReservationsAreNotMade) {
  Backer::Config c = first_touch();
  c.reservation_counts = false;
  Ladder l(machine(64), c);
  ASSERT_EQ(l.back(0, 3, 2 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "tt" + std::string(30, '.'));
}

TEST(Ladder, ReleasedFirstTouchMemoryStartsOver) {
  Ladder l(machine(4), first_touch());
  ASSERT_EQ(l.back(0, 0xf, 4 * kHugeSize), 0);
  for (unsigned u = 0; u < 4; u++) ASSERT_EQ(l.os.touch(l.unit(0, u), kHugeSize, NodeId(0)), 0);
  l.use(0);
  EXPECT_EQ(l.release(0, 0x3), 0x3u);
  EXPECT_EQ(l.group[0].mapped, 0xcu);
  HugePool pool;
  ASSERT_TRUE(l.os.ops().huge_pool(kHugeSize, NodeId(), &pool));
  EXPECT_EQ(pool.free, 2u) << "for other ranks";
  l.os.set_pool_pages(NodeId(0), kHugeSize, 2);  // somebody took them
  ASSERT_EQ(l.back(0, 0x3, 2 * kHugeSize), 0);
  EXPECT_EQ(l.kinds(0), "tt22" + std::string(28, '.'));
  l.use(0);
  EXPECT_EQ(l.unit(0, 2)[0], 1);
}

TEST(Ladder, AFailedResetKeepsThePages) {
  Ladder l(machine(4), first_touch());
  ASSERT_EQ(l.back(0, 0x1, kHugeSize), 0);
  l.os.fail_all(FakeCall::kResetToReserved, ENOMEM);
  EXPECT_EQ(l.release(0, 0x1), 0u);
  EXPECT_EQ(l.kinds(0), "2" + std::string(31, '.'));
}

// ---- 1 GiB -------------------------------------------------------------------------------------------------------

void mark_busy(Ladder& l, bool busy) {
  for (HeapArena& a : l.group) a.busy = busy;
}

TEST(Ladder, A1GiBPageOfANodeThatIsGone) {
  for (const bool strict : {false, true}) {
    FakeOsConfig machine = two_nodes(0, 0);
    for (FakeNode& node : machine.nodes) node.pages_1g = 1;
    Backer::Config c = bound_to(NodeId(1), HugePagesOption::k1G);
    c.strict = strict;
    Ladder l(machine, c);
    l.os.set_online(NodeId(1), false);
    mark_busy(l, true);
    EXPECT_EQ(l.backer.map_1g(l.group.data(), l.base), !strict);
    mark_busy(l, false);
    EXPECT_EQ(l.os.hugetlb_bytes(), strict ? 0 : GiB) << "a policy that binds takes no other node's";
    EXPECT_EQ(l.os.check(), "");
  }
}

TEST(Ladder, APageOf1GiBBacks16Arenas) {
  Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
  mark_busy(l, true);
  ASSERT_TRUE(l.backer.map_1g(l.group.data(), l.base));
  mark_busy(l, false);
  EXPECT_EQ(l.os.hugetlb_bytes(), GiB);
  for (std::size_t i = 0; i < 16; i++) EXPECT_EQ(l.kinds(i), std::string(32, '1'));
  l.use(0);
  l.use(15);
  EXPECT_EQ(l.back(3, kAll), 0) << "nothing left to do";
  EXPECT_EQ(l.release(3, kAll), 0u) << "a part of it cannot be given back";
}

TEST(Ladder, A1GiBPageThatCannotBeHadLeavesNoTrace) {
  for (const FakeCall call : {FakeCall::kHugePool, FakeCall::kMapHugetlb, FakeCall::kPopulate, FakeCall::kMoveMapping}) {
    Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
    l.os.fail_call(call, 1, EFAULT);
    mark_busy(l, true);
    EXPECT_FALSE(l.backer.map_1g(l.group.data(), l.base));
    mark_busy(l, false);
    EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
    EXPECT_EQ(l.os.bytes_in_state(PageState::kReserved), GiB);
    EXPECT_EQ(l.os.bytes_in_state(PageState::kWritable), 0u);
    EXPECT_EQ(l.back(1, 1), 0) << "2 MiB pages serve";
    EXPECT_EQ(l.kinds(1)[0], '2');
  }
}

TEST(Ladder, OnlyUntouchedArenasGetA1GiBPage) {
  Ladder l(machine(64, 2), wanting(HugePagesOption::k1G));
  ASSERT_EQ(l.back(5, 1), 0);
  mark_busy(l, true);
  EXPECT_FALSE(l.backer.map_1g(l.group.data(), l.base));
}

}  // namespace
}  // namespace nh::test
