// The transfer cache of one class of one heap: whole batches that some CPU sent back, handed on to the next CPU that wants
// some without a look at their spans. So a producer on one CPU and a consumer on another exchange objects for the price of
// a lock.
//
// A batch is a chain: objects linked through their first word, the last one null. Of their spans, to which the objects
// still count as handed out, nothing is known here.
//
// Thread safety: all functions, from any thread. The lock is a leaf: nothing else is done under it.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/lock.h"
#include "heap/size_classes.h"

namespace nh {

struct Batch {
  void* head = nullptr;
  unsigned count = 0;
};

// First word of a free object.
inline void*& next_object(void* p) { return *static_cast<void**>(p); }

class alignas(64) TransferCache {
 public:
  explicit TransferCache(SpanClass c);

  // One object if one is wanted, else a whole batch, which may be more than was wanted; none: it is empty.
  Batch take(unsigned wanted);
  // Takes a batch. False: there is no room.
  bool put(const Batch& batch);
  // A hint: whether put() is worth the work of cutting a batch off its chain.
  bool has_room() const { return filled_.load(std::memory_order_relaxed) < slots_; }

  // All of these without a lock, and so of a moment ago.
  std::size_t objects() const { return objects_.load(std::memory_order_relaxed); }
  std::uint64_t takes() const { return takes_.load(std::memory_order_relaxed); }
  std::uint64_t puts() const { return puts_.load(std::memory_order_relaxed); }

  Lock& lock() { return lock_; }
  // In a fork child where another thread was inside: a slot may be half-written, so all batches are lost to the child.
  void repair_after_fork(bool lost = false);  // see HeapSet
  // Audit: counts and chains agree.
  bool check();

 private:
  friend struct LiveLayout;  // process/live_block.cc

  static constexpr unsigned kMaxSlots = 64;

  // Adds to a word that is written under the lock only.
  template <typename T>
  static void add_L(std::atomic<T>& word, T amount) {
    word.store(word.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }

  Lock lock_{LockRank::kTransfer};
  const unsigned slots_;
  // Written under the lock and read without it, so that whoever finds the cache empty or full takes no lock for nothing.
  // A value that is no longer true does no harm: objects go to their spans, or come from there, although a slot would have
  // served, or the lock is taken in vain. The slots themselves are looked at under the lock only.
  std::atomic<unsigned> filled_{0};
  std::atomic<std::size_t> objects_{0};
  std::atomic<std::uint64_t> takes_{0};
  std::atomic<std::uint64_t> puts_{0};
  Batch slot_[kMaxSlots];
};

}  // namespace nh
