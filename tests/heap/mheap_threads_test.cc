// Several threads in one heap, and a fork child that finds it as another thread left it.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "heap/heap_world.h"

namespace nh::test {
namespace {

void traffic(const HeapWorldConfig& config, bool may_refuse) {
  HeapWorld w(config);
  ASSERT_TRUE(w.set_up());
  constexpr int kThreads = 4;
  std::atomic<int> errors{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<std::pair<MSpan*, std::uint64_t>> live;
      for (std::uint64_t step = 1; step <= 700; step++) {
        const unsigned action = random() % 10;
        if (action < 5) {
          MSpan* span = action < 4 ? w.heap.alloc_span(class_with_pages(1 + random() % 16), CpuId(t % 2))
                                   : w.heap.alloc_large(1 + random() % (5 * MiB), kPageSize, false);
          if (span == nullptr) {
            errors += !may_refuse;
            continue;
          }
          errors += !span->need_zero && !reads_zero(span);
          live.emplace_back(span, static_cast<std::uint64_t>(t) << 60 | step << 20);
          fill(span, live.back().second);
        } else if (action < 9 && !live.empty()) {
          std::swap(live[random() % live.size()], live.back());
          errors += !holds(live.back().first, live.back().second, live.back().first->npages);
          w.heap.free_span(live.back().first);
          live.pop_back();
        } else if (!live.empty() && live.back().first->span_class == kLargeClass) {
          auto [span, value] = live.back();
          const std::size_t old = span->npages;
          w.heap.resize_large(span, 1 + random() % (6 * MiB));
          errors += !holds(span, value, std::min<std::size_t>(old, span->npages));
          fill(span, value);
        }
      }
      for (auto& [span, value] : live) {
        errors += !holds(span, value, span->npages);
        w.heap.free_span(span);
      }
    });
  }
  std::thread scavenger([&] {
    for (std::uint32_t tick = 1; !stop; tick++) {
      w.heap.set_tick(tick);
      w.heap.scavenge(4 * MiB, tick % 2);
      w.heap.flush_page_caches();
      w.heap.stats();
      std::this_thread::yield();
    }
  });
  for (std::thread& t : threads) t.join();
  stop = true;
  scavenger.join();
  EXPECT_EQ(errors, 0);
  EXPECT_EQ(w.heap.stats().in_use_bytes, 0u);
  EXPECT_TRUE(w.heap.check());
  EXPECT_EQ(w.os.check(), "");
}

TEST(HeapThreads, HugePages) { traffic(node_heap({FakeNode{.pages_2m = 20}}), false); }
TEST(HeapThreads, TwoNodes) { traffic(node_heap({FakeNode{.pages_2m = 5}, FakeNode{}}), false); }
TEST(HeapThreads, ASmallNode) { traffic(node_heap({FakeNode{.memory_bytes = 60 * MiB}, FakeNode{}}), true); }
TEST(HeapThreads, FirstTouch) { traffic(first_touch_heap({FakeNode{.pages_2m = 100}}), false); }

// A lock whose holder does not exist: taken by a thread that has ended.
void abandon(Lock& lock) {
  std::thread([&] { lock.lock(); }).join();
}

TEST(HeapAfterFork, AbandonedLocksAreFreedAndTheHeapWorks) {
  HeapWorld w(node_heap({FakeNode{.pages_2m = 20}}));
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> live;
  for (int i = 0; i < 60; i++) {
    live.push_back(w.heap.alloc_span(class_with_pages(1 + i % 16), CpuId(i % 4)));
    fill(live.back(), 5);
  }
  live.push_back(w.heap.alloc_large(70 * MiB, kPageSize, false));
  fill(live.back(), 5);
  for (std::size_t i = 0; i < live.size(); i += 3) {
    w.heap.free_span(live[i]);
    live[i] = nullptr;
  }
  abandon(w.heap.lock());
  abandon(w.heap.metadata().lock());
  w.heap.repair_after_fork();
  EXPECT_FALSE(w.heap.lock().held());
  EXPECT_TRUE(w.heap.check());
  for (int i = 0; i < 300; i++) {
    MSpan* span = w.heap.alloc_span(class_with_pages(1 + i % 16), CpuId(i % 4));
    ASSERT_NE(span, nullptr);
    fill(span, 6);
  }
  for (MSpan* span : live) {
    if (span == nullptr) continue;
    EXPECT_TRUE(holds(span, 5, span->npages));
    w.heap.free_span(span);
  }
  EXPECT_GT(w.heap.scavenge(SIZE_MAX, 0), 0u);
  EXPECT_TRUE(w.heap.check());
}

