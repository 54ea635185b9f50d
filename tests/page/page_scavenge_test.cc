// What the scavenger needs: claims of exact ranges, scavenged bits, free huge-page units from the top down.
#include <gtest/gtest.h>

#include "page/naive_pages.h"
#include "page/page_alloc.h"

namespace nh {
namespace {

constexpr std::size_t kPages = 4 * kPagesPerArena;
constexpr std::size_t kUnit = kPagesPerHuge;

// A heap of used, free pages: nothing is scavenged.
void use_all(PageWorld& world) {
  world.grow(0, kPages);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kPages)).ok);
  world.alloc.free(PageId(0), PageCount(kPages));
}

TEST(PageClaim, TakesExactlyAFreeRangeAndKeepsItsBits) {
  PageWorld world{PageCount(kPages)};
  world.grow(0, kPages);
  world.alloc.alloc(PageCount(1000));
  world.alloc.free(PageId(400), PageCount(600));
  EXPECT_FALSE(world.alloc.claim(PageId(399), PageCount(10)));
  EXPECT_FALSE(world.alloc.claim(PageId(kPages - 1), PageCount(2)));
  ASSERT_TRUE(world.alloc.claim(PageId(400), PageCount(1200)));
  EXPECT_EQ(world.alloc.scavenged_in(PageId(400), PageCount(1200)).value, 600u);
  EXPECT_FALSE(world.alloc.is_free(PageId(400), PageCount(1)));
  EXPECT_FALSE(world.alloc.claim(PageId(400), PageCount(1)));
  EXPECT_EQ(world.alloc.alloc(PageCount(1)).first.value, 1600u);  // nobody else gets it

  world.alloc.release_claim(PageId(400), PageCount(1200), false);
  EXPECT_EQ(world.alloc.scavenged_in(PageId(400), PageCount(1200)).value, 600u);
  EXPECT_EQ(world.alloc.search_address().value, 400u);
  ASSERT_TRUE(world.alloc.claim(PageId(400), PageCount(1200)));
  world.alloc.release_claim(PageId(400), PageCount(1200), true);
  EXPECT_EQ(world.alloc.scavenged_in(PageId(400), PageCount(1200)).value, 1200u);
  EXPECT_EQ(world.alloc.scavenged_pages().value, kPages - 400 - 1);
  EXPECT_TRUE(world.alloc.check());
  const PageAlloc::Run run = world.alloc.alloc(PageCount(1200));
  EXPECT_EQ(run.first.value, 400u);
  EXPECT_EQ(run.scavenged.value, 1200u);
}

TEST(PageClaimDeathTest, WrongReleases) {
  PageWorld world{PageCount(kPages)};
  world.grow(0, kPages);
  ASSERT_TRUE(world.alloc.claim(PageId(256), PageCount(256)));
  EXPECT_DEATH(world.alloc.release_claim(PageId(256), PageCount(257), true), "free already");
  EXPECT_DEATH(world.alloc.free(PageId(256), PageCount(256)), "claimed");
  EXPECT_DEATH(world.alloc.release_claim(PageId(kPages), PageCount(1), true), "beyond the heap");
}

