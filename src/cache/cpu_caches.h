// The caches of all CPUs: set-up, the operations of the slow path on the lists of the running CPU, emptying another
// CPU's.
//
// Two modes. With restartable sequences a cache stands in its CPU's slot and is changed by sequences only. Without them
// (kFallback) the slots stay empty, so that the fast path always ends up here, and each cache has a lock; which cache a
// thread uses is then a matter of speed only.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/lock.h"
#include "base/units.h"
#include "cache/layout.h"
#include "central/heap_set.h"
#include "os/os.h"
#include "os/rseq.h"

namespace nh {

enum class CacheMode : std::uint8_t { kRseq, kOwnRseq, kFallback, kOff };
const char* cache_mode_name(CacheMode mode);  // "rseq", "own-rseq", "fallback", "off"

struct CacheConfig {
  unsigned cpus = 1;                 // possible CPUs
  std::size_t bytes_per_cpu = 4 * MiB;  // 0: no caches
  Help help = Help::kNeighbours;     // who serves where a CPU's own heap has no memory left
  unsigned twins = kMaxHeaps;        // a CPU allocates from its heap and the one so many behind it; kMaxHeaps: there is none
  unsigned extent_heap = kMaxHeaps;  // whose large objects any CPU keeps, by their descriptors; kMaxHeaps: none
  unsigned pages_heap = kMaxHeaps;   // whose bins any CPU keeps and hands out; kMaxHeaps: none
};

// Which heap a CPU allocates from.
using HeapOfCpu = HeapId (*)(CpuId cpu);

class CpuCaches {
 public:
  // memory for lists and pointers comes from heap 0's metadata. Publishes the slots to the fast path; rseq_init() must
  // come after it. False: no memory.
  bool init(const OsOps& os, HeapSet& heaps, const CacheConfig& config, HeapOfCpu heap_of_cpu);
  void set_mode(CacheMode mode) { mode_ = mode; }
  CacheMode mode() const { return mode_; }
  HeapSet& heaps() { return *heaps_; }
  const CacheConfig& config() const { return config_; }

  // One object of class c for the calling thread; nullptr: out of memory. Not zeroed; where the class has marks (has_mark)
  // it still carries its own, which the caller takes off (unmark).
  // untouched: not null where the caller would rather have one that reads as zero. *untouched becomes true where it does; then
  // it has no mark, and nobody has written to its pages.
  void* alloc(SpanClass c, bool* untouched = nullptr);
  // The same from the paged twin of the CPU's heap.
  void* alloc_paged(SpanClass c);
  // The same from a heap of the caller's choice. help: who serves where that heap has no memory left.
  void* alloc_from(HeapId h, SpanClass c, Help help);
  // Takes an object of class c of heap h whose mark, if it has one, is set.
  void free(void* p, SpanClass c, HeapId h);

  // Empties the cache of a CPU, whoever is running there. False: not possible in this mode (no membarrier).
  bool drain(CpuId cpu);
  // Of all CPUs whose caches hold anything.
  void drain_all();
  // Empties the cache of one CPU whose lists have not changed for `unused_ns`, as far as earlier calls have seen them. False:
  // there was none. One caller at a time.
  bool drain_one_unused(std::uint64_t unused_ns);

  struct Totals {
    std::uint64_t cached_bytes = 0;
    std::uint64_t refills = 0;
    std::uint64_t flushes = 0;
    unsigned prepared = 0;  // CPUs with a cache
  };
  // Of small objects; approximate while other threads run. cached_per_heap: room for one sum per heap.
  Totals totals(std::uint64_t* cached_per_heap);

  // ---- large objects (cpu_caches_large.cc). Kept with restartable sequences only --------------------------------------

  // A large object could not be taken from this CPU's list for its size, or could not be put there. The list's capacity
  // grows when both happen.
  void large_missed(const MSpan& span);
  void large_turned_away(const MSpan& span);
  struct Kept {
    std::uint64_t bytes = 0;
    std::uint64_t objects = 0;
  };
  // What all CPUs together keep of a heap's large objects; approximate while other threads run.
  Kept kept_large(HeapId h);
  // Sends all large objects home, from every CPU that keeps one. True: there were some.
  bool drain_large();
  // A heap is about to grow for a request of so many bytes. Sends what CPUs keep of its large objects home, unless the heap
  // has grown by little since that was last done.
  void drain_large_before_growth(HeapId h, std::size_t bytes);

  // While diverted, malloc's fast path finds empty lists on every CPU, so that each request comes to alloc(), which pops
  // from the real ones; free's finds them as ever.
  void divert_malloc(bool diverted);

  // The cache of the running CPU, whatever the mode; nullptr: no memory.
  CpuCache* current_cache();
  // Calls visit(CpuCache&) for every CPU that has one.
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (unsigned cpu = 0; cpu < config_.cpus && caches_ != nullptr; cpu++) {
      if (CpuCache* cache = cache_of(static_cast<int>(cpu)); cache != nullptr) visit(*cache);
    }
  }
  CpuId current_cpu() const;
  HeapId local_heap();
  // lost: objects that CPUs hold may lie in memory that this child does not have.
  void repair_after_fork(bool lost = false);
  void set_fences(bool available) { fences_ = available; }

