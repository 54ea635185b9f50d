// The ladder rung by rung, one arena at a time, against the fake machine.
#include "heap/backing.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/bits.h"
#include "support/fake_os.h"

namespace nh {
namespace {

using test::FakeCall;
using test::FakeNode;
using test::FakeOs;
using test::FakeOsConfig;
using test::PageState;

constexpr std::uint32_t kAll = HeapArena::kAll;

std::uint64_t fallbacks(Fallback f) { return fallback_count(f); }

// Some arenas in a reservation, and a Backer that is told about them as an mheap would tell it.
class Ladder {
 public:
  explicit Ladder(const FakeOsConfig& machine, Backer::Config config = {}) : os(machine), group(kArenas) {
    set_fallback_quiet(true);
    if (config.nodes.empty()) config.nodes = NodeSet::of(NodeId(0));
    backer.init(os.ops(), config);
    base = address(os.ops().reserve(kArenas * kArenaSize, GiB));
  }
  // As an mheap does it. Returns the errno value.
  int back(std::size_t index, std::uint32_t units, std::size_t extent = 0) {
    HeapArena& a = group[index];
    a.busy = true;
    int error = backer.map(a, start(index), index == 0, units, extent != 0 ? extent : kArenaSize);
    if (error == 0) error = backer.populate(a, start(index), units, index == 0);
    a.busy = false;
    EXPECT_EQ(os.check(), "");
    EXPECT_EQ(a.backed & ~a.mapped, 0u);
    return error;
  }
  std::uint32_t release(std::size_t index, std::uint32_t units) {
    std::uint32_t released = 0;
    backer.release(group[index], start(index), units, &released);
    EXPECT_EQ(os.check(), "");
    return released;
  }
  std::uintptr_t start(std::size_t index) const { return base + index * kArenaSize; }
  char* unit(std::size_t index, unsigned u) const { return reinterpret_cast<char*>(start(index) + u * kHugeSize); }
  // The kinds of an arena's units as the machine has them and as the arena says: "2" hugetlb, "t" THP, "b" base, "." none.
  std::string kinds(std::size_t index) {
    std::string text;
    for (unsigned u = 0; u < kHugePerArena; u++) {
      const Backing truth = os.backing_of(unit(index, u));
      const Backing said = group[index].backing_of(u);
      EXPECT_TRUE(truth == said || truth == Backing::kNone) << "unit " << u;
      text += said == Backing::kHuge1G ? '1' : said == Backing::kHuge2M ? '2' : said == Backing::kThp ? 't'
              : said == Backing::kBase ? 'b' : '.';
    }
    return text;
  }
  // Every byte that may be used can be written.
  void use(std::size_t index) {
    for (unsigned u = 0; u < kHugePerArena; u++) {
      if ((group[index].backed >> u & 1) != 0) unit(index, u)[0] = unit(index, u)[kHugeSize - 1] = 1;
    }
  }

  FakeOs os;
  Backer backer;
  std::vector<HeapArena> group;
  std::uintptr_t base;

 private:
  static constexpr std::size_t kArenas = kArenasPerGiB;
};

FakeOsConfig machine(std::size_t pages_2m, std::size_t pages_1g = 0) {
  return {.nodes = {FakeNode{.pages_2m = pages_2m, .pages_1g = pages_1g}}};
}
FakeOsConfig two_nodes(std::size_t pages_on_0, std::size_t pages_on_1, std::size_t memory = 4 * GiB) {
  return {.nodes = {FakeNode{.memory_bytes = memory, .pages_2m = pages_on_0},
                    FakeNode{.memory_bytes = memory, .pages_2m = pages_on_1}}};
}
Backer::Config wanting(HugePagesOption huge) {
  Backer::Config c;
  c.huge_pages = huge;
  return c;
}
Backer::Config bound_to(NodeId node, HugePagesOption huge = HugePagesOption::kAuto) {
  Backer::Config c = wanting(huge);
  c.bind = true;
  c.nodes = NodeSet::of(node);
  return c;
}
Backer::Config first_touch(NodeSet nodes = NodeSet::of(NodeId(0))) {
  Backer::Config c;
  c.first_touch = true;
  c.has_small_unit = false;
  c.nodes = nodes;
  return c;
}

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
    EXPECT_EQ(l.group[1].bound, 0);
    l.use(1);
  }
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
}  // namespace nh
