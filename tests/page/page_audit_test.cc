// check() must notice every kind of planted damage, and rebuild_summaries() must repair what it can.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "page/naive_pages.h"
#include "page/page_alloc.h"

namespace nh {
namespace {

constexpr std::size_t kStart = (std::size_t{1} << kNodeShift[0]) - kPagesPerArena;  // across two root nodes
constexpr std::size_t kEnd = kStart + 3 * kPagesPerArena - 3 * kChunkPages;  // inside a group of siblings

// Runs of mixed lengths, every other one freed.
void fragment(PageWorld& world, std::uint64_t seed) {
  Random random(seed);
  world.grow(kStart, kEnd - kStart);
  std::vector<PageAlloc::Run> runs;
  std::vector<std::size_t> sizes;
  for (;;) {
    sizes.push_back(1 + random.below(random.below(10) == 0 ? 900 : 30));
    runs.push_back(world.alloc.alloc(PageCount(sizes.back())));
    if (!runs.back().ok) break;
  }
  for (std::size_t i = 0; i + 1 < runs.size(); i += 2) world.alloc.free(runs[i].first, PageCount(sizes[i]));
}

TEST(PageAudit, NoticesDamageAnywhere) {
  PageWorld world{PageCount(kEnd + kPagesPerArena)};
  fragment(world, 1);
  ASSERT_TRUE(world.alloc.check());
  const PageAllocLayout used = PageAlloc::needed_storage(PageId(kEnd));
  for (unsigned level = 0; level < kTreeLevels; level++) {
    const std::size_t nodes = used.summary_bytes[level] / sizeof(Summary);
    // The last siblings stand for pages beyond the end, and must stay empty. (Level 0 has no siblings.)
    for (const std::size_t node : {kStart >> kNodeShift[level], (kEnd - 1) >> kNodeShift[level], nodes - 1}) {
      for (const unsigned bit : {0u, 20u, 21u, 41u, 42u, 62u}) {
        world.summaries(level)[node] ^= std::uint64_t{1} << bit;
        EXPECT_FALSE(world.alloc.check()) << "level " << level << " node " << node << " bit " << bit;
        world.summaries(level)[node] ^= std::uint64_t{1} << bit;
      }
    }
  }
  ASSERT_TRUE(world.alloc.check());
  for (const std::size_t chunk : {kStart / kChunkPages, (kEnd - 1) / kChunkPages}) {
    for (std::size_t word = 0; word < 16; word += 3) {  // 8 words of free pages, 8 of scavenged ones
      world.bitmap()[chunk * 16 + word] ^= 4;
      EXPECT_FALSE(world.alloc.check()) << "chunk " << chunk << " word " << word;
      world.bitmap()[chunk * 16 + word] ^= 4;
    }
  }
  EXPECT_TRUE(world.alloc.check());
}

// Bits that moved without a trace in any count are seen through the search limits.
TEST(PageAudit, NoticesAFreePageBelowTheSearchLimit) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(kPagesPerArena));
  world.alloc.free(PageId(64), PageCount(1));
  ASSERT_TRUE(world.alloc.check());
  // The chunk's summary does not change: one page in the middle, elsewhere.
  world.bitmap()[1] = 0;
  world.bitmap()[0] = 4;
  EXPECT_FALSE(world.alloc.check());
}

TEST(PageAudit, NoticesAUnitToScavengeAboveItsSearchLimit) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(kPagesPerArena));
  const std::size_t low = 3;  // chunks, of which the first half is freed
  const std::size_t high = 9;
  for (const std::size_t chunk : {low, high}) world.alloc.free(PageId(chunk * kChunkPages), PageCount(kPagesPerHuge));
  ASSERT_TRUE(world.alloc.claim(PageId(high * kChunkPages), PageCount(kPagesPerHuge)));
  world.alloc.release_claim(PageId(high * kChunkPages), PageCount(kPagesPerHuge), true);
  PageId unit;
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kPagesPerArena), &unit));  // lowers the limit
  ASSERT_EQ(unit.value, low * kChunkPages);
  ASSERT_TRUE(world.alloc.check());
  for (std::size_t word = 8; word < 12; word++) {  // the counters do not see it
    std::swap(world.bitmap()[low * 16 + word], world.bitmap()[high * 16 + word]);
  }
  EXPECT_FALSE(world.alloc.check());
}

