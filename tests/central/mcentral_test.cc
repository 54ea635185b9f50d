#include "central/central.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <set>
#include <thread>

#include "central/central_world.h"

namespace nh::test {
namespace {

const CpuId kCpu(0);
const SpanClass kOf1024 = class_for(1024);

std::vector<SpanClass> all_classes() {
  std::vector<SpanClass> out;
  for (unsigned c = 2; c < kCachedClasses; c++) out.push_back(static_cast<SpanClass>(c));
  for (unsigned c = 4; c < kSpanClasses; c++) out.push_back(make_placed(static_cast<SpanClass>(c)));
  return out;
}

class MCentrals : public ::testing::TestWithParam<SpanClass> {
 protected:
  MCentrals() : central_(*w_.heaps.central(HeapId(0), GetParam())) {}
  unsigned batch() const { return batch_objects(GetParam()); }
  std::size_t bytes() const { return size_class(GetParam()).bytes; }
  std::size_t spans() { return w_.heap().stats().spans; }
  // What fetch() hands out must be objects of the class that nobody has.
  std::vector<void*> fetch(unsigned wanted) {
    const Batch b = central_.fetch(wanted, kCpu);
    const std::vector<void*> got = members(b.head);
    EXPECT_EQ(got.size(), b.count);
    for (void* p : got) {
      const MSpan* span = w_.space.span_of(p);
      EXPECT_NE(span, nullptr);
      EXPECT_EQ(span->span_class, GetParam());
      EXPECT_EQ((address(p) - span->start_addr) % bytes(), 0u);
      EXPECT_LE(address(p) + bytes(), span->end_addr());
      EXPECT_TRUE(out_.insert(p).second) << "handed out twice";
    }
    return got;
  }
  void flush(const std::vector<void*>& objects) {
    for (void* p : objects) out_.erase(p);
    EXPECT_EQ(central_.flush(chain(objects), static_cast<unsigned>(objects.size())), objects.size());
  }
  void audit() {
    ASSERT_TRUE(w_.heaps.check());
    const CentralStats s = central_.stats();
    ASSERT_EQ(s.objects_out, out_.size());
  }
  CentralWorld w_;
  Central& central_;
  std::set<void*> out_;
};
INSTANTIATE_TEST_SUITE_P(Class, MCentrals, ::testing::ValuesIn(all_classes()));

TEST_P(MCentrals, LikeASetOfObjects) {
  std::mt19937 random(GetParam().list());
  for (int step = 0; step < 300; step++) {
    const unsigned action = random() % 10;
    if (action < 5 && out_.size() < 40 * batch()) {
      const std::vector<void*> got = fetch(1 + random() % batch());
      ASSERT_FALSE(got.empty());
    } else if (action < 9) {
      // Some objects in a random order, from all spans.
      std::vector<void*> all(out_.begin(), out_.end());
      std::shuffle(all.begin(), all.end(), random);
      all.resize(std::min<std::size_t>(all.size(), 1 + random() % (3 * batch())));
      if (!all.empty()) flush(all);
    } else {
      central_.trim();
    }
    audit();
  }
  flush(std::vector<void*>(out_.begin(), out_.end()));
  central_.trim();
  audit();
  EXPECT_EQ(spans(), 0u) << "all empty spans go back to the heap";
  EXPECT_EQ(central_.stats().objects_transfer, 0u);
}

TEST_P(MCentrals, ABatchTravelsWhole) {
  const std::vector<void*> got = fetch(batch());
  std::vector<void*> whole = got;
  while (whole.size() < batch()) {
    const std::vector<void*> more = fetch(batch() - static_cast<unsigned>(whole.size()));
    whole.insert(whole.end(), more.begin(), more.end());
  }
  flush(whole);
  EXPECT_EQ(central_.stats().objects_transfer, batch());
  EXPECT_EQ(fetch(2), whole) << "as it came, however much was wanted";
  EXPECT_EQ(central_.stats().transfer_hits, 1u);
}

TEST_P(MCentrals, ACountIsAHint) {
  const std::vector<void*> got = fetch(batch());
  for (const unsigned said : {0u, 1u, static_cast<unsigned>(got.size()) + 5, 100000u}) {
    std::vector<void*> mine = got;
    EXPECT_EQ(central_.flush(chain(mine), said), mine.size());
    for (void* p : mine) out_.erase(p);
    central_.trim();
    audit();
    while (out_.size() < got.size()) fetch(static_cast<unsigned>(got.size() - out_.size()));
    std::vector<void*> again(out_.begin(), out_.end());
    flush(again);
    central_.trim();
    audit();
    while (out_.size() < got.size()) fetch(static_cast<unsigned>(got.size() - out_.size()));
    ASSERT_EQ(std::vector<void*>(out_.begin(), out_.end()).size(), got.size());
    std::set<void*> expected(got.begin(), got.end());
    if (out_ != expected) return;  // other addresses: the point was made
  }
}

TEST_P(MCentrals, TheTailOfASpanLooksFree) {
  const std::vector<void*> got = fetch(1);
  const MSpan* span = w_.space.span_of(got[0]);
  const std::uintptr_t tail = span->start_addr + span->nelems * span->elem_size;
  if (tail == span->end_addr()) return;
  void* p = reinterpret_cast<void*>(tail);
  EXPECT_EQ(mark_word(p), free_mark(p));
}

// ---- one class is enough -------------------------------------------------------------------------------------------

TEST(MCentral, EveryClassHasItsOwnPlacedOrNot) {
  std::set<unsigned> seen;
  for (unsigned code = 2; code < kCachedClasses; code++) {
    for (const SpanClass c : {static_cast<SpanClass>(code), make_placed(static_cast<SpanClass>(code))}) {
      EXPECT_LT(central_index(c), 2 * kCachedClasses);
      EXPECT_TRUE(seen.insert(central_index(c)).second) << code;
    }
  }
}

TEST(MCentral, OneEmptySpanStays) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  const unsigned per_span = size_class(kOf1024).objects;
  std::vector<void*> all;
  while (all.size() < 6 * per_span) {
    for (void* p : members(central.fetch(per_span, kCpu).head)) all.push_back(p);
  }
  EXPECT_EQ(central.stats().spans, 6u);
  // One by one, so that nothing stays in the transfer cache.
  for (void* p : all) central.flush(chain({p}), 1);
  EXPECT_EQ(central.stats().spans, 1u);
  EXPECT_EQ(w.heap().stats().spans, 1u);
  EXPECT_TRUE(w.heaps.check());
}

TEST(MCentral, TheTransferCacheIsBounded) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  const unsigned batch = batch_objects(kOf1024);
  std::vector<void*> all;
  while (all.size() < 100 * batch) {
    for (void* p : members(central.fetch(batch, kCpu).head)) all.push_back(p);
  }
  for (std::size_t i = 0; i + batch <= all.size(); i += batch) {
    const auto from = all.begin() + static_cast<std::ptrdiff_t>(i);
    central.flush(chain(std::vector<void*>(from, from + batch)), batch);
  }
  EXPECT_LE(central.stats().objects_transfer * 1024, 128 * KiB);
  EXPECT_GT(central.stats().objects_transfer, 0u);
  EXPECT_TRUE(central.check());
}