 private:
  friend struct LiveLayout;  // process/live_block.cc
  friend class RseqAccess;
  friend class LockedAccess;

  CpuCache* cache_of(int cpu) const { return caches_[cpu].load(std::memory_order_acquire); }
  CpuCache* prepare(int cpu);
  void publish(int cpu, CpuCache* cache);
  void withdraw(int cpu);
  void flush_lists(CpuCache* cache, MSpan** large);
  unsigned list_sets() const { return heaps_->count() * kListSetsPerHeap; }
  static HeapId heap_of_set(unsigned set) { return HeapId(set / kListSetsPerHeap); }
  static SpanClass class_in_set(unsigned set, unsigned list) {
    const SpanClass c(list);
    return set % kListSetsPerHeap == 0 ? c : c.placed();
  }
  FreeList& list_of(CpuCache& cache, HeapId h, SpanClass c) const {
    return cache.lists[list_set(h, c.is_placed())].of[c.list()];
  }
  template <typename Visit> void for_each_used_set(const CpuCache& cache, Visit&& visit) const;
  std::uint64_t lists_of(const CpuCache& cache) const;
  void flush_large(CpuCache* cache, HeapId h, MSpan** large);
  // Whether the calling thread may use sequences now; registers it if need be.
  bool has_sequences() const;
  template <typename Empty> bool with_lists(CpuId cpu, Empty&& empty);
  template <typename Flush> bool drain_with(CpuId cpu, Flush&& flush);
  bool keeps_large_of(const CpuCache& cache, HeapId h) const;
  bool keeps_large(const CpuCache& cache, HeapId h) const;
  std::uint64_t change_large_capacity(CpuCache& cache, HeapId h, std::int64_t bytes);
  std::size_t large_bytes(SpanClass c, HeapId h) const;
  SpanClass list_class(const MSpan& span) const;
  bool* turned_away(CpuCache& cache, SpanClass c, HeapId h) const;
  FreeList* large_list(CpuCache& cache, SpanClass c, HeapId h);
  HeapId twin_of(HeapId h) const { return HeapId(h.value + config_.twins); }
  // Whether what is freed here of heap h may be handed out here again.
  bool hands_out(const CpuCache& cache, HeapId h) const { return h == cache.local || h == twin_of(cache.local); }
  template <typename Access> void* serve(Access& access, HeapId h, SpanClass c, Help help, bool* untouched);
  template <typename Access> void* alloc_with(Access& access, HeapId h, SpanClass c, Help help, bool* untouched);
  template <typename Access> void* alloc_from_substitute(Access& access, HeapId h, SpanClass c, bool* untouched);
  template <typename Access> bool free_with(Access& access, void* p, SpanClass c, HeapId h);
  template <typename Access> void keep(Access& access, FreeList& list, HeapId h, SpanClass c, Batch batch);
  template <typename Access> bool grow_list(Access& access, FreeList& list, HeapId h, SpanClass c);
  template <typename Access> bool reserve_capacity(Access& access, std::size_t bytes);
  void* alloc_uncached(HeapId h, SpanClass c, Help help, bool* untouched);

  const OsOps* os_ = nullptr;
  HeapSet* heaps_ = nullptr;
  CacheConfig config_;
  HeapOfCpu heap_of_cpu_ = nullptr;
  CacheMode mode_ = CacheMode::kFallback;
  bool fences_ = false;  // membarrier can abort sequences on other CPUs
  std::atomic<bool> diverted_{false};
  char* empty_ = nullptr;     // lists that are empty and take nothing, for all heaps
  std::atomic<CpuCache*>* caches_ = nullptr;
  Lock drain_lock_{LockRank::kDrain};
  std::atomic<std::uint64_t> large_capacity_[kMaxHeaps] = {};  // of each heap, on all CPUs
  std::atomic<std::uint64_t> growth_[kMaxHeaps] = {};  // of each heap since its large objects were last drained
};

// Why nobody else touches the lists of a withdrawn cache: sequences that start now load the empty lists from the slot;
// those under way on that CPU are aborted by the fence and start over; guarded ones compare the slot and fail.
template <typename Empty>
bool CpuCaches::with_lists(CpuId cpu, Empty&& empty) {
  LockGuard guard(drain_lock_);
  CpuCache* cache = cache_of(cpu.value);
  if (cache == nullptr) return true;
  if (mode_ == CacheMode::kFallback) {
    LockGuard cache_guard(cache->lock);
    empty(cache);
    return true;
  }
  if (!fences_) return false;
  withdraw(cpu.value);
  const bool fenced = membarrier_rseq(cpu) == 0;
  if (fenced) empty(cache);
  publish(cpu.value, cache);
  return fenced;
}

// Calls flush(CpuCache*, MSpan** large) with the lists of a CPU. The large objects that it links there are freed without any
// lock, since that may take system calls.
template <typename Flush>
bool CpuCaches::drain_with(CpuId cpu, Flush&& flush) {
  MSpan* large = nullptr;
  const bool done = with_lists(cpu, [&](CpuCache* cache) { flush(cache, &large); });
  while (large != nullptr) {
    MSpan* const next = large->next;
    heaps_->free_large(large);
    large = next;
  }
  return done;
}

// The process's caches.
extern CpuCaches g_caches;

}  // namespace nh
