// The ladder rung by rung, one request at a time, against the fake machine.
#include "heap/ladder.h"

namespace nh::test {
namespace {

TEST(Ladder, RunsOfUnits) {
  std::vector<Unit> units(32);
  const auto is_odd_one = [](const Unit& u) { return u.freed_tick != 0; };
  auto collect = [&](std::uint32_t marks) {
    for (unsigned i = 0; i < 32; i++) units[i].freed_tick = marks >> i & 1;
    std::uint32_t again = 0;
    std::size_t runs = 0, last_end = 0;
    for_each_run(units.data(), 32, is_odd_one, [&](std::size_t first, std::size_t n) {
      EXPECT_TRUE(runs == 0 || first > last_end) << "neighbours are one run";
      runs++;
      last_end = first + n;
      for (std::size_t i = first; i < first + n; i++) again |= 1u << i;
    });
    EXPECT_EQ(again, marks);
    return runs;
  };
  EXPECT_EQ(collect(0), 0u);
  EXPECT_EQ(collect(~0u), 1u);
  EXPECT_EQ(collect(0x80000001), 2u);
  EXPECT_EQ(collect(0xfffffffe), 1u);
  EXPECT_EQ(collect(0x55555555), 16u);
  for (std::uint32_t x = 1; x < 1u << 30; x = x * 5 / 3 + 1) collect(x);
}

TEST(Ladder, HugetlbWhereThePoolHasPages) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back(0, 32), 0);
  EXPECT_EQ(l.kinds(), std::string(32, '2'));
  EXPECT_EQ(l.os.hugetlb_bytes(), kArenaSize);
  l.use();
}

TEST(Ladder, OnlyWhatIsUsedIsTakenFromThePool) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back(0, 3), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 3 * kHugeSize);
  EXPECT_EQ(l.in_state(UnitState::kReserved), 0u) << "mapped as one: hugetlb mappings never merge";
  EXPECT_EQ(l.os.calls(FakeCall::kMapNewHugetlb), 1u);
  EXPECT_EQ(l.back(8, 8), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kMapNewHugetlb), 1u);
}

TEST(Ladder, ASmallProcessStaysOnBasePages) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back_small(), 0);
  EXPECT_EQ(l.kinds(), "b");
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), 0u) << "the program faults these pages in as it needs them";
  EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 1);
  EXPECT_EQ(l.os.calls(FakeCall::kHugePool), 0u) << "no question about huge pages either";
  EXPECT_EQ(l.back(1, 1), 0);
  EXPECT_EQ(l.kinds(), "b2");
}

TEST(Ladder, ThpWithoutPool) {
  for (const auto huge : {HugePagesOption::kAuto, HugePagesOption::k2M, HugePagesOption::kThp}) {
    Ladder l(machine(0), wanting(huge));
    const std::uint64_t before = fallbacks(Fallback::kHugetlbDry);
    EXPECT_EQ(l.back(0, 4), 0);
    EXPECT_EQ(l.kinds(), "tttt");
    EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 4) << "no more than was asked for is mapped";
    // Where no node is asked for the program faults it in itself.
    EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
    EXPECT_EQ(l.os.touch(l.at(0), kHugeSize, NodeId(0)), 0);
    EXPECT_EQ(l.os.backing_of(l.at(0)), Backing::kThp);
    EXPECT_EQ(fallbacks(Fallback::kHugetlbDry) - before, huge == HugePagesOption::kThp ? 0u : 1u);
  }
}

TEST(Ladder, BasePagesWhenAskedFor) {
  Ladder off(machine(64), wanting(HugePagesOption::kOff));
  EXPECT_EQ(off.back(0, 2), 0);
  EXPECT_EQ(off.kinds(), "bb");
}

TEST(Ladder, BasePagesWhereThpIsOff) {
  FakeOsConfig config = machine(0);
  config.thp_mode = 0;
  Ladder l(config);
  const std::uint64_t before = fallbacks(Fallback::kThpUnavailable);
  EXPECT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(), "bb");
  EXPECT_EQ(fallbacks(Fallback::kThpUnavailable), before + 1);
}

// Programs take single OS pages of it, which hugetlb memory refuses.
TEST(Ladder, PagedMemoryIsNeverHugetlb) {
  Backer::Config c = wanting(HugePagesOption::k1G);
  c.kind = HeapKind::kPaged;
  Ladder l(machine(600, 2), c);
  EXPECT_FALSE(l.map_1g());
  EXPECT_EQ(l.back(0, 3), 0);
  EXPECT_EQ(l.kinds(), "ttt");
  EXPECT_EQ(l.os.calls(FakeCall::kMapNewHugetlb), 0u);
}

// The answers take files of /sys: once for a request, and not at all for memory that is mapped.
TEST(Ladder, ThePoolIsAskedOncePerRequest) {
  Ladder l(machine(600));
  EXPECT_EQ(l.back(0, 300), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kHugePool), 1u);
  EXPECT_EQ(l.back(300, 200), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kHugePool), 1u);
}

