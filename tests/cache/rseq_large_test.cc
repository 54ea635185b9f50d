// Large objects that CPUs keep: how many, of which sizes, and that none is lost or handed out twice on the way.
#include <gtest/gtest.h>

#include "cache/cache_world.h"
#include "cache/with_sequences.h"

namespace nh::test {
namespace {

CacheWorldConfig world(unsigned heaps = 1, std::size_t bytes_per_cpu = 4 * MiB) {
  return {.mode = CacheMode::kRseq, .heaps = heaps, .bytes_per_cpu = bytes_per_cpu, .extents = true};
}

class Large : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!pin(0)) GTEST_SKIP() << "may not choose a CPU";
  }
  void TearDown() override { unpin(); }
};

// A list takes an object from now on.
void warm(CacheWorld& w, std::size_t size) {
  for (int i = 0; i < 2; i++) w.free(w.alloc(size));
}
void expect_sound(CacheWorld& w) {
  EXPECT_EQ(w.audit(0), "");
  EXPECT_EQ(w.errors, 0);
  EXPECT_TRUE(w.central.heaps.check());
}

// One of each kind: two bins, one of them with room for several, and two extents.
constexpr std::size_t kSizes[] = {40000, 64 * KiB, MiB, 4 * MiB, 5 * MiB, 32 * MiB};

// ---- what is kept ----------------------------------------------------------------------------------------------------

TEST_F(Large, AListGrowsWhenSomeAreMissedAndSomeTurnedAway) {
  for (const std::size_t size : kSizes) {
    CacheWorld w(world());
    ASSERT_TRUE(w.ok);
    void* first = w.alloc(size);
    void* second = w.alloc(size);
    EXPECT_EQ(w.list_of(size).cap, 0u) << "two were missed, none turned away";
    w.free(first);
    w.free(second);
    EXPECT_EQ(w.list_of(size).cap, 0u) << "two were turned away, none missed since";
    EXPECT_EQ(w.spans(), 0u);
    void* p = w.alloc(size);
    EXPECT_EQ(w.list_of(size).cap, 1u);
    w.free(p);
    EXPECT_EQ(w.spans(), 1u) << "kept";
    EXPECT_EQ(w.list_of(size).count(), 1u);
    for (int i = 0; i < 10; i++) {
      EXPECT_EQ(w.alloc(size), p);
      w.free(p);
    }
    EXPECT_EQ(w.spans(), 1u);
    expect_sound(w);
  }
}

TEST_F(Large, EveryGrowthNeedsAnObjectThatWasTurnedAway) {
  CacheWorld w(world());
  warm(w, 64 * KiB);
  std::vector<void*> live;
  for (int i = 0; i < 10; i++) live.push_back(w.alloc(64 * KiB));
  EXPECT_EQ(w.list_of(64 * KiB).cap, 1u) << "nobody has freed any";
  for (void* p : live) w.free(p);
  EXPECT_EQ(w.spans(), 1u);
  for (void*& p : live) p = w.alloc(64 * KiB);
  EXPECT_EQ(w.list_of(64 * KiB).cap, 2u);
  for (void* p : live) w.free(p);
  expect_sound(w);
}

TEST_F(Large, AListHolds256KiBOrOneObject) {
  CacheWorld w(world());
  for (const std::size_t size : kSizes) {
    for (int round = 0; round < 12; round++) {
      std::vector<void*> live;
      for (int i = 0; i < 8; i++) live.push_back(w.alloc(size));
      for (void* p : live) w.free(p);
    }
    const std::size_t bytes = size <= kMaxBinBytes ? size_class(bin_class(size, false)).bytes : size;
    EXPECT_EQ(w.list_of(size).cap, bytes < 256 * KiB ? 256 * KiB / bytes : 1) << size;
    EXPECT_EQ(w.list_of(size).count(), w.list_of(size).cap);
    expect_sound(w);
    w.caches.drain_large();  // or the 32 MiB would find no capacity
  }
}