TEST(PageAuditDeathTest, ASearchDoesNotFollowALyingSummary) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(kPagesPerArena));
  world.alloc.free(PageId(3), PageCount(1));
  world.summaries(4)[3] = std::uint64_t{5} << 21;  // max 5 where nothing is free
  EXPECT_DEATH(world.alloc.alloc(PageCount(5)), "summary promises more");
  world.summaries(4)[3] = 0;
  world.summaries(3)[1] = std::uint64_t{5} << 21;
  EXPECT_DEATH(world.alloc.alloc(PageCount(5)), "summary promises more");
}

TEST(PageRebuild, RestoresEverythingFromTheBitmaps) {
  PageWorld world{PageCount(kEnd + kPagesPerArena)};
  fragment(world, 2);
  const std::size_t free = world.alloc.free_pages().value;
  const std::size_t scavenged = world.alloc.scavenged_pages().value;
  const std::size_t search = world.alloc.search_address().value;
  const PageAllocLayout used = PageAlloc::needed_storage(PageId(kEnd));
  for (unsigned level = 0; level < kTreeLevels; level++) {
    for (std::size_t i = 0; i < used.summary_bytes[level] / sizeof(Summary); i++) {
      world.summaries(level)[i] = 0x0123456789abcdef * (i + 1);
    }
  }
  EXPECT_FALSE(world.alloc.check());
  world.alloc.rebuild_summaries(PageId(kEnd));
  EXPECT_TRUE(world.alloc.check());
  EXPECT_EQ(world.alloc.free_pages().value, free);
  EXPECT_EQ(world.alloc.scavenged_pages().value, scavenged);
  EXPECT_EQ(world.alloc.search_address().value, search);
  EXPECT_EQ(world.alloc.end().value, kEnd);
}

// The states in which another thread's death leaves a heap: bits changed, nothing else yet.
TEST(PageRebuild, AfterATornAllocation) {
  PageWorld world{PageCount(kEnd + kPagesPerArena)};
  fragment(world, 3);
  const std::size_t search = world.alloc.search_address().value;
  ASSERT_TRUE(world.alloc.is_free(PageId(search), PageCount(1)));
  world.bitmap()[search / kChunkPages * 16 + search % kChunkPages / 64] &= ~(std::uint64_t{1} << search % 64);
  EXPECT_FALSE(world.alloc.check());
  world.alloc.rebuild_summaries(PageId(kEnd));
  EXPECT_TRUE(world.alloc.check());
  EXPECT_FALSE(world.alloc.is_free(PageId(search), PageCount(1)));
  EXPECT_GT(world.alloc.search_address().value, search);
}

TEST(PageRebuild, AfterATornFree) {
  PageWorld world{PageCount(kEnd)};
  world.grow(kStart, kEnd - kStart);
  ASSERT_TRUE(world.alloc.alloc(PageCount(kEnd - kStart)).ok);
  PageId unit;
  EXPECT_FALSE(world.alloc.find_free_unit_below(PageId(kEnd), &unit));
  const std::size_t chunk = kStart / kChunkPages + 5;
  for (std::size_t word = 0; word < 8; word++) world.bitmap()[chunk * 16 + word] = ~std::uint64_t{0};
  world.alloc.rebuild_summaries(PageId(kEnd));
  EXPECT_TRUE(world.alloc.check());
  EXPECT_EQ(world.alloc.search_address().value, chunk * kChunkPages);
  ASSERT_TRUE(world.alloc.find_free_unit_below(PageId(kEnd), &unit));  // both search limits follow
  EXPECT_EQ(unit.value, chunk * kChunkPages + kPagesPerHuge);
  EXPECT_EQ(world.alloc.alloc(PageCount(kChunkPages)).first.value, chunk * kChunkPages);
}

TEST(PageRebuild, OfAnEmptyHeap) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.alloc.rebuild_summaries(PageId(0));
  EXPECT_TRUE(world.alloc.check());
  EXPECT_FALSE(world.alloc.alloc(PageCount(1)).ok);
}

}  // namespace
}  // namespace nh