// The child's copies of pages that it shares with its parent: whoever writes, they lie on the heap's node.
TEST(MHeap, AForkChildPrefersTheNodeForItsCopies) {
  HeapWorld w(node_heap({FakeNode{.pages_2m = 2}, FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  MSpan* span = w.heap.alloc_large(8 * kHugeSize, kPageSize, false);
  const char* last = start_of(span) + 8 * kHugeSize - kPageSize;
  EXPECT_EQ(w.os.policy_of(last).mode, BindMode::kDefault);
  w.heap.repair_after_fork();
  EXPECT_EQ(w.os.policy_of(last).mode, BindMode::kPreferred);
  EXPECT_EQ(w.os.policy_of(last).nodes, NodeSet::of(NodeId(0)));
  EXPECT_EQ(w.os.policy_of(start_of(span) + kHugeSize).mode, BindMode::kBind) << "a page of the pool";
  EXPECT_TRUE(w.heap.check());
}

// Another thread is in the middle of a call when the process forks; the child does without it. Contents that were there
// stay, what that thread was backing, growing or giving back can be used again, and nobody waits for it. inside: the thread
// that forks holds the heap's lock, since a signal handler forks.
void expect_child_goes_on(const HeapWorldConfig& config, FakeCall call, const std::function<void(HeapWorld&)>& work,
                          bool inside = false) {
  HeapWorld w(config);
  ASSERT_TRUE(w.set_up());
  MSpan* kept = w.heap.alloc_large(5 * MiB + kPageSize, kPageSize, false);
  fill(kept, 5);
  MSpan* freed = w.heap.alloc_large(20 * MiB, kPageSize, false);
  fill(freed, 6);
  w.heap.free_span(freed);
  const auto child = [&] {
    if (inside) w.heap.lock().lock();
    w.heap.repair_after_fork();
    if (inside) w.heap.lock().unlock();
    w.space.repair_after_fork();
    if (!w.heap.check()) return 1;
    if (!holds(kept, 5, kept->npages)) return 2;
    for (int i = 0; i < 100; i++) {
      MSpan* span = i % 10 == 0 ? w.heap.alloc_large(9 * MiB, kPageSize, false)
                                : w.heap.alloc_span(class_with_pages(1 + static_cast<std::size_t>(i) % 16), CpuId(i % 4));
      if (span == nullptr) return 3;
      if (!span->need_zero && !reads_zero(span)) return 4;
      fill(span, 7);
    }
    w.heap.free_span(kept);
    w.heap.flush_page_caches();
    w.heap.scavenge(SIZE_MAX, 0);
    return !w.heap.check() ? 5 : w.os.check().empty() ? 0 : 6;
  };
  EXPECT_EQ(in_child_during(w.os, call, [&] { work(w); }, child), 0);
  EXPECT_TRUE(w.heap.check()) << "the parent";
}

TEST(HeapAfterFork, AnotherThreadWasBackingUnits) {
  const auto allocate = [](HeapWorld& w) { w.heap.alloc_large(50 * MiB, kPageSize, false); };
  const HeapWorldConfig pool = node_heap({FakeNode{.pages_2m = 400}, FakeNode{}}), thp = node_heap({FakeNode{}, FakeNode{}});
  expect_child_goes_on(pool, FakeCall::kPopulate, allocate);
  expect_child_goes_on(thp, FakeCall::kPopulate, allocate);
  expect_child_goes_on(thp, FakeCall::kMapNew, allocate);
  expect_child_goes_on(thp, FakeCall::kAdviseThp, allocate);
  expect_child_goes_on(first_touch_heap({FakeNode{.pages_2m = 400}}), FakeCall::kMapNewHugetlb, allocate);
}

TEST(HeapAfterFork, AnotherThreadWasGrowingTheHeap) {
  const auto allocate = [](HeapWorld& w) { w.heap.alloc_large(500 * MiB, kPageSize, false); };
  const HeapWorldConfig thp = node_heap({FakeNode{}, FakeNode{}});
  for (const FakeCall call : {FakeCall::kIsUnmapped, FakeCall::kMapNew, FakeCall::kBind, FakeCall::kAdviseThp}) {
    expect_child_goes_on(thp, call, allocate);
    expect_child_goes_on(thp, call, allocate, true);
  }
}

TEST(HeapAfterFork, AnotherThreadWasGivingUnitsBack) {
  const auto scavenge = [](HeapWorld& w) { w.heap.scavenge(SIZE_MAX, 0); };
  expect_child_goes_on(node_heap({FakeNode{.pages_2m = 400}}), FakeCall::kDiscard, scavenge);
  expect_child_goes_on(node_heap({FakeNode{}}), FakeCall::kDiscard, scavenge);
  expect_child_goes_on(first_touch_heap({FakeNode{.pages_2m = 400}}), FakeCall::kUnmap, scavenge);
}

TEST(HeapAfterFork, TheForkingThreadsOwnLockIsLeftAlone) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  ASSERT_NE(w.heap.alloc_large(MiB, kPageSize, false), nullptr);
  w.heap.lock().lock();
  w.heap.repair_after_fork();
  EXPECT_TRUE(w.heap.lock().held_by_me());
  w.heap.lock().unlock();
  EXPECT_TRUE(w.heap.check());
}

}  // namespace
}  // namespace nh::test