TEST_F(Large, ObjectsThatHoldPointersStayApart) {
  CacheWorld w(world());
  warm(w, MiB);
  void* noscan = w.alloc(MiB, true);
  EXPECT_NE(w.list_of(MiB).head, nullptr);
  EXPECT_TRUE(w.central.space.span_of(noscan)->noscan());
  w.free(noscan);
  w.free(w.alloc(MiB, true));
  EXPECT_NE(w.list_of(MiB, 0, true).head, nullptr);
  EXPECT_FALSE(w.central.space.span_of(w.list_of(MiB).head)->noscan());
  EXPECT_TRUE(w.central.space.span_of(w.list_of(MiB, 0, true).head)->noscan());
  expect_sound(w);
}

TEST_F(Large, WhatIsTooLargeIsNotKept) {
  CacheWorld w(world());
  for (int i = 0; i < 4; i++) {
    w.free(w.alloc(33 * MiB));
    EXPECT_EQ(w.spans(), 0u);
  }
  expect_sound(w);
}

// ---- the limit -------------------------------------------------------------------------------------------------------

TEST_F(Large, ACpuKeepsAtMost16TimesItsLimit) {
  for (const std::size_t limit : {64 * KiB, 256 * KiB, 2 * MiB}) {
    CacheWorld w(world(1, limit));
    for (int round = 0; round < 3; round++) {
      for (std::size_t size = 40000; size <= 32 * MiB; size += size / 3) {
        warm(w, size);
        ASSERT_EQ(w.audit(0), "") << size;
        std::uint64_t kept = 0;
        for (const HeapId h : {HeapId(0), w.extent_heap()}) kept += w.caches.kept_large(h).bytes;
        ASSERT_LE(kept, 16 * limit);
      }
    }
    expect_sound(w);
    w.empty();
    EXPECT_EQ(w.spans(), 0u);
  }
}

TEST_F(Large, CapacityThatLiesIdleGoesToOtherSizes) {
  CacheWorld w(world(1, 512 * KiB));
  warm(w, 4 * MiB);
  EXPECT_EQ(w.list_of(4 * MiB).cap, 1u) << "all that there is";
  warm(w, MiB);
  EXPECT_EQ(w.list_of(MiB).cap, 0u) << "it is in use";
  EXPECT_EQ(w.list_of(4 * MiB).count(), 1u);
  void* out = w.alloc(4 * MiB);
  w.free(w.alloc(MiB));
  EXPECT_EQ(w.list_of(4 * MiB).cap, 0u);
  EXPECT_EQ(w.list_of(MiB).cap, 1u);
  w.free(out);
  EXPECT_EQ(w.spans(), 1u);
  expect_sound(w);
}

TEST_F(Large, AListDoesNotTakeItsOwnCapacity) {
  CacheWorld w(world(1, 24 * KiB));
  std::vector<void*> live(6);
  for (int round = 0; round < 10; round++) {
    for (void*& p : live) p = w.alloc(64 * KiB);
    EXPECT_EQ(w.list_of(64 * KiB).cap, round < 3 ? round : 3) << "192 KiB are three of them";
    for (void* p : live) w.free(p);
  }
  expect_sound(w);
}

// ---- rooms that are wrong --------------------------------------------------------------------------------------------

TEST_F(Large, AnEmptyListsRoomIsPutRight) {
  for (const std::size_t size : {MiB, 8 * MiB}) {
    CacheWorld w(world());
    warm(w, size);
    void* p = w.alloc(size);
    for (const unsigned wrong : {0u, 3u}) {
      w.list_of(size).room = wrong;  // a push, or pops, that were cut short
      w.free(w.alloc(size));
      EXPECT_EQ(w.list_of(size).cap, 1u);
      EXPECT_EQ(w.list_of(size).room, 0u) << wrong;
      EXPECT_EQ(w.spans(), 2u) << "kept, although there was no room";
      void* q = w.alloc(size);
      EXPECT_EQ(w.list_of(size).room, 1u);
      EXPECT_EQ(w.audit(0), "");
      w.free(q);
      ASSERT_EQ(w.alloc(size), q);
      w.list_of(size).room = 1;
      w.free(q);
      q = w.alloc(size);
      w.free(q);
      w.caches.drain_large();
    }
    w.free(p);
    expect_sound(w);
  }
}