// An object that nobody has had yet, on pages that come fresh from the OS, is handed out without being written to.
TEST(MCentral, UntouchedObjects) {
  CentralWorld w;
  const SpanClass c = class_for(8192);
  Central& central = *w.heaps.central(HeapId(0), c);
  auto take = [&](bool* untouched) {
    *untouched = false;
    return central.fetch(2, kCpu, untouched);
  };
  bool untouched;
  const Batch first = take(&untouched);
  EXPECT_TRUE(untouched);
  ASSERT_EQ(first.count, 1u) << "alone, whatever was wanted";
  EXPECT_EQ(mark_word(first.head), 0u);
  // What malloc() takes is no longer untouched once it is back, but what lies behind it is.
  const Batch dirty = central.fetch(2, kCpu);
  ASSERT_EQ(dirty.count, 2u);
  void* const mine = next_object(dirty.head);
  EXPECT_EQ(mark_word(mine), free_mark(mine));
  central.spans().flush(dirty.head);
  const Batch again = take(&untouched);
  EXPECT_FALSE(untouched) << "what was used before is used again first";
  EXPECT_EQ(again.head, dirty.head);
  EXPECT_EQ(again.count, 2u);
  EXPECT_NE(take(&untouched).head, nullptr);
  EXPECT_TRUE(untouched);
  EXPECT_TRUE(w.heaps.check());
}