TEST(PageUnits, FromTheTopDownUntilAllIsScavenged) {
  PageWorld world{PageCount(kPages)};
  ASSERT_NO_FATAL_FAILURE(use_all(world));
  PageId unit;
  for (std::size_t want = kPages; want != 0;) {
    want -= kUnit;
    ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
    ASSERT_EQ(unit.value, want);
    ASSERT_TRUE(world.alloc.claim(unit, PageCount(kUnit)));
    world.alloc.release_claim(unit, PageCount(kUnit), true);
  }
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  EXPECT_EQ(unit.value, 0u);
  EXPECT_EQ(world.alloc.scavenged_pages().value, kPages);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageUnits, OnlyAlignedWhollyFreeNotWhollyScavengedUnitsCount) {
  PageWorld world{PageCount(kPages)};
  world.grow(0, kPages);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kPages)).ok);
  PageId unit;
  world.alloc.free(PageId(10 * kUnit + 1), PageCount(2 * kUnit - 2));  // long enough, not aligned
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  world.alloc.free(PageId(10 * kUnit), PageCount(1));
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  EXPECT_EQ(unit.value, 10 * kUnit);
  // One page that is not scavenged is enough; none is too few.
  ASSERT_TRUE(world.alloc.claim(PageId(10 * kUnit), PageCount(kUnit)));
  world.alloc.release_claim(PageId(10 * kUnit), PageCount(kUnit), true);
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  ASSERT_EQ(world.alloc.alloc(PageCount(1)).first.value, 10 * kUnit);
  world.alloc.free(PageId(10 * kUnit), PageCount(1));
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  EXPECT_EQ(unit.value, 10 * kUnit);
  EXPECT_TRUE(world.alloc.check());
}

// A claim that covers part of a unit leaves the rest of it for later searches, although the search limit had moved.
TEST(PageUnits, PartialClaimsDoNotHideAUnit) {
  PageWorld world{PageCount(kPages)};
  ASSERT_NO_FATAL_FAILURE(use_all(world));
  PageId unit;
  ASSERT_TRUE(world.alloc.claim(PageId(kPages - 10), PageCount(10)));
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  EXPECT_EQ(unit.value, kPages - 2 * kUnit);
  world.alloc.release_claim(PageId(kPages - 10), PageCount(10), true);
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &unit));
  EXPECT_EQ(unit.value, kPages - kUnit);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageUnits, LimitIsExclusiveAndRoundsDown) {
  PageWorld world{PageCount(kPages)};
  ASSERT_NO_FATAL_FAILURE(use_all(world));
  PageId unit;
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(5 * kUnit), &unit));
  EXPECT_EQ(unit.value, 4 * kUnit);
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(5 * kUnit - 1), &unit));
  EXPECT_EQ(unit.value, 3 * kUnit);
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kUnit - 1), &unit));
  // A search below a limit rules nothing out above it.
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(SIZE_MAX), &unit));
  EXPECT_EQ(unit.value, kPages - kUnit);
}

TEST(PageUnits, ABoundedSearchGoesOnWhereItStopped) {
  PageWorld world{PageCount(kPages)};
  ASSERT_NO_FATAL_FAILURE(use_all(world));
  ASSERT_TRUE(world.alloc.claim(PageId(kUnit), PageCount(kPages - kUnit)));
  world.alloc.release_claim(PageId(kUnit), PageCount(kPages - kUnit), true);
  // All but the lowest unit are free and scavenged, so no summary helps: each must be looked at.
  PageId at(kPages);
  std::size_t calls = 0;
  while (!world.alloc.find_free_unit_below(at, &at, 10)) {
    ASSERT_NE(at.value, 0u);
    calls++;
  }
  EXPECT_EQ(at.value, 0u);
  EXPECT_EQ(calls, (kPages / kUnit - 1) / 10);
  // What was ruled out from the top on is remembered: the next search finds it at once.
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPages), &at, 1));
  EXPECT_EQ(at.value, 0u);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageUnits, SubtreesWithoutRoomCostOneStep) {
  constexpr std::size_t kMany = std::size_t{3} << kNodeShift[0];
  PageWorld world{PageCount(kMany)};
  world.grow(0, kMany);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kMany)).ok);
  world.alloc.free(PageId(kUnit), PageCount(kUnit));
  for (std::size_t p = kUnit * 4; p < kMany; p += kUnit / 2) world.alloc.free(PageId(p), PageCount(kUnit / 4));
  PageId unit;
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kMany), &unit, 40));  // of 48 GiB, 24576 units
  EXPECT_EQ(unit.value, kUnit);
}

}  // namespace
}  // namespace nh
