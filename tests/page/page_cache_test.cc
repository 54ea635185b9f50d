#include "page/page_cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "page/naive_pages.h"

namespace nh {
namespace {

TEST(PageCache, ZeroedMemoryIsAnEmptyCache) {
  alignas(PageCache) unsigned char memory[sizeof(PageCache)];
  std::memset(memory, 0, sizeof memory);
  PageCache cache;
  std::memcpy(&cache, memory, sizeof cache);
  EXPECT_TRUE(cache.empty());
  EXPECT_FALSE(cache.alloc(PageCount(1)).ok);
  EXPECT_FALSE(cache.alloc(PageCount(64)).ok);
  PageAlloc pages;  // without any memory: an empty cache does not touch it
  cache.flush(pages);
  EXPECT_TRUE(cache.empty());
}

TEST(PageCache, TakesTheLowestGroupThatHasAFreePage) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(200));
  world.alloc.free(PageId(70), PageCount(3));
  world.alloc.free(PageId(126), PageCount(4));
  PageCache cache = world.alloc.allocate_to_cache();
  EXPECT_EQ(cache.base().value, 64u);
  EXPECT_EQ(cache.free_mask(), std::uint64_t{7} << 6 | std::uint64_t{3} << 62);
  EXPECT_EQ(cache.scavenged_mask(), 0u);
  EXPECT_EQ(cache.free_pages().value, 5u);
  EXPECT_EQ(world.alloc.free_pages().value, kPagesPerArena - 200 + 2);
  EXPECT_EQ(world.alloc.search_address().value, 128u);
  EXPECT_TRUE(world.alloc.check());
  EXPECT_EQ(world.alloc.alloc(PageCount(1)).first.value, 128u);

  PageCache next = world.alloc.allocate_to_cache();
  EXPECT_EQ(next.base().value, 128u);
  EXPECT_EQ(next.free_mask(), std::uint64_t{2});
  next = world.alloc.allocate_to_cache();  // used up: 200 .. 255 are new
  EXPECT_EQ(next.base().value, 192u);
  EXPECT_EQ(next.free_mask(), ~low_bits(8));
  EXPECT_EQ(next.scavenged_mask(), ~low_bits(8));
}

TEST(PageCache, AllocatesFirstFitAndReportsScavengedPages) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(10));
  world.alloc.free(PageId(2), PageCount(2));
  world.alloc.free(PageId(5), PageCount(5));
  PageCache cache = world.alloc.allocate_to_cache();  // 2 3 5 .. 63, of which 10 and up are scavenged
  EXPECT_EQ(cache.scavenged_mask(), ~low_bits(10));
  PageAlloc::Run run = cache.alloc(PageCount(3));
  ASSERT_TRUE(run.ok);
  EXPECT_EQ(run.first.value, 5u);
  EXPECT_EQ(run.scavenged.value, 0u);
  run = cache.alloc(PageCount(4));
  EXPECT_EQ(run.first.value, 8u);
  EXPECT_EQ(run.scavenged.value, 2u);
  EXPECT_EQ(cache.scavenged_mask(), ~low_bits(12));
  EXPECT_FALSE(cache.alloc(PageCount(53)).ok);
  run = cache.alloc(PageCount(52));
  EXPECT_EQ(run.first.value, 12u);
  EXPECT_EQ(run.scavenged.value, 52u);
  run = cache.alloc(PageCount(1));
  EXPECT_EQ(run.first.value, 2u);
  EXPECT_FALSE(cache.empty());
  run = cache.alloc(PageCount(1));
  EXPECT_EQ(run.first.value, 3u);
  EXPECT_TRUE(cache.empty());
  // Pages from a cache are freed like any others.
  world.alloc.free(PageId(12), PageCount(52));
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageCache, AWholeGroupAtOnce) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  PageCache cache = world.alloc.allocate_to_cache();
  const PageAlloc::Run run = cache.alloc(PageCount(64));
  ASSERT_TRUE(run.ok);
  EXPECT_EQ(run.first.value, 0u);
  EXPECT_EQ(run.scavenged.value, 64u);
  EXPECT_TRUE(cache.empty());
}

TEST(PageCache, FlushRestoresWhatIsLeft) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(20));
  world.alloc.free(PageId(0), PageCount(20));
  PageCache cache = world.alloc.allocate_to_cache();
  ASSERT_TRUE(cache.alloc(PageCount(5)).ok);
  cache.flush(world.alloc);
  EXPECT_TRUE(cache.empty());
  EXPECT_EQ(cache.base().value, 0u);
  EXPECT_EQ(world.alloc.free_pages().value, kPagesPerArena - 5);
  EXPECT_EQ(world.alloc.scavenged_pages().value, kPagesPerArena - 20);
  EXPECT_EQ(world.alloc.search_address().value, 5u);
  EXPECT_TRUE(world.alloc.check());
  cache.flush(world.alloc);  // nothing left to give back
  EXPECT_EQ(world.alloc.free_pages().value, kPagesPerArena - 5);
  const PageAlloc::Run run = world.alloc.alloc(PageCount(40));
  EXPECT_EQ(run.first.value, 5u);
  EXPECT_EQ(run.scavenged.value, 25u);
}

TEST(PageCache, LeavesTheBitsOfClaimedNeighboursAlone) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  ASSERT_TRUE(world.alloc.claim(PageId(8), PageCount(8)));
  PageCache cache = world.alloc.allocate_to_cache();
  EXPECT_EQ(cache.free_mask(), ~(low_bits(8) << 8));
  EXPECT_EQ(cache.scavenged_mask(), cache.free_mask());
  EXPECT_EQ(world.alloc.scavenged_in(PageId(0), PageCount(64)).value, 8u);
  world.alloc.release_claim(PageId(8), PageCount(8), false);
  EXPECT_EQ(world.alloc.alloc(PageCount(8)).scavenged.value, 8u);
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageCache, EmptyWhereTheHeapIsFull) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  world.alloc.alloc(PageCount(kPagesPerArena));
  EXPECT_TRUE(world.alloc.allocate_to_cache().empty());
  EXPECT_TRUE(world.alloc.check());
}

TEST(PageCacheDeathTest, FlushOfPagesThatAreFree) {
  PageWorld world{PageCount(kPagesPerArena)};
  world.grow(0, kPagesPerArena);
  PageCache cache = world.alloc.allocate_to_cache();
  PageCache copy = cache;
  cache.flush(world.alloc);
  EXPECT_DEATH(copy.flush(world.alloc), "free already");
}

}  // namespace
}  // namespace nh