// ---- the way home ----------------------------------------------------------------------------------------------------

TEST_F(Large, ADrainSendsEverythingHome) {
  for (const bool all : {true, false}) {
    CacheWorld w(world());
    void* small = w.alloc(100);
    w.free(small);
    std::uint64_t bytes = 0;
    for (const std::size_t size : {std::size_t{40000}, 64 * KiB, MiB, 4 * MiB, 5 * MiB}) {
      warm(w, size);
      bytes += size <= kMaxBinBytes ? size_class(bin_class(size, false)).bytes : align_up(size, kHugeSize);
    }
    const CpuCaches::Kept bins = w.caches.kept_large(HeapId(0)), extents = w.caches.kept_large(w.extent_heap());
    EXPECT_EQ(bins.objects, 4u);
    EXPECT_EQ(extents.objects, 1u);
    EXPECT_EQ(bins.bytes + extents.bytes, bytes);
    EXPECT_EQ(w.spans(), 6u);
    if (all) {
      EXPECT_TRUE(w.caches.drain(CpuId(0)));
    } else {
      EXPECT_TRUE(w.caches.drain_large());
      EXPECT_FALSE(w.caches.drain_large()) << "nothing left";
    }
    std::uint64_t sums[2];
    EXPECT_EQ(w.caches.totals(sums).cached_bytes == 0, all) << "small objects stay where only large ones have to go";
    for (const HeapId h : {HeapId(0), w.extent_heap()}) {
      EXPECT_EQ(w.caches.kept_large(h).objects, 0u);
      EXPECT_EQ(w.central.heaps[h].heap.stats().large_objects, 0u);
      EXPECT_EQ(w.central.heaps[h].heap.stats().large_bytes, 0u);
    }
    w.empty();
    EXPECT_EQ(w.spans(), 0u);
    // And goes on afterwards.
    w.free(w.alloc(MiB));
    EXPECT_EQ(w.spans(), 1u);
    expect_sound(w);
  }
}

TEST_F(Large, AHeapThatGrowsTakesBackWhatIsKeptOfIt) {
  CacheWorld w(world(2, 64 * MiB));
  ASSERT_TRUE(w.ok);
  warm(w, 4 * MiB);
  for (std::size_t size = 6 * MiB; size <= 32 * MiB; size += 2 * MiB) warm(w, size);
  const auto kept = [&](HeapId h) { return w.caches.kept_large(h).objects; };
  ASSERT_EQ(kept(w.extent_heap()), 14u);
  w.caches.drain_large_before_growth(HeapId(1), 100 * MiB);
  EXPECT_EQ(kept(HeapId(0)), 1u) << "nothing that heap 1 could use";
  w.caches.drain_large_before_growth(HeapId(0), 40 * KiB);
  EXPECT_EQ(kept(HeapId(0)), 0u) << "growth is counted in units";
  EXPECT_EQ(kept(w.extent_heap()), 14u) << "nothing of heap 0";
  warm(w, 4 * MiB);
  // 266 MiB may be kept. Only so often: on a machine of many CPUs the look at all of them would outweigh the growth.
  for (int i = 0; i < 2; i++) {
    for (int k = 0; k < 8; k++) w.caches.drain_large_before_growth(w.extent_heap(), 2 * MiB);
    EXPECT_EQ(kept(w.extent_heap()), 14u);
    w.caches.drain_large_before_growth(w.extent_heap(), 2 * MiB);
    EXPECT_EQ(kept(w.extent_heap()), 0u);
    for (std::size_t size = 6 * MiB; size <= 32 * MiB; size += 2 * MiB) warm(w, size);
  }
  EXPECT_EQ(kept(HeapId(0)), 1u);
  expect_sound(w);
}

