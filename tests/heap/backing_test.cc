// The ladder rung by rung, one arena at a time, against the fake machine.
#include "heap/ladder.h"

namespace nh::test {
namespace {

TEST(Ladder, RunsOfUnits) {
  std::vector<std::pair<unsigned, unsigned>> runs;
  auto collect = [&](std::uint32_t units) {
    runs.clear();
    for_each_run(units, [&](unsigned first, unsigned count) { runs.emplace_back(first, count); });
    std::uint32_t again = 0;
    for (auto [first, count] : runs) again |= unit_bits(first, count);
    EXPECT_EQ(again, units);
    return runs.size();
  };
  EXPECT_EQ(collect(0), 0u);
  EXPECT_EQ(collect(kAll), 1u);
  EXPECT_EQ(collect(0x80000001), 2u);
  EXPECT_EQ(collect(0xfffffffe), 1u);
  EXPECT_EQ(collect(0x55555555), 16u);
  for (std::uint32_t x = 1; x < 1u << 30; x = x * 5 / 3 + 1) collect(x);
}

TEST(Ladder, HugetlbWhereThePoolHasPages) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back(1, kAll), 0);
  EXPECT_EQ(l.kinds(1), std::string(32, '2'));
  EXPECT_EQ(l.os.hugetlb_bytes(), kArenaSize);
  l.use(1);
}

TEST(Ladder, OnlyWhatIsUsedIsTakenFromThePool) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back(1, 0b111), 0);
  EXPECT_EQ(l.os.hugetlb_bytes(), 3 * kHugeSize);
  EXPECT_EQ(l.group[1].mapped, kAll) << "mapped as one: hugetlb mappings never merge";
  EXPECT_EQ(l.os.calls(FakeCall::kMapHugetlb), 1u);
  EXPECT_EQ(l.back(1, 0xff00), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kMapHugetlb), 1u);
}

TEST(Ladder, ASmallProcessStaysOnBasePages) {
  Ladder l(machine(64));
  EXPECT_EQ(l.back(0, 1), 0);
  EXPECT_EQ(l.kinds(0), "b" + std::string(31, '.'));
  EXPECT_EQ(l.os.hugetlb_bytes(), 0u);
  EXPECT_EQ(l.os.bytes_on(NodeId(0), false), 0u) << "the program faults these pages in as it needs them";
  EXPECT_EQ(l.group[0].mapped, 1u);
  EXPECT_EQ(l.os.calls(FakeCall::kHugePool), 0u) << "no question about huge pages either";
  EXPECT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.kinds(0), "b2" + std::string(30, '.'));
}

TEST(Ladder, ThpWithoutPool) {
  for (const auto huge : {HugePagesOption::kAuto, HugePagesOption::k2M, HugePagesOption::kThp}) {
    Ladder l(machine(0), wanting(huge));
    const std::uint64_t before = fallbacks(Fallback::kHugetlbDry);
    EXPECT_EQ(l.back(1, 0xf), 0);
    EXPECT_EQ(l.kinds(1), "tttt" + std::string(28, '.'));
    // Where no node is asked for the program faults it in itself.
    EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
    EXPECT_EQ(l.os.touch(l.unit(1, 0), kHugeSize, NodeId(0)), 0);
    EXPECT_EQ(l.os.backing_of(l.unit(1, 0)), Backing::kThp);
    EXPECT_EQ(fallbacks(Fallback::kHugetlbDry) - before, huge == HugePagesOption::kThp ? 0u : 1u);
  }
}

TEST(Ladder, BasePagesWhenAskedForOrWhereThpIsOff) {
  Ladder off(machine(64), wanting(HugePagesOption::kOff));
  EXPECT_EQ(off.back(1, 3), 0);
  EXPECT_EQ(off.kinds(1), "bb" + std::string(30, '.'));
}

TEST(Ladder, BasePagesWhereThpIsOff) {
  FakeOsConfig config = machine(0);
  config.thp_mode = 0;
  Ladder l(config);
  const std::uint64_t before = fallbacks(Fallback::kThpUnavailable);
  EXPECT_EQ(l.back(1, 3), 0);
  EXPECT_EQ(l.kinds(1), "bb" + std::string(30, '.'));
  EXPECT_EQ(fallbacks(Fallback::kThpUnavailable), before + 1);
}

TEST(Ladder, APoolThatRunsDryInMidArenaGoesOnWithThpAtTheSamePlace) {
  Ladder l(machine(5));
  const std::uint64_t before = fallbacks(Fallback::kHugetlbDry);
  EXPECT_EQ(l.back(1, 0xff), 0);
  EXPECT_EQ(l.kinds(1), "22222ttt" + std::string(24, '.'));
  EXPECT_EQ(fallbacks(Fallback::kHugetlbDry), before + 3);
  l.use(1);
  // Pages that come back later are used by what is still to come.
  l.os.set_pool_pages(NodeId(0), kHugeSize, 7);
  EXPECT_EQ(l.back(1, 0x300), 0);
  EXPECT_EQ(l.kinds(1), "22222ttt22" + std::string(22, '.'));
  l.use(1);
}

