// Touched pages: first-touch memory page by page, what happens to it when it is used again, and how it gets huge pages.
#include <gtest/gtest.h>

#include <cerrno>

#include "heap/heap_world.h"
#include "heap/scavenger.h"

namespace nh::test {
namespace {

constexpr std::uint32_t kRest = 4;
constexpr unsigned kMany = 1000;

HeapWorldConfig machine(int thp_mode) {
  HeapWorldConfig c = first_touch_heap({FakeNode{.pages_2m = 64}, FakeNode{.pages_2m = 64}, FakeNode{}});
  c.heap.backing.kind = HeapKind::kTouchedPages;
  c.os.thp_mode = thp_mode;
  return c;
}

struct TouchedWorld : HeapWorld {
  explicit TouchedWorld(const HeapWorldConfig& c = machine(1)) : HeapWorld(c) { EXPECT_TRUE(set_up()); }
  ~TouchedWorld() {
    EXPECT_TRUE(heap.check());
    EXPECT_EQ(os.check(), "");
  }
  MSpan* alloc(std::size_t bytes, int node) {
    const SpanClass c = bytes > kMaxBinBytes ? kLargeClass : bin_class(bytes, false);
    return heap.alloc_large(c == kLargeClass ? bytes : size_class(c).bytes, kPageSize, false, c, NodeId(node));
  }
  void touch(MSpan* span, int node, std::size_t from = 0, std::size_t to = SIZE_MAX) {
    if (to > span->pages().bytes()) to = span->pages().bytes();
    ASSERT_EQ(os.touch(start_of(span) + from, to - from, NodeId(node)), 0);
  }
  NodeId node_at(const MSpan* span, std::size_t offset) { return os.node_of(start_of(span) + offset); }
  std::size_t existing(const MSpan* span) {
    std::size_t bytes = 0;
    for (std::size_t at = 0; at < span->pages().bytes(); at += kOsPageSize) {
      bytes += node_at(span, at).valid() ? kOsPageSize : 0;
    }
    return bytes;
  }
  // Everything that was taken until now has rested.
  MHeap::Collapsed rest_and_collapse(unsigned most = kMany) {
    heap.set_tick(heap.tick() + kRest);
    return heap.collapse(most, kRest);
  }
  bool is_huge(const MSpan* span, std::size_t offset) { return os.backing_of(start_of(span) + offset) == Backing::kThp; }
};

TEST(TouchedPages, LieWhereTheyAreWrittenPageByPage) {
  TouchedWorld w;
  MSpan* span = w.alloc(6 * MiB, 0);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->start_addr % kHugeSize, 0u) << "what is in no bin has units for itself";
  EXPECT_EQ(w.existing(span), 0u);
  EXPECT_FALSE(span->need_zero);
  constexpr std::size_t kPart = 3 * kOsPageSize;
  for (std::size_t n = 0; n < 3; n++) w.touch(span, static_cast<int>(n), n * kPart, (n + 1) * kPart);
  for (std::size_t n = 0; n < 3; n++) EXPECT_EQ(w.node_at(span, n * kPart + kPart - 1), NodeId(static_cast<int>(n)));
  EXPECT_EQ(w.os.hugetlb_bytes(), 0u) << "never pages of a pool";
  MSpan* one = w.alloc(MiB, 0);
  MSpan* other = w.alloc(MiB, 0);
  EXPECT_EQ(other->start_addr - one->start_addr, MiB) << "those in bins share units";
}

TEST(TouchedPages, TakeAdviceOnlyWhereAllMemoryWouldBeHuge) {
  for (const int thp_mode : {1, 2}) {
    TouchedWorld w(machine(thp_mode));
    w.alloc(4 * MiB, 0);  // and tables
    const std::uint64_t before = w.os.calls(FakeCall::kAdviseThp);
    MSpan* span = w.alloc(6 * MiB, 0);
    EXPECT_EQ(w.os.calls(FakeCall::kAdviseThp) - before, thp_mode == 2 ? 1u : 0u);
    w.touch(span, 0, 0, kOsPageSize);
    EXPECT_EQ(w.existing(span), kOsPageSize) << "of 2 MiB";
  }
}

TEST(TouchedPages, AreKeptForTheirNodeWhereTheSameIsAskedForAgain) {
  TouchedWorld w;
  for (const std::size_t bytes : {6 * MiB, 8 * MiB}) {
    MSpan* span = w.alloc(bytes, 1);
    w.touch(span, 1);
    start_of(span)[5] = 7;
    w.heap.free_span(span);
    span = w.alloc(bytes, 1);
    EXPECT_EQ(w.existing(span), span->pages().bytes());
    EXPECT_TRUE(span->need_zero);
    EXPECT_EQ(start_of(span)[5], 7);
    ASSERT_TRUE(w.heap.clear_large(span));
    EXPECT_EQ(start_of(span)[5], 0);
    w.heap.free_span(span);
    span = w.alloc(bytes, 0);
    EXPECT_EQ(w.existing(span), 0u) << "another node's thread writes anew";
    EXPECT_FALSE(span->need_zero);
    EXPECT_TRUE(reads_zero(span));
  }
}

TEST(TouchedPages, OfNeighboursStayWhenSomeAreDropped) {
  TouchedWorld w;
  MSpan* before = w.alloc(MiB / 2, 1);
  MSpan* span = w.alloc(MiB / 2, 1);
  MSpan* behind = w.alloc(MiB / 2, 1);
  for (MSpan* s : {before, span, behind}) w.touch(s, 1);
  fill(before, 100);
  fill(behind, 200);
  w.heap.free_span(span);
  span = w.alloc(MiB / 2, 2);
  EXPECT_EQ(w.existing(span), 0u);
  EXPECT_TRUE(holds(before, 100, before->npages) && holds(behind, 200, behind->npages));
}

TEST(TouchedPages, OfALargeOneAreDroppedIfAnyLiesElsewhere) {
  TouchedWorld w;
  MSpan* span = w.alloc(8 * MiB, 1);
  w.touch(span, 1, 0, 8 * MiB - kOsPageSize);
  w.touch(span, 0, 8 * MiB - kOsPageSize);
  w.heap.free_span(span);
  EXPECT_EQ(w.existing(w.alloc(8 * MiB, 1)), 0u);
}

// The first part of an array that was shared out lies on one node, too.
TEST(TouchedPages, OfAnotherObjectAreDropped) {
  TouchedWorld w;
  for (const std::size_t bytes : {MiB, 6 * MiB}) {
    MSpan* span = w.alloc(64 * MiB, 0);
    w.touch(span, 0, 0, 32 * MiB);
    w.touch(span, 1, 32 * MiB);
    w.heap.free_span(span);
    span = w.alloc(bytes, 0);
    EXPECT_EQ(w.existing(span), 0u);
    EXPECT_FALSE(span->need_zero);
    w.touch(span, 0);
    w.heap.free_span(span);
  }
  // Nor are those of one that shared its units.
  MSpan* part = w.alloc(MiB, 0);
  w.touch(part, 0);
  w.heap.free_span(part);
  EXPECT_EQ(w.existing(w.alloc(MiB, 0)), 0u) << "whoever wants it again quickly finds it on a CPU's list";
}

TEST(TouchedPages, ThatCannotBeDroppedStay) {
  TouchedWorld w;
  MSpan* span = w.alloc(MiB, 1);
  w.touch(span, 1);
  w.heap.free_span(span);
  w.os.fail_all(FakeCall::kDiscard, EINVAL);  // mlockall
  span = w.alloc(MiB, 0);
  w.os.clear_failures();
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(span->need_zero);
}

TEST(TouchedPages, GrowInPlaceWithNewPages) {
  TouchedWorld w;
  MSpan* span = w.alloc(6 * MiB, 1);
  MSpan* behind = w.alloc(8 * MiB, 1);
  for (MSpan* s : {span, behind}) w.touch(s, 1);
  w.heap.free_span(behind);
  ASSERT_TRUE(w.heap.resize_large(span, 12 * MiB, kLargeClass, NodeId(2)));
  EXPECT_EQ(w.existing(span), 6 * MiB) << "its own";
}

// ---- huge pages ----------------------------------------------------------------------------------------------------

TEST(Collapse, PagesThatRestOnOneNodeBecomeHugeThere) {
  for (const int thp_mode : {1, 2}) {
    TouchedWorld w(machine(thp_mode));
    MSpan* span = w.alloc(8 * MiB, 0);
    w.touch(span, 0, 0, 4 * MiB);
    w.touch(span, 1, 4 * MiB);
    fill(span, 5);
    const std::size_t mappings = w.os.mapping_count();
    EXPECT_TRUE(w.heap.may_collapse());
    MHeap::Collapsed done = w.heap.collapse(kMany, kRest);
    EXPECT_EQ(done.units, 0u) << "not before they have rested";
    EXPECT_EQ(done.wait, kRest);
    done = w.rest_and_collapse();
    EXPECT_EQ(done.units, 4u);
    for (std::size_t at = 0; at < 8 * MiB; at += kHugeSize) {
      EXPECT_TRUE(w.is_huge(span, at));
      EXPECT_EQ(w.node_at(span, at), NodeId(at < 4 * MiB ? 0 : 1));
    }
    EXPECT_TRUE(holds(span, 5, span->npages));
    EXPECT_EQ(w.os.mapping_count(), mappings);
    EXPECT_EQ(w.heap.stats().thp_bytes, 8 * MiB);
    EXPECT_EQ(w.heap.collapse(kMany, kRest).wait, 0u) << "nothing is left to do";
    EXPECT_FALSE(w.heap.may_collapse());
    // Used again it begins with base pages.
    w.heap.free_span(span);
    EXPECT_EQ(w.heap.scavenge(SIZE_MAX, 0), 8 * MiB);
    span = w.alloc(8 * MiB, 0);
    w.touch(span, 0, 0, kOsPageSize);
    EXPECT_EQ(w.existing(span), kOsPageSize);
    EXPECT_EQ(w.heap.stats().thp_bytes, 0u);
  }
}

TEST(Collapse, AFewAtATime) {
  TouchedWorld w;
  MSpan* span = w.alloc(16 * MiB, 0);
  w.touch(span, 0);
  MHeap::Collapsed done = w.rest_and_collapse(3);
  EXPECT_EQ(done.units, 3u);
  EXPECT_TRUE(done.more);
  unsigned all = done.units;
  while (done.more) all += (done = w.heap.collapse(3, kRest)).units;
  EXPECT_EQ(all, 8u);
}

TEST(Collapse, OnlyWhereAllPagesLieOnOneNode) {
  TouchedWorld w;
  MSpan* span = w.alloc(6 * MiB, 0);
  // A border at a unit: its first page is both threads'.
  w.touch(span, 0, 0, kHugeSize + kOsPageSize);
  w.touch(span, 1, kHugeSize + kOsPageSize, 2 * kHugeSize);
  // A border elsewhere.
  w.touch(span, 1, 2 * kHugeSize, 2 * kHugeSize + 8 * kOsPageSize);
  w.touch(span, 0, 2 * kHugeSize + 8 * kOsPageSize);
  EXPECT_EQ(w.rest_and_collapse().units, 2u);
  EXPECT_TRUE(w.is_huge(span, 0) && w.is_huge(span, kHugeSize));
  EXPECT_EQ(w.node_at(span, kHugeSize), NodeId(1));
  EXPECT_FALSE(w.is_huge(span, 2 * kHugeSize));
  EXPECT_EQ(w.node_at(span, 2 * kHugeSize), NodeId(1));
  const std::uint64_t asked = w.os.calls(FakeCall::kNodesOf);
  EXPECT_EQ(w.rest_and_collapse().units, 0u);
  EXPECT_EQ(w.os.calls(FakeCall::kNodesOf), asked) << "not asked for again";
}

TEST(Collapse, WaitsForPagesThatAreStillMissing) {
  TouchedWorld w;
  MSpan* span = w.alloc(6 * MiB, 0);
  w.touch(span, 0, 0, kHugeSize - kOsPageSize);
  EXPECT_EQ(w.rest_and_collapse().units, 0u);
  EXPECT_EQ(w.existing(span), kHugeSize - kOsPageSize) << "nothing is filled up";
  w.touch(span, 0, kHugeSize - kOsPageSize, kHugeSize);
  EXPECT_EQ(w.heap.collapse(kMany, kRest).wait, kRest) << "it begins to rest anew";
  EXPECT_EQ(w.rest_and_collapse().units, 1u);
  // Memory that nobody fills is not looked at for ever.
  unsigned looks = 0;
  for (; w.heap.may_collapse() && looks < kMany; looks++) w.rest_and_collapse();
  EXPECT_LT(looks, 100u);
  MSpan* next = w.alloc(6 * MiB, 0);
  EXPECT_TRUE(w.heap.may_collapse()) << "until there is something new";
  w.heap.free_span(next);
}

TEST(Collapse, NotWhatIsFree) {
  TouchedWorld w;
  MSpan* span = w.alloc(6 * MiB, 0);
  w.touch(span, 0);
  w.heap.free_span(span);
  EXPECT_EQ(w.rest_and_collapse().units, 0u);
}

TEST(Collapse, NotBesideAChild) {
  HeapWorldConfig c = machine(1);
  c.os.has_children = true;
  TouchedWorld parent(c);
  parent.touch(parent.alloc(6 * MiB, 0), 0);
  const MHeap::Collapsed done = parent.rest_and_collapse();
  EXPECT_EQ(done.units, 0u);
  EXPECT_EQ(done.wait, kRest) << "it may be gone by then";
  parent.heap.repair_after_fork();
  EXPECT_FALSE(parent.heap.may_collapse()) << "what a child has it shares";
}

TEST(Collapse, GivesUpWhereItIsRefused) {
  TouchedWorld w;
  w.touch(w.alloc(64 * MiB, 0), 0);
  w.os.fail_all(FakeCall::kCollapse, EINVAL);
  EXPECT_EQ(w.rest_and_collapse().units, 0u);
  EXPECT_LT(w.os.calls(FakeCall::kCollapse), 10u);
  w.os.clear_failures();
  w.touch(w.alloc(8 * MiB, 0), 0);
  EXPECT_FALSE(w.heap.may_collapse()) << "for good";
}

TEST(Collapse, AsksAFullNodeAgain) {
  TouchedWorld full;
  MSpan* span = full.alloc(8 * MiB, 0);
  full.touch(span, 0);
  full.os.fail_all(FakeCall::kCollapse, ENOMEM);
  EXPECT_EQ(full.rest_and_collapse().units, 0u);
  full.os.clear_failures();
  EXPECT_EQ(full.rest_and_collapse().units, 4u) ;
}

TEST(Collapse, NotWhereTheMachineHasNoTransparentHugePages) {
  TouchedWorld never(machine(0));
  never.touch(never.alloc(8 * MiB, 0), 0);
  EXPECT_EQ(never.rest_and_collapse().units, 0u);
  EXPECT_FALSE(never.heap.may_collapse());
}

TEST(Collapse, NotWhereHugePagesAreNotWanted) {
  HeapWorldConfig c = machine(1);
  c.heap.backing.huge_pages = HugePagesOption::kOff;
  TouchedWorld off(c);
  off.touch(off.alloc(8 * MiB, 0), 0);
  EXPECT_FALSE(off.heap.may_collapse());
}

TEST(Collapse, AnOldKernelIsAdvised) {
  TouchedWorld w;
  MSpan* span = w.alloc(8 * MiB, 0);
  w.touch(span, 0);
  w.os.fail_all(FakeCall::kCollapse, ENOSYS);
  const std::uint64_t advised = w.os.calls(FakeCall::kAdviseThp);
  EXPECT_EQ(w.rest_and_collapse().units, 4u);
  EXPECT_EQ(w.os.calls(FakeCall::kAdviseThp) - advised, 4u);
  // The advice goes with the memory.
  w.os.clear_failures();
  w.heap.free_span(span);
  w.heap.scavenge(SIZE_MAX, 0);
  span = w.alloc(8 * MiB, 0);
  w.touch(span, 0, 0, kOsPageSize);
  EXPECT_EQ(w.existing(span), kOsPageSize);
}

TEST(Collapse, OneStepAfterTheOtherUnderAScavenger) {
  TouchedWorld w;
  Scavenger scavenger;
  scavenger.init(1000, w.os.ops().now_ns());
  w.touch(w.alloc(32 * MiB, 0), 0);
  std::uint64_t slept = 0;
  unsigned steps = 0;
  for (; steps < kMany; steps++) {
    const Scavenger::Step step = scavenger.step(w.heap, false);
    if (step.wait_ns == 0) break;
    w.os.advance_ns(step.wait_ns);
    slept += step.wait_ns;
  }
  EXPECT_EQ(w.heap.stats().thp_bytes, 32 * MiB);
  EXPECT_GE(slept, 1'000'000'000u) << "a rest";
  EXPECT_LT(slept, 4'000'000'000u);
  EXPECT_LT(steps, 20u);
}

}  // namespace
}  // namespace nh::test
