// Giving memory back: what goes, when, in which order, and that it is zero when it comes back.
#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "heap/heap_world.h"
#include "heap/scavenger.h"

namespace nh::test {
namespace {

// 16 objects of 2 MiB above the small unit, all freed.
class Scavenge : public ::testing::TestWithParam<std::size_t> {  // huge pages in the pool
 protected:
  Scavenge() : w_(node_heap({FakeNode{.pages_2m = GetParam()}, FakeNode{}})) {
    EXPECT_TRUE(w_.set_up());
    MSpan* first = w_.heap.alloc_large(kHugeSize, kPageSize, false);  // the small unit
    for (int i = 0; i < 16; i++) {
      spans_.push_back(w_.heap.alloc_large(kHugeSize, kHugeSize, false));
      fill(spans_.back(), 77);
    }
    keep_ = first;
  }
  MSpan* free_all_but_one() {
    MSpan* last = spans_.back();
    spans_.pop_back();
    free_all();
    return last;
  }
  void free_all() {
    for (MSpan* span : spans_) {
      starts_.push_back(start_of(span));
      w_.heap.free_span(span);
    }
  }
  std::size_t on_machine() { return w_.os.hugetlb_bytes() + w_.os.bytes_on(NodeId(0), false); }
  bool is_backed(std::size_t i) { return w_.os.backing_of(starts_[i]) != Backing::kNone; }
  HeapWorld w_;
  MSpan* keep_;
  std::vector<MSpan*> spans_;
  std::vector<char*> starts_;
};
INSTANTIATE_TEST_SUITE_P(Pool, Scavenge, ::testing::Values(0, 9, 100));

TEST_P(Scavenge, HighestAddressesFirst) {
  free_all();
  for (std::size_t n = 1; n <= 16; n++) {
    ASSERT_EQ(w_.heap.scavenge(kHugeSize, 0), kHugeSize);
    for (std::size_t i = 0; i < 16; i++) ASSERT_EQ(is_backed(i), i < 16 - n) << i << " after " << n;
    ASSERT_TRUE(w_.heap.check());
  }
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 0), 0u) << "nothing is left";
  EXPECT_EQ(w_.heap.stats().released_bytes, 16 * kHugeSize);
}

TEST_P(Scavenge, NotMoreThanAskedFor) {
  free_all();
  const std::size_t before = w_.heap.committed();
  EXPECT_EQ(w_.heap.scavenge(5 * kHugeSize - 1, 0), 5 * kHugeSize) << "in whole units";
  EXPECT_EQ(w_.heap.committed(), before - 5 * kHugeSize);
}

TEST_P(Scavenge, OnlyWhatIsWhollyFree) {
  MSpan* guard = w_.heap.alloc_span(class_with_pages(1), CpuId(0));
  fill(guard, 5);
  free_all();
  MSpan* inside = w_.heap.alloc_large(kPageSize, 16 * kHugeSize, false);
  fill(inside, 6);
  w_.heap.scavenge(SIZE_MAX, 0);
  EXPECT_TRUE(holds(guard, 5, 1));
  EXPECT_TRUE(holds(inside, 6, 1));
  EXPECT_TRUE(w_.heap.check());
  w_.heap.free_span(inside);
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 0), kHugeSize);
}

TEST_P(Scavenge, WhatComesBackIsZeroAndSaysSo) {
  free_all();
  w_.heap.scavenge(SIZE_MAX, 0);
  for (int i = 0; i < 16; i++) {
    MSpan* span = w_.heap.alloc_large(kHugeSize, kHugeSize, false);
    EXPECT_FALSE(span->need_zero);
    EXPECT_TRUE(reads_zero(span));
  }
}

TEST_P(Scavenge, WhatWasNotReleasedSaysThatItNeedsZeroing) {
  free_all();
  MSpan* span = w_.heap.alloc_large(4 * kHugeSize, kHugeSize, false);
  EXPECT_TRUE(span->need_zero);
  EXPECT_FALSE(reads_zero(span));
}

TEST_P(Scavenge, ARefusedReleaseChangesNothing) {
  w_.os.fail_all(FakeCall::kDiscard, EINVAL);
  w_.os.fail_all(FakeCall::kUnmap, ENOMEM);
  free_all();
  const std::size_t before = w_.heap.committed();
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 0), 0u);
  EXPECT_EQ(w_.heap.committed(), before);
  EXPECT_TRUE(w_.heap.check());
  EXPECT_TRUE(w_.heap.alloc_large(kHugeSize, kHugeSize, false)->need_zero);
  w_.os.clear_failures();
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 0), 15 * kHugeSize);
}