TEST(MCentral, WhatWasFreedIsNotUntouched) {
  CentralWorld w;
  const SpanClass c = class_for(8192);
  Central& central = *w.heaps.central(HeapId(0), c);
  bool untouched = false;
  void* p = central.fetch(1, kCpu, &untouched).head;
  ASSERT_TRUE(untouched);
  next_object(p) = nullptr;
  central.flush(p, 1);
  untouched = false;
  EXPECT_EQ(central.fetch(1, kCpu, &untouched).head, p);
  EXPECT_FALSE(untouched);
  // Nor are the objects of a span whose pages had another life.
  central.flush(p, 1);
  w.heaps.trim_centrals();
  ASSERT_EQ(w.heap().stats().spans, 0u);
  untouched = false;
  EXPECT_NE(central.fetch(1, kCpu, &untouched).head, nullptr);
  EXPECT_FALSE(untouched);
}

TEST(MCentral, SmallerClassesDoNotKnow) {
  CentralWorld w;
  bool untouched = false;
  EXPECT_EQ(w.heaps.central(HeapId(0), kOf1024)->fetch(4, kCpu, &untouched).count, 4u);
  EXPECT_FALSE(untouched);
}

TEST(MCentral, StartBitsAreZeroInEveryLife) {
  for (const SpanClass c : {kTinyClass, make_span_class(1, true)}) {
    CentralWorld w;
    Central& central = *w.heaps.central(HeapId(0), c);
    for (int life = 0; life < 5; life++) {
      const Batch b = central.fetch(128, kCpu);
      const MSpan* span = w.space.span_of(b.head);
      ASSERT_NE(span->starts, nullptr);
      for (std::size_t i = 0; i < kPageSize / 16; i++) ASSERT_EQ(span->starts[i], 0);
      central.flush(b.head, b.count);
      central.trim();
    }
    EXPECT_LE(w.heap().stats().metadata_bytes, 2 * MiB + 256 * KiB) << "side arrays are used again";
  }
}

using MCentralDeathTest = ::testing::Test;

TEST(MCentralDeathTest, ADoubleFreeIsNamedAndFatal) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  const Batch b = central.fetch(4, kCpu);
  void* p = b.head;
  EXPECT_EXIT(
      {
        central.flush(chain({p}), 1);
        central.flush(chain({p}), 1);
      },
      ::testing::KilledBySignal(SIGABRT),
      "^numaheap: fatal: double free of 0x[0-9a-f]+: object of 1024 bytes in span 0x[0-9a-f]+ \\(class [0-9]+\\) is free "
      "already\n$");
}

TEST(MCentralDeathTest, AForeignPointerInAChainIsFatal) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  Central& other = *w.heaps.central(HeapId(0), class_for(64));
  void* p = other.fetch(1, kCpu).head;
  EXPECT_EXIT(central.flush(chain({p}), 1), ::testing::KilledBySignal(SIGABRT),
              "^numaheap: fatal: free list of objects of 1024 bytes holds 0x[0-9a-f]+: object of 64 bytes in span "
              "0x[0-9a-f]+ \\(class 12\\); a write to a freed object, or a wrong size that was trusted\n$");
  auto* unused = reinterpret_cast<void**>(address(p) + 64 * kPageSize);
  *unused = nullptr;
  EXPECT_EXIT(central.flush(unused, 1), ::testing::KilledBySignal(SIGABRT), "holds 0x[0-9a-f]+, which is no object; ");
}

TEST(MCentral, OutOfMemoryIsAnEmptyBatchAndPasses) {
  CentralWorld w({.nodes = {FakeNode{.memory_bytes = 16 * MiB}, FakeNode{}}});
  Central& central = *w.heaps.central(HeapId(0), class_for(32768));
  std::vector<Batch> got;
  for (;;) {
    got.push_back(central.fetch(2, kCpu));
    if (got.back().count == 0) break;
    ASSERT_LT(got.size(), 1000u);
  }
  got.pop_back();
  EXPECT_GT(got.size(), 100u);
  EXPECT_TRUE(w.heaps.check());
  central.flush(got[0].head, got[0].count);
  EXPECT_NE(central.fetch(1, kCpu).count, 0u);
  // Metadata that cannot be had is no different.
  w.os.set_memory(NodeId(0), GiB);
  w.os.fail_all(FakeCall::kReserve, ENOMEM);
  std::size_t fetched = 0;
  while (fetched < 100000 && central.fetch(2, kCpu).count != 0) fetched++;
  EXPECT_LT(fetched, 100000u);
  w.os.clear_failures();
  EXPECT_NE(central.fetch(1, kCpu).count, 0u);
  EXPECT_TRUE(w.heaps.check());
}

TEST(MCentral, StartBitsThatCannotBeHadGiveTheSpanBack) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kTinyClass);
  w.os.fail_all(FakeCall::kReserve, ENOMEM);
  std::size_t fetched = 0;
  while (central.fetch(128, kCpu).count != 0) ASSERT_LT(fetched++, 100000u);
  EXPECT_TRUE(w.heaps.check());
  EXPECT_EQ(central.stats().spans, w.heap().stats().spans);
}