TEST(Ladder, APoolThatRunsDryGoesOnWithThpAtTheSamePlace) {
  Ladder l(machine(5));
  const std::uint64_t before = fallbacks(Fallback::kHugetlbDry);
  EXPECT_EQ(l.back(0, 8), 0);
  EXPECT_EQ(l.kinds(), "22222ttt");
  EXPECT_EQ(fallbacks(Fallback::kHugetlbDry), before + 3);
  l.use();
  // Pages that come back later are used by what is still to come.
  l.os.set_pool_pages(NodeId(0), kHugeSize, 7);
  EXPECT_EQ(l.back(8, 2), 0);
  EXPECT_EQ(l.kinds(), "22222ttt22");
  l.use();
}

// What a fork could not take off the pool children would lose.
TEST(Ladder, SmallObjectsStayOffAPoolThatAForkCouldNotLeave) {
  FakeOsConfig config = machine(64);
  config.can_leave_hugetlb = false;
  const std::uint64_t before = fallbacks(Fallback::kNoLeaving);
  {
    Ladder l(config);
    EXPECT_EQ(l.back(1, 2), 0);
    EXPECT_EQ(l.kinds(), ".tt");
    EXPECT_EQ(fallbacks(Fallback::kNoLeaving), before + 1);
  }
  Ladder l(config, first_touch());
  EXPECT_EQ(l.back(1, 2), 0);
  EXPECT_EQ(l.kinds(), ".22") << "large objects alone";
}

TEST(Ladder, APoisonedHugePageIsADryPool) {
  Ladder l(machine(64));
  l.os.fail_call(FakeCall::kPopulate, 2, EHWPOISON);
  EXPECT_EQ(l.back(0, 3), 0);
  EXPECT_EQ(l.kinds(), "2t2");
  l.use();
}

TEST(Ladder, WithoutPopulateHugetlbIsNotTrustedAndPlainMemoryIs) {
  FakeOsConfig config = machine(64);
  config.has_populate = false;
  Ladder l(config);
  const std::uint64_t before = fallbacks(Fallback::kNoPopulate);
  EXPECT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(), "tt");
  EXPECT_GT(fallbacks(Fallback::kNoPopulate), before);
  l.use();
}

TEST(Ladder, RefusedHugetlbMappingsMeanThp) {
  const std::uint64_t before = fallbacks(Fallback::kHugetlbRefused);
  Ladder l(machine(64));
  l.os.fail_all(FakeCall::kMapNewHugetlb, EPERM);
  EXPECT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(), "tt");
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  l.use();
  EXPECT_EQ(fallbacks(Fallback::kHugetlbRefused), before + 1);
  l.os.fail_all(FakeCall::kMapNew, ENOMEM);
  EXPECT_EQ(l.back(2, 2), ENOMEM);
  EXPECT_EQ(fallbacks(Fallback::kHugetlbRefused), before + 1) << "no fallback: nothing serves instead";
}

// Another library's mapping that came there after the window had been looked at.
TEST(Ladder, WhatLiesInTheWayIsLostAndTheRestServes) {
  for (const std::size_t pool : {0u, 600u}) {
    Ladder l(machine(pool));
    ASSERT_EQ(l.back_small(), 0);
    l.os.add_obstacle(address(l.at(5)) + kOsPageSize, kOsPageSize);
    EXPECT_EQ(l.back(1, 10), EEXIST);
    EXPECT_EQ(l.in_state(UnitState::kLost), 1u);
    EXPECT_EQ(l.units[5].state, UnitState::kLost);
    EXPECT_EQ(l.back(1, 4), 0);
    EXPECT_EQ(l.back(6, 5), 0);
    l.use();
    const std::uint64_t asked = l.os.calls(FakeCall::kMapNew) + l.os.calls(FakeCall::kMapNewHugetlb);
    EXPECT_EQ(l.back(5, 1), EEXIST);
    EXPECT_EQ(l.os.calls(FakeCall::kMapNew) + l.os.calls(FakeCall::kMapNewHugetlb), asked) << "it is not tried again";
    EXPECT_EQ(l.os.calls(FakeCall::kMapPlain), 0u);
  }
}

TEST(Ladder, ALargeRunFindsWhatIsInTheWayInFewCalls) {
  Ladder l(machine(0));
  l.os.add_obstacle(address(l.at(300)), kHugeSize);
  EXPECT_EQ(l.back(0, 512), EEXIST);
  EXPECT_EQ(l.in_state(UnitState::kLost), 1u);
  EXPECT_EQ(l.in_state(UnitState::kMapped), 511u);
  EXPECT_LE(l.os.calls(FakeCall::kMapNew), 20u);
}