TEST_F(Large, WithoutFencesNothingIsDrained) {
  CacheWorld w(world());
  warm(w, MiB);
  w.caches.set_fences(false);
  EXPECT_FALSE(w.caches.drain_large());
  EXPECT_EQ(w.caches.kept_large(HeapId(0)).objects, 1u);
}

TEST_F(Large, ObjectsOfAnotherNodeGoStraightHome) {
  if (possible_cpus() < 2 || !pin(1)) GTEST_SKIP() << "needs two CPUs";
  CacheWorld w(world(2));
  for (int i = 0; i < 6; i++) {
    ASSERT_TRUE(pin(0));
    void* p = w.alloc(MiB);
    EXPECT_EQ(w.central.space.heap_of(p).value, 0u);
    ASSERT_TRUE(pin(1));
    w.free(p);
    EXPECT_EQ(w.spans(), 0u);
  }
  // Extents are of no node.
  ASSERT_TRUE(pin(0));
  warm(w, 6 * MiB);
  ASSERT_TRUE(pin(1));
  warm(w, 6 * MiB);
  EXPECT_EQ(w.caches.kept_large(w.extent_heap()).objects, 2u) << "one on each CPU";
  expect_sound(w);
}

// The fallback of a full node: its CPUs do not keep what belongs to the other.
TEST_F(Large, ObjectsFromAnotherNodeAreNotMissed) {
  if (possible_cpus() < 2) GTEST_SKIP() << "needs two CPUs";
  CacheWorldConfig c = world(2);
  c.node_bytes = 24 * MiB;
  CacheWorld w(c);
  std::vector<void*> live;
  while (void* p = w.alloc(3 * MiB)) live.push_back(p);
  unsigned foreign = 0;
  for (int round = 0; round < 3; round++) {
    for (void*& p : live) {
      foreign += w.central.space.heap_of(p).value;
      w.free(p);
    }
    for (void*& p : live) p = w.alloc(3 * MiB);
    EXPECT_EQ(w.audit(0), "");
  }
  EXPECT_GT(foreign, 0u);
  for (void* p : live) w.free(p);
  expect_sound(w);
}

// ---- contents --------------------------------------------------------------------------------------------------------

TEST_F(Large, ExtentsAreNotTouched) {
  CacheWorld w(world());
  auto* p = static_cast<std::uint64_t*>(w.alloc(8 * MiB));
  MSpan* span = w.central.space.span_of(p);
  p[0] = p[1] = p[2] = 4711;
  w.free(p);  // turned away
  EXPECT_EQ(span->use, SpanUse::kNone);
  ASSERT_EQ(w.alloc(8 * MiB), p);
  span = w.central.space.span_of(p);
  span->need_zero = false;
  w.free(p);
  EXPECT_EQ(span->use, SpanUse::kFreed);
  EXPECT_EQ(w.central.space.span_of(p), span) << "the page map still names it";
  EXPECT_EQ(w.alloc(8 * MiB), p);
  EXPECT_EQ(span->use, SpanUse::kInUse);
  EXPECT_TRUE(span->need_zero) << "its last owner wrote to it";
  for (int i = 0; i < 3; i++) EXPECT_EQ(p[i], 4711u);
  w.free(p);
  w.caches.drain_large();
  EXPECT_EQ(span->use, SpanUse::kNone);
  EXPECT_EQ(w.central.space.span_of(p), nullptr);
  expect_sound(w);
}

