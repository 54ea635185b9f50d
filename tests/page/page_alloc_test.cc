// Allocation, freeing and growth: against the naive model, and at the borders of chunks and of nodes of every level.
#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "page/naive_pages.h"
#include "page/page_alloc.h"

namespace nh {
namespace {

constexpr std::size_t kRootPages = std::size_t{1} << kNodeShift[0];

struct Held {
  std::size_t first;
  std::size_t n;
};

TEST(PageAllocLayout, CountsWholeGroupsOfSiblings) {
  const PageAllocLayout arena = PageAllocLayout::covering(PageCount(kPagesPerArena));
  EXPECT_EQ(arena.bitmap_bytes, 16u * 128);
  EXPECT_EQ(arena.summary_bytes[4], 16u * 8);
  EXPECT_EQ(arena.summary_bytes[3], 8u * 8);  // 2 nodes in use, 8 are read
  EXPECT_EQ(arena.summary_bytes[1], 8u * 8);
  EXPECT_EQ(arena.summary_bytes[0], 1u * 8);
  const PageAllocLayout large = PageAllocLayout::covering(PageCount(16 * TiB / kPageSize));
  EXPECT_EQ(large.bitmap_bytes, 512 * MiB);
  EXPECT_EQ(large.summary_bytes[0], 1024u * 8);
  EXPECT_EQ(PageAllocLayout::covering(PageCount(kRootPages + 1)).summary_bytes[0], 2u * 8);
  EXPECT_EQ(PageAllocLayout::covering(PageCount(0)).bitmap_bytes, 0u);
}

TEST(PageAlloc, NothingBeforeTheFirstGrowth) {
  PageWorld world{PageCount(kPagesPerArena)};
  EXPECT_FALSE(world.alloc.alloc(PageCount(1)).ok);
  EXPECT_FALSE(world.alloc.alloc_aligned(PageCount(1), 8).ok);
  EXPECT_FALSE(world.alloc.is_free(PageId(0), PageCount(1)));
  PageId out(99);
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kPagesPerArena), &out));
  EXPECT_EQ(out.value, 0u);
  EXPECT_EQ(world.alloc.free_pages().value, 0u);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAlloc, NewPagesAreScavengedUntilUsed) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  const PageAlloc::Run first = world.alloc.alloc(PageCount(10));
  ASSERT_TRUE(first.ok);
  EXPECT_EQ(first.first.value, 0u);
  EXPECT_EQ(first.scavenged.value, 10u);
  world.alloc.free(PageId(0), PageCount(10));
  const PageAlloc::Run again = world.alloc.alloc(PageCount(30));
  EXPECT_EQ(again.first.value, 0u);
  EXPECT_EQ(again.scavenged.value, 20u);  // ten of them were used before
  EXPECT_EQ(world.alloc.scavenged_pages().value, kPagesPerArena - 30);
  EXPECT_EQ(world.alloc.free_pages().value, kPagesPerArena - 30);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAlloc, AgainstTheModel) {
  constexpr std::size_t kPages = 2 * kPagesPerArena;
  for (std::uint64_t seed = 1; seed <= 4; seed++) {
    PageWorld world{PageCount(kPages)};
    NaivePages naive(0, kPages);
    Random random(seed);
    std::vector<Held> held;
    world.grow(0, kPages);
    naive.grow(0, kPages);
    for (int i = 0; i < 4000; i++) {
      if (held.empty() || random.below(100) < 52) {
        const std::size_t n = random.below(20) == 0 ? 1 + random.below(1500) : 1 + random.below(40);
        const std::size_t want = naive.first_fit(n);
        const PageAlloc::Run run = world.alloc.alloc(PageCount(n));
        ASSERT_EQ(run.ok, want != NaivePages::kNone);
        if (!run.ok) continue;
        ASSERT_EQ(run.first.value, want);
        ASSERT_EQ(run.scavenged.value, naive.take(want, n));
        held.push_back({want, n});
      } else {
        const std::size_t which = random.below(held.size());
        const Held h = held[which];
        held[which] = held.back();
        held.pop_back();
        world.alloc.free(PageId(h.first), PageCount(h.n));
        naive.free(h.first, h.n);
      }
    }
    EXPECT_EQ(world.alloc.free_pages().value, naive.free_pages());
    EXPECT_EQ(world.alloc.scavenged_pages().value, naive.scavenged_pages());
    EXPECT_TRUE(world.alloc.check());
  }
}

