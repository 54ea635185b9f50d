// How the slow path reaches the lists of the running CPU: through restartable sequences or under the cache's lock. Both
// offer the same operations, each of which does all or nothing.
#pragma once

#include "cache/cpu_caches.h"
#include "cache/mcache.h"
#include "cache/rseq_section.h"

namespace nh {

class RseqAccess {
 public:
  // usable() is false where the CPU's cache is switched off, being drained, or could not be made.
  explicit RseqAccess(CpuCaches& all) {
    guard_.cpu = rseq_current_cpu();
    if (guard_.cpu < 0 || static_cast<unsigned>(guard_.cpu) >= all.config_.cpus) return;
    cache_ = all.cache_of(guard_.cpu);
    if (cache_ == nullptr) cache_ = all.prepare(guard_.cpu);
    if (cache_ == nullptr) return;
    guard_.slot = &all_slots()[guard_.cpu];
    guard_.lists = cache_->lists;
  }
  bool usable() const { return cache_ != nullptr; }
  CpuCache& cache() { return *cache_; }

  // All of these fail at once where sequences do not get through: no caller's loop lasts longer for it. Always inline, as
  // the sequences are.
  [[gnu::always_inline]] bool take(FreeList& l, Batch* out) {
    return rseq_gets_through() && rseq_take(guard_, &l, &out->head, &out->count);
  }
  [[gnu::always_inline]] bool install(FreeList& l, const Batch& b) {
    return rseq_gets_through() && rseq_install(guard_, &l, b.head, b.count);
  }
  [[gnu::always_inline]] bool put(FreeList& l, void* first, void* last, unsigned count) {
    return rseq_gets_through() && rseq_put(guard_, &l, first, last, count);
  }
  [[gnu::always_inline]] bool resize(FreeList& l, std::int32_t delta) {
    return rseq_gets_through() && rseq_resize(guard_, &l, delta);
  }
  // From the same list of whichever CPU this is by now.
  [[gnu::always_inline]] bool pop(FreeList& l, void** out) {
    return rseq_gets_through() && rseq_pop(all_slots(), address(&l) - address(guard_.lists), out);
  }

 private:
  RseqGuard guard_{};
  CpuCache* cache_ = nullptr;
};

class LockedAccess {
 public:
  explicit LockedAccess(CpuCaches& all) {
    const int cpu = current_cpu_slow();
    const int index = cpu < 0 || static_cast<unsigned>(cpu) >= all.config_.cpus ? 0 : cpu;
    cache_ = all.cache_of(index);
    if (cache_ == nullptr) cache_ = all.prepare(index);
  }
  bool usable() const { return cache_ != nullptr; }
  CpuCache& cache() { return *cache_; }

  bool take(FreeList& l, Batch* out) {
    LockGuard guard(cache_->lock);
    *out = {l.head, l.count()};
    set(&l.head, nullptr);
    set(&l.room, l.cap);
    return true;
  }
  bool install(FreeList& l, const Batch& b) {
    LockGuard guard(cache_->lock);
    if (l.head != nullptr || l.cap < b.count) return false;
    set(&l.head, b.head);
    set(&l.room, l.cap - b.count);
    return true;
  }
  bool put(FreeList& l, void* first, void* last, unsigned count) {
    LockGuard guard(cache_->lock);
    if (l.room < count) return false;
    next_object(last) = l.head;
    set(&l.head, first);
    set(&l.room, l.room - count);
    return true;
  }
  bool resize(FreeList& l, std::int32_t delta) {
    LockGuard guard(cache_->lock);
    if (delta < 0 && l.room < 0 - static_cast<std::uint32_t>(delta)) return false;
    set(&l.room, l.room + static_cast<std::uint32_t>(delta));
    set(&l.cap, l.cap + static_cast<std::uint32_t>(delta));
    return true;
  }
  bool pop(FreeList& l, void** out) {
    LockGuard guard(cache_->lock);
    if (l.head == nullptr) return false;
    *out = l.head;
    set(&l.head, next_object(l.head));
    set(&l.room, l.room + 1);
    return true;
  }

 private:
  // Written under the lock, but read without it by whoever looks for what is not used or makes up statistics.
  static void set(std::uint32_t* word, std::uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
  static void set(void** word, void* value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }

  CpuCache* cache_ = nullptr;
};

}  // namespace nh