TEST_P(Scavenge, MemoryMustHaveBeenIdle) {
  w_.heap.set_tick(10);
  free_all();
  w_.heap.set_tick(13);
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 4), 0u);
  MSpan* again = w_.heap.alloc_large(kPageSize, kHugeSize, false);  // touches the lowest unit anew
  w_.heap.free_span(again);
  w_.heap.set_tick(14);
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 4), 15 * kHugeSize);
  EXPECT_TRUE(is_backed(0));
  w_.heap.set_tick(17);
  EXPECT_EQ(w_.heap.scavenge(SIZE_MAX, 4), kHugeSize);
}

TEST_P(Scavenge, PageCachesHoldBackNothingAfterAFlush) {
  std::vector<MSpan*> small;
  for (int i = 0; i < 200; i++) small.push_back(w_.heap.alloc_span(class_with_pages(2), CpuId(i % 4)));
  for (MSpan* span : small) w_.heap.free_span(span);
  free_all();
  w_.heap.free_span(keep_);
  w_.heap.flush_page_caches();
  w_.heap.scavenge(SIZE_MAX, 0);
  EXPECT_EQ(w_.heap.committed(), 0u);
  EXPECT_EQ(on_machine(), 0u);
  EXPECT_TRUE(w_.heap.check());
}

// ---- the pace ------------------------------------------------------------------------------------------------------

constexpr std::uint64_t kMs = 1'000'000;

TEST_P(Scavenge, TheDelayIsKept) {
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  free_all();
  std::uint64_t waited = 0;
  for (;;) {
    const Scavenger::Step step = s.step(w_.heap, false);
    if (step.released != 0) break;
    ASSERT_GT(step.wait_ns, 0u) << "there is something to wait for";
    w_.os.advance_ns(step.wait_ns);
    waited += step.wait_ns;
    ASSERT_LT(waited, 3000 * kMs);
  }
  EXPECT_GE(waited, 750 * kMs) << "a quarter of the delay is the clock's grain";
  EXPECT_LE(waited, 1250 * kMs);
}

// Nobody kept the clock while there was nothing to do: what was freed meanwhile carries an old stamp.
TEST_P(Scavenge, TheDelayIsKeptAfterASleepWithoutEnd) {
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  w_.os.advance_ns(3600 * 1000 * kMs);
  free_all();
  EXPECT_EQ(s.step(w_.heap, false).released, 0u);
  w_.os.advance_ns(700 * kMs);
  EXPECT_FALSE(s.look(w_.heap));
  EXPECT_EQ(s.step(w_.heap, false).released, 0u);
  w_.os.advance_ns(600 * kMs);
  EXPECT_TRUE(s.look(w_.heap));
  EXPECT_NE(s.step(w_.heap, false).released, 0u);
}

// What is freed while nobody looks counts as freed at the next look: it goes late rather than early.
TEST_P(Scavenge, WhatIsFreedDuringASleepIsNotTakenForOld) {
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  MSpan* late = free_all_but_one();
  const Scavenger::Step sleep = s.step(w_.heap, false);
  ASSERT_GE(sleep.wait_ns, 750 * kMs);
  w_.os.advance_ns(sleep.wait_ns - 10 * kMs);
  w_.heap.free_span(late);
  w_.os.advance_ns(10 * kMs);
  std::size_t released = 0;
  std::uint64_t since = 0;
  for (int i = 0; i < 100 && released < 16 * kHugeSize; i++) {
    const Scavenger::Step step = s.step(w_.heap, false);
    released += step.released;
    if (since < 750 * kMs) {
      ASSERT_LE(released, 15 * kHugeSize) << "after " << since / kMs << " ms";
    }
    w_.os.advance_ns(step.wait_ns);
    since += step.wait_ns;
  }
  EXPECT_EQ(released, 16 * kHugeSize);
  EXPECT_LE(since, 2250 * kMs);
}

