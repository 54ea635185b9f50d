// What the caches promise in every mode: included by the test program of each mode, which defines kMode first.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cache/cache_world.h"

namespace nh::test {
namespace {

CacheWorldConfig world(unsigned heaps = 1, std::size_t bytes_per_cpu = 2 * MiB) {
  return {.mode = kMode, .heaps = heaps, .bytes_per_cpu = bytes_per_cpu};
}

class Pinned : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!pin(0)) GTEST_SKIP() << "may not choose a CPU";
  }
  void TearDown() override { unpin(); }
};
class Caches : public Pinned {};

TEST_F(Caches, EverySizeComesAndGoes) {
  CacheWorld w(world());
  ASSERT_TRUE(w.ok);
  for (std::size_t size = 0; size <= kMaxSmallSize; size += size < 300 ? 1 : 111) {
    void* p = w.alloc(size);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(is_aligned(address(p), 16));
    EXPECT_EQ(entry_class(w.central.space.entry(p)), class_for(size));
    w.free(p);
    EXPECT_EQ(mark_word(p), free_mark(p));
  }
  EXPECT_EQ(w.audit(0), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_EQ(w.errors, 0);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST_F(Caches, ManyOfEachClass) {
  CacheWorld w(world());
  for (unsigned c = 2; c < kSizeClasses; c++) {
    const std::size_t size = kSizeClassTable[c].bytes;
    if (size % 16 != 0) continue;
    std::vector<void*> live;
    for (std::size_t i = 0; i < 3 * MiB / size && i < 5000; i++) live.push_back(w.alloc(size));
    for (void* p : live) w.free(p);
    ASSERT_EQ(w.audit(0), "") << size;
    for (void*& p : live) p = w.alloc(size);
    for (std::size_t i = live.size(); i-- > 0;) w.free(live[i]);
    ASSERT_EQ(w.audit(0), "") << size;
  }
  EXPECT_EQ(w.errors, 0);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
}

TEST_F(Caches, AWarmLoopNeedsNoMCentral) {
  for (const std::size_t size : {std::size_t{16}, std::size_t{64}, std::size_t{128}, std::size_t{144}, std::size_t{2048}}) {
    CacheWorld w(world());
    auto round = [&] {
      std::vector<void*> live;
      for (int i = 0; i < 100; i++) live.push_back(w.alloc(size));
      for (void* p : live) w.free(p);
    };
    for (int i = 0; i < 30; i++) round();
    std::uint64_t sums[1];
    const CpuCaches::Totals before = w.caches.totals(sums);
    for (int i = 0; i < 200; i++) round();
    const CpuCaches::Totals after = w.caches.totals(sums);
    EXPECT_EQ(after.refills, before.refills) << size;
    EXPECT_EQ(after.flushes, before.flushes) << size;
  }
}

TEST_F(Caches, TheLimitIsKept) {
  for (const std::size_t limit : {64 * KiB, 300 * KiB, 2 * MiB}) {
    CacheWorld w(world(1, limit));
    for (int round = 0; round < 3; round++) {
      for (unsigned c = 2; c < kSizeClasses; c++) {
        std::vector<void*> live;
        for (int i = 0; i < 300; i++) live.push_back(w.alloc(kSizeClassTable[c].bytes));
        for (void* p : live) w.free(p);
        ASSERT_EQ(w.audit(0), "") << "limit " << limit;
      }
    }
    std::uint64_t sums[1];
    EXPECT_LE(w.caches.totals(sums).cached_bytes, limit);
    EXPECT_GT(w.caches.totals(sums).cached_bytes, 0u);
    w.empty();
    EXPECT_EQ(w.spans(), 0u);
  }
}

TEST_F(Caches, DrainEmptiesACpu) {
  CacheWorld w(world());
  std::vector<void*> live;
  for (int i = 0; i < 1000; i++) live.push_back(w.alloc(200));
  for (void* p : live) w.free(p);
  std::uint64_t sums[1];
  EXPECT_GT(w.caches.totals(sums).cached_bytes, 0u);
  ASSERT_TRUE(w.caches.drain(CpuId(0)));
  EXPECT_EQ(w.caches.totals(sums).cached_bytes, 0u);
  EXPECT_EQ(w.audit(0), "");
  w.free(w.alloc(200));
  EXPECT_GT(w.caches.totals(sums).cached_bytes, 0u) << "and goes on afterwards";
}

// An object that reads as zero comes alone, and only where the list has none.
TEST_F(Caches, UntouchedObjects) {
  CacheWorld w(world());
  const SpanClass c = class_for(8192);
  bool untouched = false;
  void* p = w.caches.alloc(c, &untouched);
  ASSERT_NE(p, nullptr);
  EXPECT_TRUE(untouched);
  EXPECT_EQ(mark_word(p), 0u);
  mark_word(p) = free_mark(p);
  w.caches.free(p, c, HeapId(0));
  untouched = false;
  EXPECT_EQ(w.caches.alloc(c, &untouched), p) << "from the list";
  EXPECT_FALSE(untouched);
  EXPECT_TRUE(w.central.heaps.check());
}

// ---- two heaps -----------------------------------------------------------------------------------------------------

class TwoHeaps : public Pinned {
 protected:
  void SetUp() override {
    Pinned::SetUp();
    if (possible_cpus() < 2 || !pin(1) || !pin(0)) GTEST_SKIP() << "needs two CPUs";
  }
};

TEST_F(TwoHeaps, MemoryIsOfTheRunningCpusHeap) {
  CacheWorld w(world(2));
  for (int i = 0; i < 300; i++) {
    ASSERT_TRUE(pin(i % 2));
    void* p = w.alloc(100);
    ASSERT_EQ(w.central.space.heap_of(p).value, static_cast<unsigned>(i % 2));
  }
}

TEST_F(TwoHeaps, ObjectsGoHome) {
  CacheWorld w(world(2));
  for (const std::size_t size : {std::size_t{16}, std::size_t{96}, std::size_t{160}, std::size_t{4096}}) {
    const std::uint64_t before = w.central.heaps[HeapId(0)].remote_frees;
    const std::size_t n = size < 1000 ? 5000 : 600;
    ASSERT_TRUE(pin(0));
    std::vector<void*> live;
    for (std::size_t i = 0; i < n; i++) live.push_back(w.alloc(size));
    ASSERT_TRUE(pin(1));
    for (void* p : live) w.free(p);
    EXPECT_EQ(w.audit(0), "");
    // What comes from here now is still this heap's own.
    std::vector<void*> own;
    for (int i = 0; i < 500; i++) {
      own.push_back(w.alloc(size));
      ASSERT_EQ(w.central.space.heap_of(own.back()).value, 1u);
    }
    for (void* p : own) w.free(p);
    w.empty();
    EXPECT_EQ(w.central.heaps[HeapId(0)].remote_frees - before, n);
    EXPECT_EQ(w.central.heaps[HeapId(1)].remote_frees, 0u);
    EXPECT_EQ(w.spans(), 0u);
  }
  EXPECT_EQ(w.errors, 0);
}

TEST_F(TwoHeaps, AFullNodesCpusAreServedByTheOther) {
  CacheWorld w({.mode = kMode, .heaps = 2, .node_bytes = 30 * MiB});
  ASSERT_TRUE(pin(0));
  std::vector<void*> live;
  unsigned foreign = 0;
  for (int i = 0; i < 1400; i++) {
    void* p = w.alloc(32768);
    ASSERT_NE(p, nullptr);
    foreign += w.central.space.heap_of(p).value;
    live.push_back(p);
  }
  EXPECT_GT(foreign, 100u);
  EXPECT_LT(foreign, 1000u);
  while (void* p = w.alloc(32768)) live.push_back(p);  // and in the end nobody has any
  for (void* p : live) w.free(p);
  EXPECT_EQ(w.errors, 0);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_EQ(w.central.space.heap_of(w.alloc(32768)).value, 0u);
}

// While a node is full: not one by one, and not for ever.
TEST_F(TwoHeaps, TheOtherServesInBatchesUntilTheNodeIsAskedAgain) {
  CacheWorld w({.mode = kMode, .heaps = 2, .node_bytes = 30 * MiB});
  ASSERT_TRUE(pin(0));
  const auto heap_of = [&](void* p) { return w.central.space.heap_of(p).value; };
  std::vector<void*> own, foreign;
  for (void* p = nullptr; foreign.size() < 1000;) {
    p = w.alloc(256);
    ASSERT_NE(p, nullptr);
    (heap_of(p) == 0 ? own : foreign).push_back(p);
    ASSERT_LT(own.size(), 200000u);
  }
  const std::uint64_t serves = w.central.heaps[HeapId(1)].foreign_serves;
  EXPECT_LT(serves, 200u) << "for 1000 objects";
  EXPECT_EQ(w.audit(0), "");
  // What is freed of them goes round here.
  void* last = foreign.back();
  w.free(last);
  EXPECT_EQ(w.alloc(256), last);
  // The node has memory again, of which nobody here knows. That is found out when its time is up.
  for (void* p : own) w.free(p);
  w.empty();
  w.central.os.advance_ns(20'000'000);
  own.clear();
  for (int i = 0; i < 200; i++) own.push_back(w.alloc(256));
  EXPECT_EQ(heap_of(own.back()), 0u);
  EXPECT_EQ(w.central.heaps[HeapId(1)].foreign_serves, serves);
  for (void* p : own) w.free(p);
  for (void* p : foreign) w.free(p);
  EXPECT_EQ(w.errors, 0);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
}

TEST_F(TwoHeaps, StrictCachesNeverTakeForeignMemory) {
  CacheWorld w({.mode = kMode, .heaps = 2, .help = Help::kNobody, .node_bytes = 30 * MiB});
  ASSERT_TRUE(pin(0));
  std::vector<void*> live;
  while (void* p = w.alloc(8192)) {
    ASSERT_EQ(w.central.space.heap_of(p).value, 0u);
    live.push_back(p);
    ASSERT_LT(live.size(), 10000u);
  }
  EXPECT_GT(live.size(), 2000u);
  for (void* p : live) w.free(p);
  EXPECT_NE(w.alloc(8192), nullptr);
}

// ---- objects of a heap that the caller chooses ---------------------------------------------------------------------

constexpr std::size_t kPlacedSizes[] = {16, 96, 128, 160, 4096};

TEST_F(TwoHeaps, PlacedObjectsAreOfTheHeapThatWasAskedFor) {
  CacheWorld w(world(2));
  for (int i = 0; i < 2000; i++) {
    ASSERT_TRUE(pin(i % 2));
    for (unsigned h = 0; h < 2; h++) {
      void* p = w.alloc_placed(HeapId(h), kPlacedSizes[i % 5]);
      ASSERT_EQ(w.central.space.heap_of(p).value, h);
      ASSERT_EQ(entry_class(w.central.space.entry(p)), make_placed(class_for(kPlacedSizes[i % 5])));
      ASSERT_TRUE(w.central.space.span_of(p)->placed());
      if (i % 3 != 0) w.free(p);
    }
  }
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(0), "");
}

// Whichever heap they are of: what was freed here is handed out here again, without a word to the mcentral.
TEST_F(TwoHeaps, WarmPlacedObjectsComeFromThisCpusLists) {
  for (const std::size_t size : kPlacedSizes) {
    for (unsigned h = 0; h < 2; h++) {
      CacheWorld w(world(2));
      ASSERT_TRUE(pin(0));
      const std::size_t n = size < 512 ? 60 : 32 * KiB / size;
      auto round = [&] {
        std::vector<void*> live;
        for (std::size_t i = 0; i < n; i++) live.push_back(w.alloc_placed(HeapId(h), size));
        for (void* p : live) w.free(p);
      };
      for (int i = 0; i < 30; i++) round();
      std::uint64_t sums[2];
      const CpuCaches::Totals before = w.caches.totals(sums);
      EXPECT_GE(sums[h], n * size);
      for (int i = 0; i < 200; i++) round();
      const CpuCaches::Totals after = w.caches.totals(sums);
      EXPECT_EQ(after.refills, before.refills) << size << " of heap " << h;
      EXPECT_EQ(after.flushes, before.flushes) << size << " of heap " << h;
    }
  }
}

// Their lists are their own: neither do ordinary objects of the other heap get out here, nor placed ones to malloc().
TEST_F(TwoHeaps, PlacedObjectsAndOthersDoNotMix) {
  CacheWorld w(world(2));
  ASSERT_TRUE(pin(1));
  std::vector<void*> ordinary;
  for (int i = 0; i < 40; i++) ordinary.push_back(w.alloc(96));
  ASSERT_TRUE(pin(0));
  for (void* p : ordinary) w.free(p);
  std::vector<void*> placed;
  for (int i = 0; i < 100; i++) {
    placed.push_back(w.alloc_placed(HeapId(1), 96));
    EXPECT_EQ(std::count(ordinary.begin(), ordinary.end(), placed.back()), 0);
  }
  ASSERT_TRUE(pin(1));
  for (void* p : placed) w.free(p);
  for (int i = 0; i < 300; i++) {
    void* p = w.alloc(96);
    EXPECT_EQ(std::count(placed.begin(), placed.end(), p), 0);
  }
  EXPECT_EQ(w.errors, 0);
}

TEST_F(TwoHeaps, PlacedObjectsGoHome) {
  for (const std::size_t size : kPlacedSizes) {
    CacheWorld w(world(2));
    ASSERT_TRUE(pin(0));
    std::vector<void*> live;
    for (int i = 0; i < 1000; i++) live.push_back(w.alloc_placed(HeapId(1), size));
    EXPECT_EQ(w.audit(0), "") << size;
    for (void* p : live) w.free(p);
    EXPECT_EQ(w.audit(0), "") << size;
    EXPECT_EQ(w.central.heap(0).stats().spans, 1u) << "the one that uses the first unit up";
    w.empty();
    EXPECT_EQ(w.spans(), 0u) << size;
    EXPECT_EQ(w.errors, 0);
    EXPECT_TRUE(w.central.heaps.check());
  }
}

TEST_F(TwoHeaps, OnlyStrictPlacementFailsOnAFullHeap) {
  CacheWorld w({.mode = kMode, .heaps = 2, .node_bytes = 30 * MiB});
  ASSERT_TRUE(pin(0));
  std::vector<void*> live;
  while (void* p = w.alloc_placed(HeapId(1), 8192, Help::kNobody)) {
    ASSERT_EQ(w.central.space.heap_of(p).value, 1u);
    live.push_back(p);
    ASSERT_LT(live.size(), 10000u);
  }
  EXPECT_GT(live.size(), 2000u);
  void* helped = w.alloc_placed(HeapId(1), 8192);
  ASSERT_NE(helped, nullptr);
  EXPECT_EQ(w.central.space.heap_of(helped).value, 0u);
  w.free(live.back());
  live.pop_back();
  void* again = w.alloc_placed(HeapId(1), 8192, Help::kNobody);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(w.central.space.heap_of(again).value, 1u);
  for (void* p : live) w.free(p);
  w.free(helped);
  w.free(again);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_EQ(w.errors, 0);
}

TEST_F(TwoHeaps, PlacedListsKeepTheLimit) {
  CacheWorld w(world(2, 64 * KiB));
  ASSERT_TRUE(pin(0));
  for (int round = 0; round < 3; round++) {
    for (unsigned c = 2; c < kSizeClasses; c++) {
      std::vector<void*> live;
      for (unsigned i = 0; i < 200; i++) live.push_back(w.alloc_placed(HeapId(i % 2), kSizeClassTable[c].bytes));
      for (void* p : live) w.free(p);
      ASSERT_EQ(w.audit(0), "");
    }
    w.free(w.alloc(96));  // and the others get their share
  }
  EXPECT_EQ(w.errors, 0);
}

TEST(Switched, OffMeansNoCaches) {
  CacheWorld w({.mode = CacheMode::kOff, .bytes_per_cpu = 0});
  std::vector<void*> live;
  for (int i = 0; i < 500; i++) live.push_back(i % 2 == 0 ? w.alloc(64) : w.alloc_placed(HeapId(0), 64));
  for (void* p : live) w.free(p);
  std::uint64_t sums[1];
  EXPECT_EQ(w.caches.totals(sums).cached_bytes, 0u);
  EXPECT_EQ(w.errors, 0);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
}

}  // namespace
}  // namespace nh::test
