// alloc_aligned: exact holes are found, whatever lies before them, at bounded cost.
#include <gtest/gtest.h>

#include "page/naive_pages.h"
#include "page/page_alloc.h"

namespace nh {
namespace {

constexpr std::size_t kPages = 4 * kPagesPerArena;

// A heap whose pages are all allocated.
void fill(PageWorld& world) {
  world.grow(0, kPages);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kPages)).ok);
}

TEST(PageAllocAligned, TheLowestAlignedHole) {
  for (std::size_t align = 1; align <= 1024; align *= 2) {
    PageWorld world{PageCount(kPages)};
    world.grow(0, kPages);
    ASSERT_TRUE(world.alloc.alloc(PageCount(align + 1)).ok);
    const PageAlloc::Run run = world.alloc.alloc_aligned(PageCount(3), align);
    ASSERT_TRUE(run.ok);
    EXPECT_EQ(run.first.value, align == 1 ? 2 : 2 * align);
    EXPECT_EQ(run.scavenged.value, 3u);
    // What was passed by is still there.
    EXPECT_EQ(world.alloc.search_address().value, align == 1 ? 5 : align + 1);
    EXPECT_TRUE(world.alloc.check());
  }
}

TEST(PageAllocAligned, AnExactlyFittingHoleIsFoundBehindMisfits) {
  for (const std::size_t align : {2u, 16u, 256u, 512u, 2048u}) {
    for (const std::size_t n : {std::size_t{1}, std::size_t{16}, align}) {
      PageWorld world{PageCount(kPages)};
      ASSERT_NO_FATAL_FAILURE(fill(world));
      // Everywhere long enough, nowhere aligned; there is no run of n + align - 1 either.
      const std::size_t step = align_up(n, align) + align;
      const std::size_t misfit = n < align ? align - 1 : n;
      for (std::size_t at = 1; at + step < kPages - step; at += step) world.alloc.free(PageId(at), PageCount(misfit));
      EXPECT_FALSE(world.alloc.alloc_aligned(PageCount(n), align).ok) << align << " " << n;
      const std::size_t hole = kPages - step;
      world.alloc.free(PageId(align_down(hole, align)), PageCount(n));
      const PageAlloc::Run run = world.alloc.alloc_aligned(PageCount(n), align);
      ASSERT_TRUE(run.ok) << align << " " << n;
      EXPECT_EQ(run.first.value, align_down(hole, align));
      EXPECT_TRUE(world.alloc.check());
    }
  }
}

TEST(PageAllocAligned, ManyMisfitsEndInARoomierRun) {
  PageWorld world{PageCount(kPages)};
  ASSERT_NO_FATAL_FAILURE(fill(world));
  // kAlignedTries misfits of 8 pages, then an exact hole, then a roomy one: the search gives up on exactness before it
  // reaches the exact hole, and takes the roomy one.
  for (std::size_t i = 0; i < PageAlloc::kAlignedTries; i++) {
    world.alloc.free(PageId(128 * i + 1), PageCount(8));
  }
  const std::size_t exact = 128 * PageAlloc::kAlignedTries;
  const std::size_t roomy = exact + 640 + 3;
  world.alloc.free(PageId(exact), PageCount(8));
  world.alloc.free(PageId(roomy), PageCount(8 + 63));
  EXPECT_EQ(world.alloc.alloc_aligned(PageCount(8), 64).first.value, align_up(roomy, 64));
  EXPECT_EQ(world.alloc.alloc_aligned(PageCount(8), 64).first.value, exact);
  // One misfit fewer and the exact hole is the lowest that is found.
  world.alloc.free(PageId(exact), PageCount(8));
  PageCount scavenged;
  ASSERT_TRUE(world.alloc.extend(PageId(1), PageCount(8), &scavenged));
  world.alloc.free(PageId(align_up(roomy, 64)), PageCount(8));
  EXPECT_EQ(world.alloc.alloc_aligned(PageCount(8), 64).first.value, exact);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAllocAligned, AcrossNodesAndAlignmentsAboveAnArena) {
  PageWorld world{PageCount(8 * kPagesPerArena)};
  world.grow(0, 8 * kPagesPerArena);
  ASSERT_TRUE(world.alloc.alloc(PageCount(1)).ok);
  EXPECT_EQ(world.alloc.alloc_aligned(PageCount(kPagesPerArena), 2 * kPagesPerArena).first.value, 2 * kPagesPerArena);
  EXPECT_EQ(world.alloc.alloc_aligned(PageCount(2 * kPagesPerArena), 4 * kPagesPerArena).first.value,
            4 * kPagesPerArena);
  EXPECT_FALSE(world.alloc.alloc_aligned(PageCount(1), 8 * kPagesPerArena).ok);
  EXPECT_FALSE(world.alloc.alloc_aligned(PageCount(1), std::size_t{1} << 50).ok);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageAllocAligned, AgainstTheModel) {
  constexpr std::size_t kFew = 2 * kPagesPerArena;
  PageWorld world{PageCount(kFew)};
  NaivePages naive(0, kFew);
  Random random(7);
  world.grow(0, kFew);
  naive.grow(0, kFew);
  world.alloc.alloc(PageCount(kFew));
  naive.take(0, kFew);
  std::size_t found = 0;
  for (int i = 0; i < 3000; i++) {
    const std::size_t first = random.below(kFew - 400);
    const std::size_t n = 1 + random.below(400);
    for (std::size_t p = first; p < first + n; p++) {  // some of these pages are free already
      if (naive.is_free(p)) continue;
      world.alloc.free(PageId(p), PageCount(1));
      naive.free(p, 1);
    }
    for (int k = 0; k < 6; k++) {
      const std::size_t want_pages = 1 + random.below(300);
      const std::size_t align = std::size_t{1} << random.below(10);
      const PageAlloc::Run run = world.alloc.alloc_aligned(PageCount(want_pages), align);
      ASSERT_EQ(run.ok, naive.first_fit(want_pages, align) != NaivePages::kNone) << want_pages << " " << align;
      if (!run.ok) continue;
      ASSERT_TRUE(is_aligned(run.first.value, align));
      ASSERT_TRUE(naive.all_free(run.first.value, want_pages));
      naive.take(run.first.value, want_pages);
      found++;
    }
  }
  EXPECT_GT(found, 1000u);
  EXPECT_TRUE(world.alloc.check());
}

}  // namespace
}  // namespace nh