// A thread that holds the lock does not exist in a fork child.
TEST(MCentral, RepairFindsTheSpansAgain) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  std::vector<void*> mine;
  for (int i = 0; i < 20; i++) {
    for (void* p : members(central.fetch(16, kCpu).head)) mine.push_back(p);
  }
  const std::vector<void*> batch(mine.end() - 16, mine.end());
  mine.resize(mine.size() - 16);
  central.flush(chain(batch), 16);
  ASSERT_EQ(central.stats().objects_transfer, 16u);
  // A span that another thread was about to hand over, its descriptor with a past.
  MSpan* used = w.heap().alloc_span(class_for(64), kCpu);
  used->init_objects(64, 128);
  w.heap().free_span(used);
  MSpan* half_made = nullptr;
  for (int i = 0; half_made != used; i++) {
    ASSERT_LT(i, 100) << "descriptors are used again";
    half_made = w.heap().alloc_span(kOf1024, kCpu);
  }
  std::thread([&] { central.spans().lock().lock(); }).join();
  w.heaps.repair_after_fork();
  EXPECT_FALSE(central.spans().lock().held());
  EXPECT_TRUE(central.check());
  EXPECT_EQ(half_made->set, SpanSet::kNone);
  EXPECT_EQ(central.stats().objects_out, mine.size());
  EXPECT_EQ(central.stats().objects_transfer, 16u) << "nobody was in the transfer cache";
  EXPECT_EQ(members(central.fetch(16, kCpu).head), batch);
  for (void* p : mine) central.flush(chain({p}), 1);
  std::set<void*> fresh;
  for (int i = 0; i < 100; i++) {
    for (void* p : members(central.fetch(16, kCpu).head)) {
      EXPECT_TRUE(fresh.insert(p).second);
      EXPECT_EQ(std::find(batch.begin(), batch.end(), p), batch.end());
    }
  }
  EXPECT_TRUE(central.check());
}

TEST(MCentral, RepairLeavesALockOfTheForkingThreadAlone) {
  CentralWorld w;
  Central& central = *w.heaps.central(HeapId(0), kOf1024);
  central.fetch(16, kCpu);
  for (Lock* lock : {&central.spans().lock(), &central.transfer().lock()}) {
    lock->lock();
    central.repair_after_fork();
    EXPECT_TRUE(lock->held_by_me());
    lock->unlock();
  }
  EXPECT_TRUE(central.check());
}

TEST(MCentral, ThreadsExchangeBatches) {
  CentralWorld w;
  constexpr int kThreads = 4;
  const SpanClass classes[] = {class_for(16), kOf1024, class_for(8192)};
  std::vector<std::thread> threads;
  std::atomic<int> errors{0};
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<void*> mine[3];
      for (int step = 0; step < 3000; step++) {
        const unsigned k = random() % 3;
        Central& central = *w.heaps.central(HeapId(0), classes[k]);
        if (random() % 2 == 0 && mine[k].size() < 600) {
          const Batch b = central.fetch(1 + random() % batch_objects(classes[k]), CpuId(t));
          for (void* p : members(b.head)) {
            mark_word(p) = address(p) ^ static_cast<unsigned>(t);
            mine[k].push_back(p);
          }
        } else if (!mine[k].empty()) {
          std::shuffle(mine[k].begin(), mine[k].end(), random);
          const std::size_t n = std::min<std::size_t>(mine[k].size(), 1 + random() % 300);
          const std::vector<void*> out(mine[k].end() - static_cast<std::ptrdiff_t>(n), mine[k].end());
          mine[k].resize(mine[k].size() - n);
          for (void* p : out) errors += mark_word(p) != (address(p) ^ static_cast<unsigned>(t));
          central.flush(chain(out), static_cast<unsigned>(n));
        }
        if (step % 500 == 0) central.trim();
      }
      for (unsigned k = 0; k < 3; k++) {
        w.heaps.central(HeapId(0), classes[k])->flush(chain(mine[k]), static_cast<unsigned>(mine[k].size()));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(errors, 0) << "an object had two owners";
  EXPECT_TRUE(w.heaps.check());
  w.heaps.trim_centrals();
  EXPECT_EQ(w.heap().stats().spans, 0u);
  EXPECT_TRUE(w.heaps.check());
}

}  // namespace
}  // namespace nh::test