// The program's own threads come by when they happen to free something.
TEST_P(Scavenge, AfterALateLookOldMemoryGoesAtOnceAndNewMemoryLater) {
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  MSpan* late = free_all_but_one();
  s.step(w_.heap, false);
  w_.os.advance_ns(3600 * 1000 * kMs);
  w_.heap.free_span(late);
  std::size_t released = 0;
  for (int i = 0; i < 5; i++) {
    released += s.step(w_.heap, false).released;
    w_.os.advance_ns(100 * kMs);
  }
  EXPECT_EQ(released, 15 * kHugeSize);
  w_.os.advance_ns(750 * kMs);
  EXPECT_EQ(s.step(w_.heap, false).released, kHugeSize);
}

// Between two looks there is nothing to do, and a look is only worth while when something has become old.
TEST_P(Scavenge, NoLookBeforeSomethingIsOldEnough) {
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  free_all();
  unsigned looks = 0;
  for (;; looks++) {
    const Scavenger::Step step = s.step(w_.heap, false);
    if (step.released != 0) break;
    w_.os.advance_ns(step.wait_ns);
  }
  EXPECT_LE(looks, 2u);
}

TEST_P(Scavenge, WhatCannotBeReleasedIsNotTriedAllTheTime) {
  w_.os.fail_all(FakeCall::kDiscard, EINVAL);
  w_.os.fail_all(FakeCall::kUnmap, ENOMEM);
  Scavenger s;
  s.init(1000, 0);
  s.step(w_.heap, false);
  free_all();
  w_.os.advance_ns(5000 * kMs);
  s.step(w_.heap, false);
  w_.os.advance_ns(5000 * kMs);
  const Scavenger::Step step = s.step(w_.heap, false);
  EXPECT_EQ(step.released, 0u);
  EXPECT_GE(step.wait_ns, 750 * kMs);
}

TEST(Scavenger, TicksMayWrapAround) {
  constexpr std::uint64_t kTick = 10 * kMs;
  for (const std::uint64_t before : {1, 3, 100}) {
    HeapWorld w;
    ASSERT_TRUE(w.set_up());
    Scavenger s;
    s.init(40, w.os.ops().now_ns());
    w.os.advance_ns(((std::uint64_t{1} << 32) - before) * kTick);
    s.step(w.heap, false);
    MSpan* span = w.heap.alloc_large(4 * kHugeSize, kHugeSize, false);
    w.heap.free_span(span);
    std::uint64_t waited = 0;
    for (;;) {
      const Scavenger::Step step = s.step(w.heap, false);
      if (step.released != 0) break;
      ASSERT_GT(step.wait_ns, 0u);
      w.os.advance_ns(step.wait_ns);
      waited += step.wait_ns;
      ASSERT_LT(waited, 100 * kTick);
    }
    EXPECT_GE(waited, 3 * kTick);
    EXPECT_LE(waited, 6 * kTick);
  }
}

TEST(Scavenger, FreePagesOfWhichNoUnitConsistsLetItSleep) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> spans;
  for (int i = 0; i < 32; i++) spans.push_back(w.heap.alloc_large(kHugeSize / 2, kPageSize, false));
  for (std::size_t i = 0; i < spans.size(); i += 2) w.heap.free_span(spans[i]);
  ASSERT_GE(w.heap.idle_bytes(), 8 * kHugeSize);
  Scavenger s;
  s.init(1000, 0);
  EXPECT_EQ(s.step(w.heap, false).wait_ns, 0u);
}

TEST_P(Scavenge, SlicesUntilAllIsGone) {
  Scavenger s;
  s.init(100, 0);
  s.step(w_.heap, false);
  free_all();
  w_.os.advance_ns(200 * kMs);
  std::size_t released = 0;
  for (int i = 0; i < 20; i++) {
    const Scavenger::Step step = s.step(w_.heap, false);
    EXPECT_LE(step.released, Scavenger::kSlice);
    released += step.released;
    w_.os.advance_ns(step.wait_ns);
  }
  EXPECT_EQ(released, 16 * kHugeSize);
}

TEST_P(Scavenge, NearTheLimitNothingIsWaitedFor) {
  Scavenger s;
  s.init(60'000, 0);
  free_all();
  EXPECT_EQ(s.step(w_.heap, true).released, 16 * kHugeSize);
}

TEST(Scavenger, AHeapWithoutIdleMemoryLetsItSleep) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  Scavenger s;
  s.init(1000, 0);
  EXPECT_EQ(s.step(w.heap, false).wait_ns, 0u);
}

}  // namespace
}  // namespace nh::test