// A run that straddles the border of two nodes, for every level: neither node has it alone.
TEST(PageAlloc, RunsAcrossTheBorderOfEveryLevel) {
  for (unsigned level = 0; level < kTreeLevels; level++) {
    const std::size_t border = std::size_t{1} << kNodeShift[level];
    const std::size_t start = border < kPagesPerArena ? 0 : border - kPagesPerArena;
    PageWorld world{PageCount(border + kPagesPerArena)};
    world.grow(start, border + kPagesPerArena - start);
    const std::size_t pages = border + kPagesPerArena - start;
    ASSERT_TRUE(world.alloc.alloc(PageCount(pages)).ok);
    for (const std::size_t n : std::initializer_list<std::size_t>{2, 63, 64, 600, 3000}) {
      const std::size_t below = n < 512 ? n / 2 : n / 3;
      if (below > border - start) continue;
      // The run itself and, where there is room, a decoy below that is one page short.
      const bool decoy = border - below > start + n + 1;
      if (decoy) world.alloc.free(PageId(start), PageCount(n - 1));
      world.alloc.free(PageId(border - below), PageCount(n));
      EXPECT_FALSE(world.alloc.alloc(PageCount(n + 1)).ok) << level << " " << n;
      const PageAlloc::Run run = world.alloc.alloc(PageCount(n));
      ASSERT_TRUE(run.ok) << level << " " << n;
      EXPECT_EQ(run.first.value, border - below) << level << " " << n;
      PageCount scavenged;
      EXPECT_EQ(world.alloc.extend(PageId(start), PageCount(n - 1), &scavenged), decoy);
      EXPECT_EQ(world.alloc.free_pages().value, 0u);
      EXPECT_TRUE(world.alloc.check());
    }
  }
}

TEST(PageAlloc, WholeRootsAndMore) {
  PageWorld world{PageCount(4 * kRootPages)};
  world.grow(0, 3 * kRootPages);  // 48 GiB
  EXPECT_TRUE(world.alloc.check());
  EXPECT_FALSE(world.alloc.alloc(PageCount(3 * kRootPages + 1)).ok);
  PageAlloc::Run run = world.alloc.alloc(PageCount(3 * kRootPages));
  ASSERT_TRUE(run.ok);
  EXPECT_EQ(run.scavenged.value, 3 * kRootPages);
  EXPECT_FALSE(world.alloc.alloc(PageCount(1)).ok);
  EXPECT_TRUE(world.alloc.check());
  world.alloc.free(PageId(0), PageCount(3 * kRootPages));

  run = world.alloc.alloc(PageCount(kRootPages));  // exactly one node, the special summary
  EXPECT_EQ(run.first.value, 0u);
  run = world.alloc.alloc(PageCount(kRootPages - 1));
  EXPECT_EQ(run.first.value, kRootPages);
  run = world.alloc.alloc(PageCount(kRootPages + 1));  // ends in one root node, begins in another
  ASSERT_TRUE(run.ok);
  EXPECT_EQ(run.first.value, 2 * kRootPages - 1);
  EXPECT_EQ(world.alloc.free_pages().value, 0u);
  EXPECT_TRUE(world.alloc.check());

  world.grow(3 * kRootPages, kRootPages);
  run = world.alloc.alloc(PageCount(1));
  EXPECT_EQ(run.first.value, 3 * kRootPages);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAlloc, TheTopOfSixteenTebibytes) {
  constexpr std::size_t kPages = 16 * TiB / kPageSize;
  PageWorld world{PageCount(kPages)};
  world.grow(0, kPagesPerArena);
  world.grow(kPages - kPagesPerArena, kPagesPerArena);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kPagesPerArena)).ok);
  const PageAlloc::Run run = world.alloc.alloc(PageCount(kPagesPerArena));
  ASSERT_TRUE(run.ok);
  EXPECT_EQ(run.first.value, kPages - kPagesPerArena);
  world.alloc.free(PageId(kPages - 1), PageCount(1));
  EXPECT_EQ(world.alloc.alloc(PageCount(1)).first.value, kPages - 1);
  EXPECT_FALSE(world.alloc.alloc(PageCount(1)).ok);
  EXPECT_FALSE(world.alloc.is_free(PageId(kPages / 2), PageCount(1)));
}

TEST(PageAlloc, PagesInAGapDoNotExist) {
  PageWorld world{PageCount(4 * kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.grow(2 * kPagesPerArena, kPagesPerArena);
  EXPECT_FALSE(world.alloc.alloc(PageCount(kPagesPerArena + 1)).ok);  // the two do not join
  EXPECT_FALSE(world.alloc.is_free(PageId(kPagesPerArena), PageCount(1)));
  EXPECT_FALSE(world.alloc.claim(PageId(kPagesPerArena - 1), PageCount(2)));
  EXPECT_EQ(world.alloc.alloc(PageCount(kPagesPerArena)).first.value, 0u);
  EXPECT_EQ(world.alloc.alloc(PageCount(kPagesPerArena)).first.value, 2 * kPagesPerArena);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAlloc, SearchAddressFollowsTheLowestFreePage) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(100));
  EXPECT_EQ(world.alloc.search_address().value, 100u);
  world.alloc.free(PageId(40), PageCount(2));
  EXPECT_EQ(world.alloc.search_address().value, 40u);
  world.alloc.alloc(PageCount(3));  // does not fit there: the hole stays the lowest free page
  EXPECT_EQ(world.alloc.search_address().value, 40u);
  world.alloc.alloc(PageCount(2));
  EXPECT_EQ(world.alloc.search_address().value, 42u);
  world.alloc.alloc(PageCount(1));
  EXPECT_EQ(world.alloc.search_address().value, 104u);
}