TEST(Ladder, APoisonedHugePageIsADryPool) {
  Ladder l(machine(64));
  l.os.fail_call(FakeCall::kPopulate, 2, EHWPOISON);
  EXPECT_EQ(l.back(1, 0x7), 0);
  EXPECT_EQ(l.kinds(1), "2t2" + std::string(29, '.'));
  l.use(1);
}

TEST(Ladder, WithoutPopulateHugetlbIsNotTrustedAndPlainMemoryIs) {
  FakeOsConfig config = machine(64);
  config.has_populate = false;
  Ladder l(config);
  const std::uint64_t before = fallbacks(Fallback::kNoPopulate);
  EXPECT_EQ(l.back(1, 0x3), 0);
  EXPECT_EQ(l.kinds(1), "tt" + std::string(30, '.'));
  EXPECT_GT(fallbacks(Fallback::kNoPopulate), before);
  l.use(1);
}

TEST(Ladder, RefusedHugetlbMappingsMeanThp) {
  const std::uint64_t before = fallbacks(Fallback::kHugetlbRefused);
  {
    Ladder l(machine(64));
    l.os.fail_all(FakeCall::kMapHugetlb, EPERM);
    EXPECT_EQ(l.back(1, 3), 0);
    EXPECT_EQ(l.kinds(1), "tt" + std::string(30, '.'));
  }
  for (const bool resets : {false, true}) {
    Ladder l(machine(64));
    l.os.fail_all(FakeCall::kMoveMapping, ENOMEM);
    l.os.set_failed_move_resets_target(resets);
    EXPECT_EQ(l.back(1, 3), 0);
    EXPECT_EQ(l.kinds(1), "tt" + std::string(30, '.'));
    EXPECT_EQ(l.os.hugetlb_bytes(), 0u) << "what could not be moved in is given back";
    l.use(1);
  }
  EXPECT_EQ(fallbacks(Fallback::kHugetlbRefused), before + 3);
}

TEST(Ladder, OldKernelsMapHugetlbInPlace) {
  for (const bool resets : {false, true}) {
    FakeOsConfig config = machine(64);
    config.can_move_hugetlb = false;
    Ladder l(config);
    l.os.set_failed_move_resets_target(resets);
    EXPECT_EQ(l.back(1, 3), 0);
    EXPECT_EQ(l.kinds(1), "22" + std::string(30, '.'));
    l.use(1);
  }
}

// map_hugetlb_at() may say that the range belongs to somebody else now. Nothing may ever be done there again.
TEST(Ladder, LostAddressesAreLeftAlone) {
  FakeOsConfig config = machine(64);
  config.can_move_hugetlb = false;
  Ladder l(config);
  l.os.fail_call(FakeCall::kMapHugetlbAt, 1, EEXIST);
  EXPECT_EQ(l.back(0, 1), 0) << "the small unit, mapped before";
  EXPECT_EQ(l.back(0, 6), EEXIST);
  EXPECT_EQ(l.group[0].lost, kAll & ~1u);
  const std::uint64_t writable = l.os.calls(FakeCall::kMakeWritable);
  EXPECT_EQ(l.back(0, 8), EEXIST);
  EXPECT_EQ(l.os.calls(FakeCall::kMakeWritable), writable);
  EXPECT_EQ(l.os.calls(FakeCall::kMapPlain), 0u);
  EXPECT_EQ(l.back(0, 1), 0) << "what was not lost still serves";
}

TEST(Ladder, ReleasedMemoryReadsAsZeroAndGoesBackToTheMachine) {
  for (const std::size_t pool : {std::size_t{64}, std::size_t{0}}) {
    Ladder l(two_nodes(pool, 0), bound_to(NodeId(0)));
    ASSERT_EQ(l.back(1, 0xff), 0);
    l.use(1);
    EXPECT_EQ(l.release(1, 0x0f), 0x0fu);
    EXPECT_EQ(l.group[1].backed, 0xf0u);
    EXPECT_EQ(l.os.hugetlb_bytes() + l.os.bytes_on(NodeId(0), false), 4 * kHugeSize);
    EXPECT_EQ(l.unit(1, 4)[0], 1) << "others keep their contents";
    ASSERT_EQ(l.back(1, 0x0f), 0);
    for (unsigned u = 0; u < 4; u++) EXPECT_EQ(l.unit(1, u)[0], 0);
  }
}

TEST(Ladder, WhatCannotBeReleasedStaysBacked) {
  FakeOsConfig config = machine(64);
  config.can_discard_hugetlb = false;  // before Linux 5.18
  Ladder l(config);
  ASSERT_EQ(l.back(1, 3), 0);
  l.use(1);
  EXPECT_EQ(l.release(1, 3), 0u);
  EXPECT_EQ(l.group[1].backed, 3u);
  EXPECT_EQ(l.unit(1, 0)[0], 1);
}

TEST(Ladder, SharedFilesAreReleasedByPunchingHoles) {
  Backer::Config c;
  c.source = HugeSource::kSharedFile;
  Ladder l(machine(64), c);
  ASSERT_EQ(l.back(1, 3), 0);
  EXPECT_EQ(l.release(1, 1), 1u);
  EXPECT_EQ(l.os.calls(FakeCall::kPunch), 1u);
  EXPECT_EQ(l.os.hugetlb_bytes(), kHugeSize);
}

}  // namespace
}  // namespace nh::test
