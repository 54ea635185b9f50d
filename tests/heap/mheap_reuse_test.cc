// First-touch memory that was used before: who gets its pages, and who gets new ones.
#include <gtest/gtest.h>

#include <cerrno>

#include "heap/heap_world.h"

namespace nh::test {
namespace {

enum class Pages { kPool, kThp, kBase };

const char* name_of(Pages kind) { return kind == Pages::kPool ? "Pool" : kind == Pages::kThp ? "Thp" : "Base"; }

HeapWorldConfig machine(unsigned nodes, Pages kind) {
  HeapWorldConfig c = first_touch_heap(std::vector<FakeNode>(nodes, FakeNode{.pages_2m = kind == Pages::kPool ? 64u : 0u}));
  c.os.thp_mode = kind == Pages::kBase ? 0 : 1;
  return c;
}

// Extents as threads of different nodes use them one after the other.
struct ReuseWorld : HeapWorld {
  explicit ReuseWorld(const HeapWorldConfig& c) : HeapWorld(c) { EXPECT_TRUE(set_up()); }
  MSpan* alloc(std::size_t bytes, int node) {
    return heap.alloc_large(bytes, kPageSize, false, kLargeClass, NodeId(node));
  }
  void touch(MSpan* span, int node, std::size_t from = 0, std::size_t to = SIZE_MAX) {
    if (to > span->pages().bytes()) to = span->pages().bytes();
    ASSERT_EQ(os.touch(start_of(span) + from, to - from, NodeId(node)), 0);
  }
  // A freed extent of this size, written to by that node; what is allocated next lies there.
  void used(std::size_t bytes, int node) {
    MSpan* span = alloc(bytes, node);
    ASSERT_NE(span, nullptr);
    touch(span, node);
    std::memset(start_of(span), 7, 64);
    heap.free_span(span);
  }
  NodeId node_at(const MSpan* span, std::size_t offset) { return os.node_of(start_of(span) + offset); }
  // Whether no page of [from, to) exists.
  bool untouched(const MSpan* span, std::size_t from = 0, std::size_t to = SIZE_MAX) {
    for (std::size_t at = from; at < to && at < span->pages().bytes(); at += kOsPageSize) {
      if (node_at(span, at).valid()) return false;
    }
    return true;
  }
  std::uint64_t asked() const { return os.calls(FakeCall::kNodesOf); }
  void expect_sound() {
    EXPECT_TRUE(heap.check());
    EXPECT_EQ(os.check(), "");
  }
};

class Reuse : public ::testing::TestWithParam<Pages> {
 protected:
  ReuseWorld& world(unsigned nodes = 2) {
    w_ = std::make_unique<ReuseWorld>(machine(nodes, GetParam()));
    return *w_;
  }
  void TearDown() override {
    if (w_ != nullptr) w_->expect_sound();
  }
  std::unique_ptr<ReuseWorld> w_;
};
INSTANTIATE_TEST_SUITE_P(Of, Reuse, ::testing::Values(Pages::kPool, Pages::kThp, Pages::kBase),
                         [](const auto& param) { return name_of(param.param); });

TEST_P(Reuse, PagesOnTheAskersNodeAreKept) {
  ReuseWorld& w = world();
  w.used(6 * MiB, 1);
  MSpan* span = w.alloc(6 * MiB, 1);
  EXPECT_TRUE(span->need_zero);
  EXPECT_EQ(start_of(span)[5], 7) << "with what was in them";
  EXPECT_EQ(w.node_at(span, 0), NodeId(1));
  EXPECT_EQ(w.node_at(span, 6 * MiB - 1), NodeId(1));
}

TEST_P(Reuse, TheKernelIsAskedOnce) {
  ReuseWorld& w = world();
  w.used(6 * MiB, 1);
  w.heap.free_span(w.alloc(6 * MiB, 1));
  const std::uint64_t asked = w.asked();
  EXPECT_GT(asked, 0u);
  const std::uint64_t backed = w.os.calls(FakeCall::kMapNew) + w.os.calls(FakeCall::kMapNewHugetlb);
  for (int i = 0; i < 10; i++) w.heap.free_span(w.alloc(6 * MiB, 1));
  for (int i = 0; i < 10; i++) w.heap.free_span(w.alloc(2 * MiB, 1));
  MSpan* span = w.alloc(6 * MiB, 1);
  for (int i = 0; i < 10; i++) EXPECT_TRUE(w.heap.settle(span, NodeId(1)));
  EXPECT_EQ(w.asked(), asked);
  EXPECT_EQ(w.os.calls(FakeCall::kMapNew) + w.os.calls(FakeCall::kMapNewHugetlb), backed);
}

TEST_P(Reuse, PagesOnAnotherNodeAreDropped) {
  ReuseWorld& w = world(4);
  w.used(6 * MiB, 3);
  MSpan* span = w.alloc(6 * MiB, 1);
  ASSERT_NE(span, nullptr);
  EXPECT_FALSE(span->need_zero);
  EXPECT_TRUE(w.untouched(span));
  EXPECT_EQ(start_of(span)[5], 0);
  // The next store decides.
  w.touch(span, 1);
  EXPECT_EQ(w.node_at(span, 3 * MiB), NodeId(1));
  w.heap.free_span(span);
  // A place that is known is not asked for again, and forgotten with its pages.
  w.heap.free_span(w.alloc(6 * MiB, 1));
  const std::uint64_t asked = w.asked();
  span = w.alloc(6 * MiB, 2);
  EXPECT_EQ(w.asked(), asked);
  EXPECT_TRUE(w.untouched(span));
  w.touch(span, 2);
  w.heap.free_span(span);
  span = w.alloc(6 * MiB, 2);
  EXPECT_TRUE(span->need_zero);
  EXPECT_FALSE(w.untouched(span));
}

TEST_P(Reuse, PagesOnTwoNodesAreDropped) {
  ReuseWorld& w = world();
  std::vector<std::size_t> borders = {2 * MiB, 4 * MiB};
  // Inside a unit, where it has more than one page; in the end only the last one lies elsewhere.
  if (GetParam() == Pages::kBase) borders.insert(borders.end(), {kOsPageSize, 5 * MiB, 6 * MiB - kOsPageSize});
  for (const std::size_t border : borders) {
    MSpan* span = w.alloc(6 * MiB, 0);
    w.touch(span, 0, 0, border);
    w.touch(span, 1, border);
    w.heap.free_span(span);
    span = w.alloc(6 * MiB, 0);
    EXPECT_FALSE(span->need_zero);
    EXPECT_TRUE(w.untouched(span)) << border;
    w.heap.free_span(span);
  }
}

TEST_P(Reuse, AKeptExtentIsSettledForItsNextOwner) {
  ReuseWorld& w = world();
  MSpan* span = w.alloc(4 * MiB, 0);
  w.touch(span, 0);
  // As the CPU caches hand it out: with its descriptor, whatever is in it.
  span->need_zero = true;
  ASSERT_TRUE(w.heap.settle(span, NodeId(0)));
  EXPECT_TRUE(span->need_zero);
  EXPECT_FALSE(w.untouched(span));
  ASSERT_TRUE(w.heap.settle(span, NodeId(1)));
  EXPECT_FALSE(span->need_zero);
  EXPECT_TRUE(w.untouched(span));
  EXPECT_EQ(w.space.span_of(start_of(span)), span);
}

TEST_P(Reuse, WhatIsPartlyThereIsKeptWhileItLiesRight) {
  ReuseWorld& w = world();
  MSpan* span = w.alloc(8 * MiB, 0);
  w.touch(span, 1, 2 * MiB, 4 * MiB);
  w.heap.free_span(span);
  span = w.alloc(8 * MiB, 1);
  EXPECT_TRUE(span->need_zero);
  EXPECT_EQ(w.node_at(span, 2 * MiB), NodeId(1));
  EXPECT_TRUE(w.untouched(span, 4 * MiB)) << "asking touches nothing";
  // What comes into being later is looked at, too.
  w.touch(span, 0, 6 * MiB, 8 * MiB);
  w.heap.free_span(span);
  span = w.alloc(8 * MiB, 1);
  EXPECT_FALSE(span->need_zero);
  EXPECT_TRUE(w.untouched(span));
}

// In a container that forbids the question all memory would be faulted in anew again and again.
TEST_P(Reuse, WithoutAnAnswerPagesAreKept) {
  ReuseWorld& w = world();
  w.used(4 * MiB, 1);
  w.os.fail_all(FakeCall::kNodesOf, EPERM);
  MSpan* span = w.alloc(4 * MiB, 1);
  w.os.clear_failures();
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(span->need_zero);
  EXPECT_EQ(w.node_at(span, 0), NodeId(1));
}

TEST_P(Reuse, AnUnknownAskerGetsNewPages) {
  ReuseWorld& w = world();
  w.used(4 * MiB, 0);
  EXPECT_TRUE(w.untouched(w.heap.alloc_large(4 * MiB, kPageSize, false)));
}

TEST_P(Reuse, AForkMakesPlacesForgotten) {
  ReuseWorld& w = world();
  w.used(4 * MiB, 1);
  w.heap.free_span(w.alloc(4 * MiB, 1));
  const std::uint64_t asked = w.asked();
  w.heap.forget_places();
  MSpan* span = w.alloc(4 * MiB, 1);
  EXPECT_GT(w.asked(), asked);
  EXPECT_FALSE(w.untouched(span));
}

TEST_P(Reuse, AReleasedUnitIsForgottenToo) {
  ReuseWorld& w = world();
  w.used(4 * MiB, 1);
  w.heap.free_span(w.alloc(4 * MiB, 1));
  EXPECT_EQ(w.heap.scavenge(SIZE_MAX, 0), 4 * MiB);
  MSpan* span = w.alloc(4 * MiB, 0);
  EXPECT_FALSE(span->need_zero);
  w.touch(span, 0);
  w.heap.free_span(span);
  span = w.alloc(4 * MiB, 0);
  EXPECT_TRUE(span->need_zero);
  EXPECT_EQ(w.node_at(span, 0), NodeId(0));
}

TEST_P(Reuse, SingleNodesAreNeverAsked) {
  ReuseWorld& w = world(1);
  w.used(4 * MiB, 0);
  MSpan* span = w.heap.alloc_large(4 * MiB, kPageSize, false);
  EXPECT_TRUE(span->need_zero);
  EXPECT_FALSE(w.untouched(span));
  EXPECT_TRUE(w.heap.settle(span, NodeId()));
  EXPECT_TRUE(w.heap.resize_large(span, 2 * MiB));
  EXPECT_TRUE(w.heap.resize_large(span, 6 * MiB));
  EXPECT_EQ(w.asked(), 0u);
}

TEST_P(Reuse, NobodyAsksWhereAPolicyDecides) {
  HeapWorldConfig c = machine(2, GetParam());
  c.heap.backing.policy_places = true;
  ReuseWorld w(c);
  w.used(4 * MiB, 1);
  MSpan* span = w.alloc(4 * MiB, 0);
  EXPECT_TRUE(span->need_zero);
  EXPECT_EQ(w.node_at(span, 0), NodeId(1));
  EXPECT_EQ(w.asked(), 0u);
  w.expect_sound();
}

// ---- growth ----------------------------------------------------------------------------------------------------------

TEST_P(Reuse, AnObjectThatGrowsGetsPagesOfItsOwn) {
  ReuseWorld& w = world();
  w.used(8 * MiB, 1);
  MSpan* span = w.alloc(2 * MiB, 0);
  w.touch(span, 0);
  ASSERT_TRUE(w.heap.resize_large(span, 8 * MiB, kLargeClass, NodeId(0)));
  EXPECT_EQ(w.node_at(span, 0), NodeId(0)) << "what it had stays";
  EXPECT_TRUE(w.untouched(span, 2 * MiB));
  w.touch(span, 0);
  ASSERT_TRUE(w.heap.resize_large(span, 2 * MiB, kLargeClass, NodeId(0)));
  ASSERT_TRUE(w.heap.resize_large(span, 8 * MiB, kLargeClass, NodeId(0)));
  EXPECT_EQ(w.node_at(span, 7 * MiB), NodeId(0)) << "and what lies right is not dropped";
}

TEST_P(Reuse, GrowthThatCannotBeBackedChangesNothing) {
  ReuseWorld& w = world();
  w.used(8 * MiB, 1);
  MSpan* span = w.alloc(2 * MiB, 0);
  w.touch(span, 0);
  const HeapStats before = w.heap.stats();
  w.os.set_pool_pages(NodeId(0), kHugeSize, 0);
  w.os.set_pool_pages(NodeId(1), kHugeSize, 0);
  w.os.fail_all(FakeCall::kMapNew, ENOMEM);
  w.os.fail_all(FakeCall::kDiscard, EINVAL);  // plain memory has to stay what it is then
  if (GetParam() != Pages::kPool) w.os.fail_all(FakeCall::kUnmap, ENOMEM);
  const bool grown = w.heap.resize_large(span, 8 * MiB, kLargeClass, NodeId(0));
  w.os.clear_failures();
  EXPECT_EQ(grown, GetParam() != Pages::kPool);
  if (!grown) {
    EXPECT_EQ(span->pages().bytes(), 2 * MiB);
    EXPECT_EQ(w.heap.stats().large_bytes, before.large_bytes);
    EXPECT_EQ(w.heap.stats().in_use_bytes, before.in_use_bytes);
    w.expect_sound();
  }
  EXPECT_TRUE(w.heap.resize_large(span, 8 * MiB, kLargeClass, NodeId(0))) << "later it can";
}

// ---- pages that cannot be had again ----------------------------------------------------------------------------------

TEST(ReusePool, TheReservationIsRenewed) {
  ReuseWorld w(machine(2, Pages::kPool));
  w.used(8 * MiB, 1);
  EXPECT_EQ(w.os.bytes_on(NodeId(1), true), 8 * MiB);
  MSpan* span = w.alloc(8 * MiB, 0);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(w.os.bytes_on(NodeId(1), true), 0u) << "the other node's pages are back in its pool";
  EXPECT_EQ(w.heap.stats().hugetlb_bytes, 8 * MiB);
  HugePool pool;
  ASSERT_TRUE(w.os.ops().huge_pool(kHugeSize, NodeId(), &pool));
  EXPECT_EQ(pool.reserved, 4u) << "nobody can take the pages away before the first store";
  w.touch(span, 0);
  EXPECT_EQ(w.os.bytes_on(NodeId(0), true), 8 * MiB);
  w.expect_sound();
}

TEST(ReusePool, ADryPoolMeansTransparentHugePages) {
  ReuseWorld w(machine(2, Pages::kPool));
  w.used(8 * MiB, 1);
  w.os.set_pool_pages(NodeId(0), kHugeSize, 0);
  w.os.set_pool_pages(NodeId(1), kHugeSize, 0);
  MSpan* span = w.alloc(8 * MiB, 0);
  ASSERT_NE(span, nullptr);
  EXPECT_FALSE(span->need_zero);
  EXPECT_EQ(w.heap.stats().hugetlb_bytes, 0u);
  EXPECT_EQ(w.heap.stats().thp_bytes, 8 * MiB);
  w.touch(span, 0);
  w.expect_sound();
}

TEST(ReusePool, NoMemoryAtAllMeansNoObject) {
  ReuseWorld w(machine(2, Pages::kPool));
  w.used(8 * MiB, 1);
  for (const std::size_t pages : {0u, 2u}) {
    w.os.set_pool_pages(NodeId(0), kHugeSize, pages);
    w.os.set_pool_pages(NodeId(1), kHugeSize, pages);
    w.os.fail_all(FakeCall::kMapNew, ENOMEM);
    w.os.fail_all(FakeCall::kMapNewHugetlb, ENOMEM);
    EXPECT_EQ(w.alloc(8 * MiB, 0), nullptr);
    const HeapStats s = w.heap.stats();
    EXPECT_EQ(s.large_objects, 0u);
    EXPECT_EQ(s.large_bytes, 0u);
    EXPECT_EQ(s.in_use_bytes, 0u);
    EXPECT_EQ(s.spans, 0u);
    w.expect_sound();
    w.os.clear_failures();
  }
  // Nothing was lost: the same addresses serve again.
  MSpan* span = w.alloc(8 * MiB, 0);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->start_addr, w.space.base());
  w.touch(span, 0);
  w.expect_sound();
}

TEST(ReusePool, AKeptExtentWhosePagesAreGoneGoesHome) {
  ReuseWorld w(machine(2, Pages::kPool));
  MSpan* span = w.alloc(4 * MiB, 0);
  w.touch(span, 0);
  span->need_zero = true;
  w.os.set_pool_pages(NodeId(0), kHugeSize, 0);
  w.os.set_pool_pages(NodeId(1), kHugeSize, 0);
  w.os.fail_all(FakeCall::kMapNew, ENOMEM);
  w.os.fail_all(FakeCall::kMapNewHugetlb, ENOMEM);
  EXPECT_FALSE(w.heap.settle(span, NodeId(1)));
  w.heap.free_span(span);
  w.expect_sound();
  EXPECT_EQ(w.heap.committed(), 0u);
}

// A mapping that stays can fail to drop its pages; they still are memory.
TEST(ReuseThp, PagesThatCannotBeDroppedStay) {
  ReuseWorld w(machine(2, Pages::kThp));
  w.used(4 * MiB, 1);
  w.os.fail_all(FakeCall::kDiscard, EINVAL);
  w.os.fail_all(FakeCall::kUnmap, ENOMEM);
  MSpan* span = w.alloc(4 * MiB, 0);
  w.os.clear_failures();
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(span->need_zero) << "they are not zero then";
  EXPECT_EQ(start_of(span)[5], 7);
  w.expect_sound();
}

// ---- calloc ----------------------------------------------------------------------------------------------------------

TEST_P(Reuse, ClearingPlacesNoPage) {
  ReuseWorld& w = world();
  MSpan* span = w.alloc(8 * MiB, 0);
  w.touch(span, 1, 2 * MiB, 3 * MiB);
  std::memset(start_of(span) + 2 * MiB, 7, 64);
  w.heap.free_span(span);
  span = w.alloc(8 * MiB, 1);
  ASSERT_TRUE(span->need_zero);
  ASSERT_TRUE(w.heap.clear_large(span));
  EXPECT_FALSE(span->need_zero);
  EXPECT_TRUE(reads_zero(span));
  EXPECT_EQ(start_of(span)[2 * MiB + 5], 0);
  // The model sees no stores of the test's process: that the pages were dropped is the proof that none was needed.
  EXPECT_TRUE(w.untouched(span));
}

TEST_P(Reuse, ClearingKeepsPagesThatAreThere) {
  ReuseWorld& w = world();
  w.used(8 * MiB, 1);
  MSpan* span = w.alloc(8 * MiB, 1);
  ASSERT_TRUE(w.heap.clear_large(span));
  EXPECT_TRUE(reads_zero(span));
  EXPECT_EQ(start_of(span)[5], 0);
  EXPECT_FALSE(w.untouched(span));
}

TEST(ReusePool, ClearingThatLosesItsMemorySaysSo) {
  ReuseWorld w(machine(2, Pages::kPool));
  MSpan* span = w.alloc(4 * MiB, 0);
  w.touch(span, 0, 0, 2 * MiB);
  w.heap.free_span(span);
  span = w.alloc(4 * MiB, 0);
  ASSERT_TRUE(span->need_zero);
  w.os.fail_all(FakeCall::kMapNew, ENOMEM);
  w.os.fail_all(FakeCall::kMapNewHugetlb, ENOMEM);
  EXPECT_FALSE(w.heap.clear_large(span));
  w.os.clear_failures();
  w.heap.free_span(span);
  w.expect_sound();
  EXPECT_NE(w.alloc(4 * MiB, 0), nullptr);
}

}  // namespace
}  // namespace nh::test
