#include "base/lock.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "support/each_instruction.h"

namespace nh {
namespace {

std::atomic<int> g_waits{0};
std::atomic<int> g_wakes{0};

void futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t expected) {
  g_waits++;
  ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<std::uint32_t>* word) {
  g_wakes++;
  ::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

class LockTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    g_waits = g_wakes = 0;
    set_lock_waiter(GetParam() ? LockWaiter{futex_wait, futex_wake} : LockWaiter{});
  }
  void TearDown() override { set_lock_waiter(LockWaiter{}); }
};

INSTANTIATE_TEST_SUITE_P(Waiters, LockTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Futex" : "Spin"; });

TEST_P(LockTest, OnlyOneThreadIsInside) {
  // The pieces of the counter are plain memory: a lost update or a torn pair shows, and so does a missing fence.
  constexpr int kThreads = 4, kRounds = 20'000;
  Lock lock(LockRank::kHeap);
  std::uint64_t first = 0, second = 0;
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; i++) {
        LockGuard guard(lock);
        if (first != second) torn++;
        first++;
        // Now and then the holder leaves its CPU, so that the others get past spinning.
        if (i % 256 == 0) std::this_thread::yield();
        second++;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(first, std::uint64_t{kThreads * kRounds});
  EXPECT_EQ(second, first);
  EXPECT_FALSE(lock.held());
}

TEST_P(LockTest, TryLockRefusesWhileHeld) {
  Lock lock(LockRank::kHeap);
  ASSERT_TRUE(lock.try_lock());
  EXPECT_TRUE(lock.held_by_me());
  std::thread([&] {
    EXPECT_FALSE(lock.try_lock());
    EXPECT_FALSE(lock.held_by_me());
    EXPECT_TRUE(lock.held());
  }).join();
  lock.unlock();
  EXPECT_FALSE(lock.held());
  EXPECT_FALSE(lock.held_by_me());
}

TEST(Lock, WaitersSleepAndAreWoken) {
  set_lock_waiter(LockWaiter{futex_wait, futex_wake});
  g_waits = g_wakes = 0;
  Lock lock(LockRank::kHeap);
  std::atomic<bool> inside{false};
  lock.lock();
  std::thread waiter([&] {
    LockGuard guard(lock);
    inside = true;
  });
  while (g_waits == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(inside);
  lock.unlock();
  waiter.join();
  EXPECT_TRUE(inside);
  EXPECT_GE(g_wakes, 1);
  set_lock_waiter(LockWaiter{});
}

TEST(Lock, WithoutContentionNobodyIsWoken) {
  set_lock_waiter(LockWaiter{futex_wait, futex_wake});
  g_waits = g_wakes = 0;
  Lock lock(LockRank::kHeap);
  for (int i = 0; i < 100; i++) LockGuard guard(lock);
  EXPECT_EQ(g_waits, 0);
  EXPECT_EQ(g_wakes, 0);
  set_lock_waiter(LockWaiter{});
}

TEST(Lock, ZeroedMemoryIsAnUnlockedLock) {
  alignas(Lock) unsigned char memory[sizeof(Lock)] = {};
  Lock& lock = *reinterpret_cast<Lock*>(memory);
  EXPECT_FALSE(lock.held());
  lock.lock();
  EXPECT_TRUE(lock.held_by_me());
  lock.unlock();
}

TEST(Lock, ForkChildCanTakeWhatAnotherThreadHeld) {
  Lock lock(LockRank::kHeap);
  std::thread([&] {
    ASSERT_TRUE(lock.try_lock());  // and the thread ends, as it does not exist in a fork child
  }).join();
  EXPECT_TRUE(lock.held());
  lock.reset_after_fork();
  EXPECT_FALSE(lock.held());
  EXPECT_TRUE(lock.try_lock());
  lock.unlock();
}

Lock* g_watched = nullptr;
volatile int g_unknown_holder = 0;
volatile int g_seen_held = 0;

// A handler that interrupts the holder at any instruction must know it: it would wait for its own thread.
TEST(Lock, TheHolderIsKnownAtEachInstruction) {
  Lock lock(LockRank::kHeap);
  g_watched = &lock;
  test::with_handler_at_each_instruction(
      [](int, siginfo_t*, void*) {
        if (!g_watched->held()) return;
        g_seen_held = g_seen_held + 1;
        if (!g_watched->held_by_me()) g_unknown_holder = g_unknown_holder + 1;
      },
      [&lock] {
        lock.lock();
        lock.unlock();
        if (lock.try_lock()) lock.unlock();
      });
  EXPECT_GT(g_seen_held, 0);
  EXPECT_EQ(g_unknown_holder, 0);
}

Lock* g_to_repair = nullptr;

// As in a fork child: the holder does not exist, and only the first wait tells.
TEST(Lock, WhatTheHookRepairsIsNotWaitedFor) {
  Lock lock(LockRank::kHeap);
  std::thread([&] { ASSERT_TRUE(lock.try_lock()); }).join();
  g_to_repair = &lock;
  set_wait_hook([] {
    if (g_to_repair != nullptr) g_to_repair->reset_after_fork();
    g_to_repair = nullptr;
  });
  lock.lock();
  EXPECT_EQ(g_to_repair, nullptr);
  EXPECT_TRUE(lock.held_by_me());
  lock.unlock();
  set_wait_hook(nullptr);
  about_to_wait();
}

#ifdef NUMAHEAP_DEBUG
TEST(LockDeathTest, RanksRise) {
  Lock central(LockRank::kCentral), heap(LockRank::kHeap);
  {
    LockGuard outer(central);
    LockGuard inner(heap);
    EXPECT_EQ(locks_held(), 2u);
  }
  EXPECT_EQ(locks_held(), 0u);
  EXPECT_EXIT(
      {
        LockGuard outer(heap);
        LockGuard inner(central);
      },
      ::testing::KilledBySignal(SIGABRT), "locks taken out of rank");
}

TEST(LockDeathTest, TwoOfOneRankAreRefused) {
  Lock a(LockRank::kHeap), b(LockRank::kHeap);
  EXPECT_EXIT(
      {
        LockGuard outer(a);
        LockGuard inner(b);
      },
      ::testing::KilledBySignal(SIGABRT), "locks taken out of rank");
}
#endif

}  // namespace
}  // namespace nh
