#include "base/units.h"

#include <type_traits>

#include <gtest/gtest.h>

#include "base/node_set.h"

namespace nh {
namespace {

// The point of the types: what must not be mixed up does not compile.
template <typename A, typename B>
concept Addable = requires(A a, B b) { a + b; };
template <typename A, typename B>
concept Comparable = requires(A a, B b) { a < b; };

static_assert(Addable<PageId, PageCount> && Addable<PageCount, PageCount>);
static_assert(!Addable<PageId, PageId> && !Addable<PageCount, std::size_t> && !Addable<PageId, std::size_t>);
static_assert(!Comparable<NodeId, CpuId> && !Comparable<NodeId, int> && !Comparable<PageId, PageCount>);
static_assert(!std::is_convertible_v<int, NodeId> && !std::is_convertible_v<std::size_t, PageCount>);

TEST(Units, PagesHoldBytesRoundedUp) {
  EXPECT_EQ(PageCount::holding(0).value, 0u);
  EXPECT_EQ(PageCount::holding(1).value, 1u);
  EXPECT_EQ(PageCount::holding(kPageSize).value, 1u);
  EXPECT_EQ(PageCount::holding(kPageSize + 1).value, 2u);
  EXPECT_EQ(PageCount::holding(10 * GiB).value, 10 * GiB / kPageSize);
  EXPECT_EQ(PageCount(3).bytes(), 3 * kPageSize);
}

TEST(Units, PageArithmetic) {
  const PageId p(100);
  EXPECT_EQ((p + PageCount(28)).value, 128u);
  EXPECT_EQ((p - PageCount(100)).value, 0u);
  EXPECT_EQ((PageId(128) - p).value, 28u);
  PageCount n(5);
  n += PageCount(2);
  n -= PageCount(1);
  EXPECT_EQ(n, PageCount(6));
  EXPECT_LT(PageId(1), PageId(2));
}

TEST(Units, IdsStartOutAsNobody) {
  EXPECT_FALSE(NodeId().valid());
  EXPECT_FALSE(CpuId().valid());
  EXPECT_TRUE(NodeId(0).valid());
}

TEST(NodeSet, HasWhatWasAdded) {
  NodeSet set;
  EXPECT_TRUE(set.empty());
  for (const int n : {0, 63, 64, 1023}) set.add(NodeId(n));
  EXPECT_EQ(set.count(), 4u);
  for (const int n : {0, 63, 64, 1023}) EXPECT_TRUE(set.has(NodeId(n))) << n;
  for (const int n : {1, 62, 65, 1022}) EXPECT_FALSE(set.has(NodeId(n))) << n;
  set.remove(NodeId(64));
  EXPECT_FALSE(set.has(NodeId(64)));
  EXPECT_TRUE(set.has(NodeId(63)));
}

TEST(NodeSet, AnswersForIdsItCannotHold) {
  EXPECT_FALSE(NodeSet().has(NodeId()));
  EXPECT_FALSE(NodeSet().has(NodeId(1024)));
  EXPECT_FALSE(NodeSet().has(NodeId(1 << 20)));
}

TEST(NodeSet, WalksInOrder) {
  NodeSet set;
  for (const int n : {7, 0, 900}) set.add(NodeId(n));
  EXPECT_EQ(set.first(), NodeId(0));
  EXPECT_EQ(set.next(NodeId(1)), NodeId(7));
  EXPECT_EQ(set.next(NodeId(7)), NodeId(7));
  EXPECT_EQ(set.next(NodeId(8)), NodeId(900));
  EXPECT_FALSE(set.next(NodeId(901)).valid());
  EXPECT_FALSE(set.next(NodeId(1024)).valid());
}

TEST(NodeSet, IsLaidOutAsTheKernelsMask) {
  EXPECT_EQ(NodeSet::of(NodeId(65)).words()[1], 2u);
  EXPECT_EQ(sizeof(NodeSet), NodeSet::kBits / 8);
}

}  // namespace
}  // namespace nh