// The limit becomes exact wherever the search had to climb and descend, and stays at the first page that it passed by.
TEST(PageAlloc, SearchAddressAfterAClimb) {
  PageWorld world{PageCount(8 * kPagesPerArena)};
  world.grow(0, 8 * kPagesPerArena);
  ASSERT_TRUE(world.alloc.alloc(PageCount(8 * kPagesPerArena)).ok);
  world.alloc.free(PageId(60'000), PageCount(3));
  world.alloc.free(PageId(50'000), PageCount(2));
  world.alloc.free(PageId(40'000), PageCount(1));
  world.alloc.free(PageId(5), PageCount(1));
  EXPECT_EQ(world.alloc.alloc(PageCount(1)).first.value, 5u);
  EXPECT_EQ(world.alloc.alloc(PageCount(1)).first.value, 40'000u);
  EXPECT_EQ(world.alloc.search_address().value, 40'001u);
  EXPECT_EQ(world.alloc.alloc(PageCount(3)).first.value, 60'000u);
  EXPECT_GT(world.alloc.search_address().value, 40'001u);
  EXPECT_LE(world.alloc.search_address().value, 50'000u);
  EXPECT_EQ(world.alloc.alloc(PageCount(2)).first.value, 50'000u);
  EXPECT_EQ(world.alloc.search_address().value, 50'002u);
  EXPECT_FALSE(world.alloc.alloc(PageCount(1)).ok);
  EXPECT_EQ(world.alloc.search_address().value, world.alloc.end().value);
}

TEST(PageAlloc, ExtendTakesExactlyWhatFollows) {
  PageWorld world{PageCount(2 * kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(500));
  world.alloc.alloc(PageCount(2000));
  world.alloc.free(PageId(500), PageCount(2000));
  PageCount scavenged(77);
  EXPECT_TRUE(world.alloc.extend(PageId(500), PageCount(10), &scavenged));
  EXPECT_EQ(scavenged.value, 0u);
  EXPECT_TRUE(world.alloc.extend(PageId(510), PageCount(2000), &scavenged));  // across chunks
  EXPECT_EQ(scavenged.value, 10u);
  EXPECT_TRUE(world.alloc.claim(PageId(2600), PageCount(1)));
  EXPECT_FALSE(world.alloc.extend(PageId(2510), PageCount(91), &scavenged));
  EXPECT_TRUE(world.alloc.extend(PageId(2510), PageCount(90), &scavenged));
  EXPECT_FALSE(world.alloc.extend(PageId(kPagesPerArena), PageCount(1), &scavenged));      // the end of the heap
  EXPECT_FALSE(world.alloc.extend(PageId(kPagesPerArena - 5), PageCount(6), &scavenged));  // and across it
  EXPECT_TRUE(world.alloc.extend(PageId(kPagesPerArena - 5), PageCount(5), &scavenged));
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAllocDeathTest, WrongFreesAndGrowthAreFatal) {
  PageWorld world{PageCount(2 * kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(1000));
  EXPECT_DEATH(world.alloc.free(PageId(999), PageCount(2)), "free already");
  EXPECT_DEATH(world.alloc.free(PageId(511), PageCount(800)), "free already");
  EXPECT_DEATH(world.alloc.free(PageId(kPagesPerArena), PageCount(1)), "beyond the heap");
  EXPECT_DEATH(world.alloc.free(PageId(0), PageCount(SIZE_MAX)), "beyond the heap");
  world.alloc.free(PageId(10), PageCount(1));
  EXPECT_DEATH(world.alloc.free(PageId(10), PageCount(1)), "free already");
  EXPECT_DEATH(world.alloc.grow(PageId(0), PageCount(kPagesPerArena)), "upward");
  EXPECT_DEATH(world.alloc.grow(PageId(kPagesPerArena), PageCount(2 * kPagesPerArena)), "inside its region");
  EXPECT_DEATH(world.alloc.grow(PageId(kPagesPerArena), PageCount(100)), "whole chunks");
}

}  // namespace
}  // namespace nh