TEST(Ladder, ReleasedMemoryReadsAsZeroAndGoesBackToTheMachine) {
  for (const std::size_t pool : {std::size_t{64}, std::size_t{0}}) {
    Ladder l(two_nodes(pool, 0), bound_to(NodeId(0)));
    ASSERT_EQ(l.back(0, 8), 0);
    l.use();
    EXPECT_EQ(l.release(0, 4), 4u);
    EXPECT_EQ(l.kinds().substr(0, 4), "....");
    EXPECT_EQ(l.os.hugetlb_bytes() + l.os.bytes_on(NodeId(0), false), 4 * kHugeSize);
    EXPECT_EQ(l.at(4)[0], 1) << "others keep their contents";
    ASSERT_EQ(l.back(0, 4), 0);
    for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.at(u)[0], 0);
  }
}

// Before Linux 5.18.
TEST(Ladder, HugetlbThatCannotBeDroppedIsUnmapped) {
  FakeOsConfig config = machine(64);
  config.can_discard_hugetlb = false;
  Ladder l(config);
  ASSERT_EQ(l.back(0, 3), 0);
  l.use();
  EXPECT_EQ(l.release(0, 2), 2u);
  EXPECT_EQ(l.os.hugetlb_bytes(), kHugeSize);
  EXPECT_TRUE(l.os.ops().is_unmapped(l.at(0), 2 * kHugeSize));
  EXPECT_EQ(l.at(2)[0], 1);
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.at(0)[0], 0);
  l.use();
}

TEST(Ladder, LockedMemoryIsUnmapped) {
  Ladder l(machine(0));
  ASSERT_EQ(l.back(0, 3), 0);
  l.use();
  l.os.fail_all(FakeCall::kDiscard, EINVAL);
  EXPECT_EQ(l.release(0, 2), 2u);
  EXPECT_TRUE(l.os.ops().is_unmapped(l.at(0), 2 * kHugeSize));
  EXPECT_EQ(l.at(2)[0], 1);
}

TEST(Ladder, SharedFilesAreReleasedByPunchingHoles) {
  Backer::Config c;
  c.source = HugeSource::kSharedFile;
  Ladder l(machine(64), c);
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.release(0, 1), 1u);
  EXPECT_EQ(l.os.calls(FakeCall::kPunch), 1u);
  EXPECT_EQ(l.os.hugetlb_bytes(), kHugeSize);
}

TEST(Ladder, ReleasingLeavesAloneWhatIsNotBacked) {
  Ladder l(machine(64));
  ASSERT_EQ(l.back(2, 1), 0);
  const std::size_t mappings = l.os.mapping_count();
  EXPECT_EQ(l.release(0, 2), 0u);
  EXPECT_EQ(l.release(3, 5), 0u);
  EXPECT_EQ(l.os.calls(FakeCall::kDiscard) + l.os.calls(FakeCall::kUnmap), 0u);
  EXPECT_EQ(l.os.mapping_count(), mappings);
}

// ---- where every mapping counts ------------------------------------------------------------------------------------

TEST(Ladder, UnderALimitNoMoreIsMappedThanIsUsed) {
  for (const std::size_t pool : {0u, 600u}) {
    FakeOsConfig config = machine(pool);
    config.address_limit = GiB;
    Ladder l(config);
    ASSERT_EQ(l.back(0, 3), 0);
    EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 3);
    EXPECT_EQ(l.os.bytes_in_state(PageState::kWritable), 3 * kHugeSize);
    l.use();
    EXPECT_EQ(l.release(1, 2), 2u);
    EXPECT_EQ(l.os.bytes_in_state(PageState::kWritable), kHugeSize);
    EXPECT_EQ(l.in_state(UnitState::kReserved), Ladder::kUnits - 1);
    EXPECT_EQ(l.back(0, Ladder::kUnits), 0) << "to the last byte";
    EXPECT_EQ(l.at(0)[0], 1);
    EXPECT_EQ(l.at(1)[0], 0);
  }
}

// ---- in a fork child -----------------------------------------------------------------------------------------------

TEST(Ladder, WhatAnotherThreadWasBackingIsReservedAgain) {
  for (const std::size_t pool : {64u, 0u}) {
    Ladder l(machine(pool));
    ASSERT_EQ(l.back(0, 4), 0);
    l.use();
    const std::string kinds = l.kinds();
    // The thread had mapped more than it had written down, and proven less. Behind that it had done nothing yet.
    l.units[2].state = UnitState::kMapped;
    l.units[3].state = UnitState::kReserved;
    l.backer.forget_unbacked(l.run(1, 8));
    EXPECT_EQ(l.kinds(), kinds.substr(0, 2));
    for (std::size_t u = 2; u < 9; u++) {
      EXPECT_EQ(l.units[u].state, UnitState::kReserved);
      EXPECT_EQ(l.os.state_of(l.at(u)), PageState::kUnmapped);
    }
    EXPECT_EQ(l.os.check(), "");
    ASSERT_EQ(l.back(2, 2), 0);
    EXPECT_EQ(l.at(1)[0], 1);
    EXPECT_EQ(l.at(2)[0], 0);
  }
}

}  // namespace
}  // namespace nh::test
