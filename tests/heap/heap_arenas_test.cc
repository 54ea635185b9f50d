// The arenas of one heap: their numbers, and what a fork child makes of a half-added one.
#include "heap/heap_arenas.h"

#include <gtest/gtest.h>

#include "heap/heap_world.h"

namespace nh {
namespace {

using test::FakeOs;
using test::window_of;

class Arenas : public ::testing::Test {
 protected:
  Arenas() {
    AddressSpace::Config config = window_of(64 * GiB, 2);
    config.heap_table_bytes = HeapArenas::table_bytes(config.bytes);
    EXPECT_TRUE(space_.init(os_.ops(), config));
    arenas_.init(os_.ops(), space_, HeapId(0), NodeId());
  }
  void grow(HeapArenas& arenas, std::size_t count) {
    ArenaIndex first = 0;
    ASSERT_EQ(arenas.prepare(count), 0);
    ASSERT_EQ(space_.deal(HeapId(0), count, kArenaSize, arenas.last(), static_cast<std::uint32_t>(arenas.end()), &first), 0);
    arenas.add(first, count);
  }
  void deal_to_another_heap() {
    ArenaIndex first = 0;
    ASSERT_EQ(space_.deal(HeapId(1), 1, kArenaSize, AddressSpace::kNone, 0, &first), 0);
  }

  FakeOs os_;
  AddressSpace space_;
  HeapArenas arenas_;
};

TEST_F(Arenas, ANumberIsLeftOutBetweenArenasThatLieApart) {
  grow(arenas_, 2);
  deal_to_another_heap();
  grow(arenas_, 1);
  EXPECT_EQ(arenas_.count(), 3u);
  EXPECT_EQ(arenas_.end(), 4u);
  EXPECT_FALSE(arenas_.exists(2));
  EXPECT_EQ(arenas_.pages().free_pages(), PageCount(3 * kPagesPerArena));
  const UnitId last(3 * kUnitsPerArena);
  EXPECT_EQ(arenas_.address_of(last), space_.arena_address(3));
  EXPECT_EQ(arenas_.page_of(space_.arena_address(3) + kPageSize), last.first_page() + PageCount(1));
}

// The child of a fork in the middle of add() has all of its stores but the last, and other arenas next.
TEST_F(Arenas, AChildForgetsArenasThatWereHalfAdded) {
  grow(arenas_, 2);
  HeapArenas child = arenas_;
  grow(arenas_, 3);
  child.forget_half_added();
  EXPECT_EQ(child.count(), 2u);
  EXPECT_TRUE(child.pages().check());
  deal_to_another_heap();
  grow(child, 1);
  EXPECT_EQ(child.end(), 4u);
  EXPECT_FALSE(child.exists(2)) << "its pages would be nobody's";
  EXPECT_EQ(child.pages().free_pages(), PageCount(3 * kPagesPerArena));
  EXPECT_FALSE(child.pages().is_free(PageId(2 * kPagesPerArena), PageCount(1)));
  EXPECT_TRUE(child.pages().check());
}

TEST_F(Arenas, AChildForgetsTheFirstArenaAsWell) {
  ASSERT_EQ(arenas_.prepare(1), 0);
  arenas_.pages().grow(PageId(0), PageCount(kPagesPerArena));  // what add() does before its last store
  arenas_.forget_half_added();
  EXPECT_EQ(arenas_.pages().free_pages(), PageCount(0));
  grow(arenas_, 1);
  EXPECT_EQ(arenas_.pages().free_pages(), PageCount(kPagesPerArena));
  EXPECT_TRUE(arenas_.pages().check());
}

}  // namespace
}  // namespace nh