TEST_F(Large, ExtentsOfOtherSizesAreOtherLists) {
  CacheWorld w(world());
  for (const std::size_t size : {5 * MiB, 7 * MiB}) warm(w, size);
  EXPECT_EQ(w.spans(), 2u);
  auto* p = w.alloc(7 * MiB);
  EXPECT_EQ(w.central.space.span_of(p)->pages().bytes(), 8 * MiB);
  auto* q = w.alloc(4 * MiB + 1);
  EXPECT_EQ(w.central.space.span_of(q)->pages().bytes(), 6 * MiB);
  EXPECT_EQ(w.spans(), 2u);
  expect_sound(w);
}

TEST_F(Large, ADoubleFreeIsSeen) {
  CacheWorld w(world());
  warm(w, MiB);
  void* p = w.alloc(MiB);
  w.free(p);
  EXPECT_EQ(mark_word(p), free_mark(p));
  EXPECT_EQ(mcache_free(p), FreeOutcome::kOdd);
  EXPECT_EQ(mcache_free(static_cast<char*>(p) + 16), FreeOutcome::kOdd) << "interior";
  EXPECT_EQ(mcache_free(static_cast<char*>(p) + kPageSize), FreeOutcome::kOdd) << "its second page";
  void* again = w.alloc(MiB);
  EXPECT_EQ(again, p);
  EXPECT_EQ(mark_word(p), 0u);
  w.free(p);
  // Written to meanwhile: the mark is gone, and the list is full.
  mark_word(p) = 1;
  EXPECT_EQ(mcache_free(p), FreeOutcome::kFull);
  EXPECT_DEATH(w.caches.large_turned_away(*w.central.space.span_of(p)), "double free");
}

// Each of two threads has found the object in use and goes on to free it.
TEST_F(Large, TwoThreadsThatFreeOneExtentAreSeen) {
  CacheWorld w(world());
  warm(w, 8 * MiB);
  void* p = w.alloc(8 * MiB);
  MSpan* span = w.central.space.span_of(p);
  ASSERT_TRUE(mcache_free_extent(span)) << "this CPU keeps it";
  ASSERT_FALSE(mcache_free_extent(span)) << "one is enough";
  EXPECT_DEATH({ w.free_large(span); mcache_take_extent(4); }, "double free.*two threads") << "one kept, one given to the heap";
  EXPECT_DEATH({ w.free_large(span); w.free_large(span); }, "double free.*two threads") << "both given to the heap";
  EXPECT_DEATH({ w.free_large(span); w.caches.drain_large(); }, "double free.*two threads") << "both, in the end";
}

// ---- the real thing --------------------------------------------------------------------------------------------------

void expect_all_home(CacheWorld& w) {
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(200), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST(LargeTraffic, MigrationAndSignalsLoseNothing) {
  CacheWorld w(world(2, 512 * KiB));
  g_signals = 0;
  {
    const Interrupted interrupted(300);
    run_traffic(w, {.threads = 8, .steps = 30000, .migrate = true, .large = true});
  }
  EXPECT_GT(g_signals, 50u);
  expect_all_home(w);
}

TEST(LargeTraffic, DrainedWhileTheyRun) {
  CacheWorld w(world(2, 512 * KiB));
  std::atomic<bool> stop{false};
  std::atomic<unsigned> drained{0};
  std::thread drainer([&] {
    for (unsigned turn = 0; !stop; turn++) {
      drained += w.caches.drain_large();
      if (turn % 8 == 0) w.caches.drain(CpuId(static_cast<int>(turn / 8 % possible_cpus())));
      for (const HeapId h : {HeapId(0), HeapId(1), w.extent_heap()}) w.caches.kept_large(h);
      usleep(50);
    }
  });
  {
    const Interrupted interrupted(500);
    run_traffic(w, {.threads = 8, .steps = 20000, .migrate = true, .large = true});
  }
  stop = true;
  drainer.join();
  EXPECT_GT(drained, 50u);
  expect_all_home(w);
}

}  // namespace
}  // namespace nh::test

int main(int argc, char** argv) { return nh::test::run_with_sequences(argc, argv); }
