// A mutual-exclusion lock of four words: spins briefly, then sleeps on a futex.
//
// Contract: not recursive; no allocation and no system call (the futex aside) while one is held; locks are taken in
// rising rank, which debug builds verify per thread. A lock may be zero-initialised memory: that is an unlocked one.
// The futex calls come from the OS layer through set_lock_waiter(); until then a waiter spins.
//
// Algorithm: the three-state mutex of Drepper's "Futexes Are Tricky" (0 free, 1 held, 2 held and somebody waits).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/check.h"

namespace nh {

// The order in which locks are taken: a thread that holds one may take only those of a higher rank.
enum class LockRank : std::uint8_t {
  kInit,       // one-time set-up
  kDrain,      // emptying another CPU's cache
  kTiny,       // a CPU's tiny block
  kCache,      // a CPU's cache where restartable sequences are missing
  kTransfer,   // one transfer cache
  kCentral,    // one mcentral
  kPageCache,  // a CPU's pageCache
  kHeap,       // one mheap
  kWindow,     // the window of address space: tables grow, arenas are dealt. The OS is asked under it, and what libc calls
               // then may allocate: it may take any lock, and is refused whatever it would have to wait for
  kMetadata,   // a heap's metadata pool
  kScavenger,  // the scavenger's sleep
  kReport,     // lists of what was said once
};

struct LockWaiter {
  // Sleeps while *word == expected; may wake early.
  void (*wait)(std::atomic<std::uint32_t>* word, std::uint32_t expected) = nullptr;
  // Wakes one sleeper.
  void (*wake)(std::atomic<std::uint32_t>* word) = nullptr;
};
void set_lock_waiter(const LockWaiter& waiter);

// To be called before a thread waits for another one, for a lock or for anything else that the other one is to finish. In a
// fork child that one may not exist, so the process layer repairs here what it was in the middle of: then what is waited
// for has happened when this returns. Locks that the caller itself holds stay as they are.
void about_to_wait();
void set_wait_hook(void (*hook)());

class Lock {
 public:
  explicit constexpr Lock(LockRank rank) : rank_(rank) {}
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  void lock() {
    note_acquire();
    std::uint32_t free = 0;
    // acquire: what the last holder wrote is visible to us.
    if (!word_.compare_exchange_strong(free, 1, std::memory_order_acquire, std::memory_order_relaxed)) lock_slow();
    owner_.store(self(), std::memory_order_relaxed);
  }
  bool try_lock() {
    std::uint32_t free = 0;
    if (!word_.compare_exchange_strong(free, 1, std::memory_order_acquire, std::memory_order_relaxed)) return false;
    note_acquire();
    owner_.store(self(), std::memory_order_relaxed);
    return true;
  }
  void unlock() {
    note_release();
    owner_.store(nullptr, std::memory_order_relaxed);
    // release: what we wrote under the lock is visible to the next holder.
    if (word_.exchange(0, std::memory_order_release) == 2) unlock_slow();
  }

  bool held() const { return word_.load(std::memory_order_relaxed) != 0; }
  // True where the calling thread holds it (exact, since only the holder can see its own mark).
  bool held_by_me() const { return owner_.load(std::memory_order_relaxed) == self(); }
  // In a fork child only, where the holder does not exist any more: makes it free.
  void reset_after_fork() {
    owner_.store(nullptr, std::memory_order_relaxed);
    word_.store(0, std::memory_order_relaxed);
  }
  LockRank rank() const { return rank_; }

 private:
  static void* self() { return __builtin_thread_pointer(); }
  void lock_slow();
  void unlock_slow();
#ifdef NUMAHEAP_DEBUG
  void note_acquire();
  void note_release();
#else
  void note_acquire() {}
  void note_release() {}
#endif

  std::atomic<std::uint32_t> word_{0};
  LockRank rank_;
  std::atomic<void*> owner_{nullptr};
};

class LockGuard {
 public:
  explicit LockGuard(Lock& lock) : lock_(lock) { lock_.lock(); }
  ~LockGuard() { lock_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  Lock& lock_;
};

// Debug builds: the number of locks the calling thread holds; 0 in release builds.
unsigned locks_held();

}  // namespace nh
