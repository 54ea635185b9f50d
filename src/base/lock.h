// A mutual-exclusion lock of two words: spins briefly, then sleeps on a futex.
//
// Contract: not recursive; no allocation and no system call (the futex aside) while one is held; locks are taken in
// rising rank, which debug builds verify per thread. A lock may be zero-initialised memory: that is an unlocked one.
// The futex calls come from the OS layer through set_lock_waiter(); until then a waiter spins.
//
// Algorithm: the mutex of Drepper's "Futexes Are Tricky", in which the word names the holder: 0 is free, the holder's
// thread pointer is held, and its lowest bit is set while somebody may wait. The holder and the state change in one store,
// so that a signal handler finds at any instruction whether the thread that it interrupted holds the lock. The futex is the
// lower half of the word. Two holders may agree in it, but a waiter sleeps only on a word with the bit, and whoever
// releases such a word wakes a waiter: nobody sleeps through the last release.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/check.h"

namespace nh {

// The order in which locks are taken: a thread that holds one may take only those of a higher rank.
enum class LockRank : std::uint8_t {
  kInit,       // one-time set-up, the search for leaks: the OS is asked under it
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
  // Sleeps while *word == expected; may wake early, and must after a while: in a fork child that a signal handler has made
  // nobody may be left to wake it.
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
    std::uint64_t free = 0;
    // acquire: what the last holder wrote is visible to us.
    if (!word_.compare_exchange_strong(free, self(), std::memory_order_acquire, std::memory_order_relaxed)) lock_slow();
  }
  bool try_lock() {
    std::uint64_t free = 0;
    if (!word_.compare_exchange_strong(free, self(), std::memory_order_acquire, std::memory_order_relaxed)) return false;
    note_acquire();
    return true;
  }
  void unlock() {
    note_release();
    // release: what we wrote under the lock is visible to the next holder.
    if ((word_.exchange(0, std::memory_order_release) & kWaiters) != 0) unlock_slow();
  }

  bool held() const { return word_.load(std::memory_order_relaxed) != 0; }
  // True where the calling thread holds it (exact, since no other thread writes the caller's name).
  bool held_by_me() const { return (word_.load(std::memory_order_relaxed) & ~kWaiters) == self(); }
  // In a fork child only, where the holder does not exist any more: makes it free.
  void reset_after_fork() { word_.store(0, std::memory_order_relaxed); }
  LockRank rank() const { return rank_; }

 private:
  static constexpr std::uint64_t kWaiters = 1;

  // A thread's control block is aligned: the lowest bit of its address is free.
  static std::uint64_t self() { return reinterpret_cast<std::uint64_t>(__builtin_thread_pointer()); }
  std::atomic<std::uint32_t>* futex() { return reinterpret_cast<std::atomic<std::uint32_t>*>(&word_); }
  void lock_slow();
  void unlock_slow();
#ifdef NUMAHEAP_DEBUG
  void note_acquire();
  void note_release();
#else
  void note_acquire() {}
  void note_release() {}
#endif

  std::atomic<std::uint64_t> word_{0};
  LockRank rank_;
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
