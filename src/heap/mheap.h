// mheap: all the memory of one NUMA node (or of first-touch, interleaved or paged memory).
//
// Hands out spans: runs of pages of its arenas with a descriptor, published in the page map and backed by memory that
// may be used without risk of a signal. Spans of small objects come from a 64-page cache per CPU, large objects
// from the page allocator under the heap's lock; the heap grows by arenas that the window of address space deals.
//
// Thread safety: all public functions may be called from any thread. No system call is made under the heap's lock: the
// units concerned are marked as being worked on, the lock released, the OS asked, the lock taken again (others wait on a
// futex for it). Libc's functions that change mappings may be hooked, and a hook may allocate: a thread that meets its own
// mark is refused, so that it does not wait for itself.
//
// Errors: nullptr or false means out of memory on this heap. The caller decides who is asked next.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/check.h"
#include "base/lock.h"
#include "base/units.h"
#include "heap/address_space.h"
#include "heap/backing.h"
#include "heap/heap_arenas.h"
#include "heap/metadata.h"
#include "heap/mspan.h"
#include "heap/size_classes.h"
#include "os/os.h"
#include "page/page_alloc.h"
#include "page/page_cache.h"

namespace nh {

struct HeapStats {
  std::size_t arenas = 0;
  std::size_t spans = 0;
  std::size_t in_use_bytes = 0;     // pages of spans
  std::size_t free_bytes = 0;       // free pages whose memory is backed
  std::size_t committed_bytes = 0;  // backed units, by kind:
  std::size_t hugetlb_bytes = 0;
  std::size_t thp_bytes = 0;
  std::size_t base_bytes = 0;
  std::size_t released_bytes = 0;   // given back to the OS by the scavenger, ever
  std::size_t large_objects = 0;
  std::size_t large_bytes = 0;
  std::size_t metadata_bytes = 0;
};

// In force while a thread has parts of a heap marked as its own and calls the OS. A library's hook in place of mmap or
// madvise may call malloc then, in this very thread. Such a malloc must not wait for marks: its own would never go away,
// and another thread's might be waiting for ours in the same way. It is refused instead.
class OsWork {
 public:
  OsWork() { t_depth++; }
  ~OsWork() { t_depth--; }
  OsWork(const OsWork&) = delete;
  OsWork& operator=(const OsWork&) = delete;
  static bool under_way() { return t_depth != 0; }

 private:
  [[gnu::tls_model("initial-exec")]] static inline thread_local constinit unsigned t_depth = 0;
};

class MHeap {
 public:
  struct Config {
    HeapId id;
    NodeId node;         // invalid: no node in particular
    unsigned cpus = 1;   // possible CPUs
    bool bind_metadata = false;
    Backer::Config backing;
  };

  void init(const OsOps& os, AddressSpace& space, const Config& config);
  void destroy();  // tests: gives all memory back but the metadata's

  // A span of the size that class c of small objects has, its objects not yet initialised. cpu: the caller's, a hint.
  MSpan* alloc_span(SpanClass c, CpuId cpu);
  // A large object. alignment: a power of two of at least kPageSize.
  // The usable size is whole pages. c: kLargeClass, or the bin that `bytes` are the size of. asker: the node of the thread
  // that asks; first-touch memory of several nodes wants to know (mheap_reuse.cc).
  MSpan* alloc_large(std::size_t bytes, std::size_t alignment, bool noscan, SpanClass c = kLargeClass, NodeId asker = {});
  // Takes a span's pages back. The descriptor is gone afterwards.
  void free_span(MSpan* span);
  // Grows or shrinks a large object where it stands; c is its class from then on. False: nothing changed (shrinking
  // always succeeds).
  bool resize_large(MSpan* span, std::size_t bytes, SpanClass c = kLargeClass, NodeId asker = {});

  // Makes a large object that its caller has not handed out yet read as zero, if it does not already. False: its memory
  // is gone, and there was no other; the caller frees it.
  bool clear_large(MSpan* span);
  // For a freed large object that is to be handed out again without a visit to the page allocator: sees to it that it may
  // go to a thread of this node. False: as for clear_large().
  bool settle(MSpan* span, NodeId asker);
  // Before a fork: copies of shared pages lie on the nodes of those who write first.
  void forget_places();

  // Gives free memory that has been idle for at least `idle_ticks` back to the OS, highest addresses first, until
  // `bytes` are released. Returns how many bytes were.
  std::size_t scavenge(std::size_t bytes, std::uint32_t idle_ticks);
  // Whether there is memory for scavenge() to give back, now or later. *wait: in how many ticks the first of it will have
  // been idle for `idle_ticks`; 0: it has been.
  bool next_idle(std::uint32_t idle_ticks, std::uint32_t* wait);
  // Makes huge pages of touched pages that have rested for `rest_ticks`, unit by unit, `most` of them at a time
  // (mheap_collapse.cc).
  struct Collapsed {
    unsigned units = 0;
    bool more = false;       // go on with another step
    std::uint32_t wait = 0;  // otherwise: in how many ticks others will have rested; 0: none are in sight
  };
  Collapsed collapse(unsigned most, std::uint32_t rest_ticks);
  // Whether there may be any. Cheap.
  bool may_collapse() const { return looks_left_.load(std::memory_order_relaxed) != 0; }
  // Takes back what the CPUs' page caches hold.
  void flush_page_caches();
  // The scavenger's clock, in ticks that wrap around: they are compared by their differences. What is freed gets the tick
  // as its stamp. A scavenger that will not look for a while sets the clock forward to its next look, so that what is freed
  // meanwhile does not seem older than it is.
  void set_tick(std::uint32_t tick) { tick_.store(tick, std::memory_order_relaxed); }
  std::uint32_t tick() const { return tick_.load(std::memory_order_relaxed); }
  // Nobody kept the clock since tick(): what got a stamp from then on counts as freed at `to`. If the last such time ended
  // less than `delay` ticks ago, it still counts as part of this one.
  void skip_ticks(std::uint32_t to, std::uint32_t delay) {
    const std::uint32_t from = tick();
    if (from - skipped_to_.load(std::memory_order_relaxed) >= delay) skipped_from_.store(from, std::memory_order_relaxed);
    skipped_to_.store(to, std::memory_order_relaxed);
  }

  HeapStats stats();
  // Backed bytes, kept up to date; cheap.
  std::size_t committed() const {
    std::size_t units = 0;
    for (const auto& n : backed_) units += n.load(std::memory_order_relaxed);
    return units * kHugeSize;
  }
  // Of these, the ones that are pages of a pool.
  std::size_t hugetlb_committed() const {
    return (backed_[static_cast<unsigned>(UnitKind::kHuge2M)].load(std::memory_order_relaxed) +
            backed_[static_cast<unsigned>(UnitKind::kHuge1G)].load(std::memory_order_relaxed)) * kHugeSize;
  }
  // Backed memory that no span uses, roughly; cheap.
  std::size_t idle_bytes() const {
    const std::size_t used = in_use_.load(std::memory_order_relaxed), all = committed();
    return all > used ? all - used : 0;
  }

  MetadataPool& metadata() { return metadata_; }
  HeapId id() const { return config_.id; }
  NodeId node() const { return config_.node; }
  HeapKind kind() const { return config_.backing.kind; }
  // Large objects consist of whole units: all of them, or those of a size that CPUs do not keep in bins.
  bool whole_units() const { return kind() == HeapKind::kFirstTouch; }
  bool takes_units(std::size_t bytes) const {
    return whole_units() || (kind() == HeapKind::kTouchedPages && bytes > kMaxBinBytes);
  }
  // Whether a large object would get pages of a pool, of those that the heap has or of others.
  bool has_pool_for(std::size_t bytes) const {
    return (hugetlb_committed() != 0 && idle_bytes() >= bytes) || backer_.pool_serves(bytes);
  }
  // First-touch memory: where it lies from now on. What was backed before follows when it is used again.
  void set_home(Home home) { backer_.set_home(home); }
  AddressSpace& space() { return *space_; }
  const OsOps& os() { return *os_; }
  const Backer& backer() const { return backer_; }
  Lock& lock() { return lock_; }

  // Whether an address lies in the heap's first unit, which a small process faults in page by page.
  bool in_small_unit(const void* p) const;
  // Calls visit(MSpan*) for every span in use; where nothing moves (a fork child, a test) or with all spans kept from moving.
  template <typename Visit>
  void for_each_span(Visit&& visit) const {
    arenas_.for_each_arena([&](UnitRange units, std::uintptr_t) {
      space_->for_each_span(arenas_.window_index(units.first.arena()), visit);
    });
  }
  // For fork (process/pool_runs.h). Calls visit(run) for the units of every arena.
  template <typename Visit>
  void for_each_arena(Visit&& visit) {
    arenas_.for_each_arena([&](UnitRange units, std::uintptr_t) { visit(run_of(units)); });
  }
  // The units at an address of the heap. They must lie in arenas side by side.
  Backer::Run units_at(const void* start, std::size_t bytes) {
    const UnitId first = UnitId::of(arenas_.page_of(address(start)));
    return run_of({first, first + UnitCount(bytes >> kHugeShift)});
  }
  // Hugetlb memory that is ordinary memory of the same contents now.
  void note_plain(const Backer::Run& run, bool thp, BindMode bound);

  // After clearing the mark of arenas, with the lock held, which is released and taken again: others wait for that.
  void end_busy_L();

  // In a fork child: makes the heap usable after another thread of the parent was inside it.
  // lost: some units became lost; what CPUs hold of the heap's pages may lie there.
  void repair_after_fork(bool lost = false);
  bool is_lost(std::uintptr_t at) { return arenas_.unit_of(arenas_.page_of(at)).state == UnitState::kLost; }
  // Audit: page allocator, arenas, spans and page map agree. Nothing else may run.
  bool check();

 private:
  friend struct LiveLayout;  // process/live_block.cc

  struct alignas(64) CpuPages {
    Lock lock{LockRank::kPageCache};
    PageCache pages;
    MSpan* spare = nullptr;  // unused descriptors, linked by next
  };

  // The system calls of one thread under way.
  struct Growth {
    bool running = false;
    const void* thread = nullptr;
  };

  bool is_small(UnitId u) const { return u == UnitId(0) && !backer_.first_touch(); }
  // Once the heap is not small any more its first unit is backed as the others are, should it have been given back.
  bool is_faulted_in_L(UnitId u) const { return is_small(u) && !small_unit_full_; }
  Backer::Run run_of(UnitRange units) { return {&arenas_.unit(units.first), arenas_.address_of(units.first), units.count().value}; }

  // Those marked L are called with the lock held; they may release it and take it again.
  bool grow_L(PageCount pages);
  bool back_L(PageId first, PageCount pages);
  bool back_run_L(UnitRange wanted, Backer::Request* request, UnitId* done);
  bool back_small_L();
  UnitId giant_end(UnitId u) const;
  UnitId step_end_L(UnitRange units) const;
  void try_1g_L(UnitId around);
  void release_L(UnitRange units);
  template <typename Work>
  void work_on_L(UnitRange units, Work&& work);
  void wait_L();
  void fill_small_unit_L();
  std::uint32_t age_of_L(const Unit& unit) const;
  bool find_idle_L(PageId* limit, std::uint32_t idle_ticks);
  PageAlloc::Run alloc_pages_L(PageCount pages, std::size_t align_pages);
  PageAlloc::Run cut_aligned_L(const PageAlloc::Run& run, PageCount all, PageCount pages, std::size_t align_bytes);
  void note_freed_L(PageId first, PageCount pages);
  bool release_free_L(PageId first, PageCount pages);
  void count_units(const Unit* units, std::size_t n, bool add);

  PageAlloc::Run pages_from_cache(CpuPages& c, PageCount pages);
  PageAlloc::Run pages_from_heap(PageCount pages, std::size_t align_pages);
  CpuPages* cpu_pages();
  MSpan* new_descriptor(CpuPages& c);
  MSpan* make_span(MSpan* span, const PageAlloc::Run& run, PageCount pages, SpanClass c);
  PageCount pages_for(std::size_t bytes) const;
  // Whether it matters who uses memory that was used before. Where a policy places all pages alike, new ones would be no
  // better than the old.
  bool asks_place() const {
    return backer_.first_touch() && !config_.backing.policy_places && config_.backing.nodes.count() > 1;
  }
  bool extend(PageId end, PageCount more, NodeId asker);
  void count_large(MSpan* span, std::size_t bytes);
  bool is_last_of_window() const;
  bool has_hugetlb(PageId first, PageCount pages) const;
  bool lies_on(PageId first, PageCount pages, NodeId node);
  bool renew(PageId first, PageCount pages, bool* dropped);
  void settle_pages(PageId first, PageCount pages, NodeId asker, bool* dropped);
  std::int16_t tag_of(PageId first, PageCount pages) const;
  void tag_L(PageId first, PageCount pages);
  bool may_rest_L(UnitId u);
  void note_taken_L(PageId first, PageCount pages);
  bool settle(PageId first, PageCount pages, NodeId asker, bool* dropped);

  Lock lock_{LockRank::kHeap};
  Config config_;
  const OsOps* os_ = nullptr;
  AddressSpace* space_ = nullptr;
  HeapArenas arenas_;
  Backer backer_;
  MetadataPool metadata_;
  std::atomic<CpuPages*> cpu_pages_{nullptr};  // one per possible CPU, made at first use
  MSpan* spare_ = nullptr;
  Growth growth_;
  bool small_unit_full_ = false;
  bool mappings_are_scarce_ = false;  // when that was last asked, which is whenever the heap grows
  unsigned waiters_ = 0;
  std::atomic<std::uint32_t> epoch_{0};  // counts the ends of waits for the OS; sleepers wait for it to change
  std::atomic<std::uint32_t> tick_{0};
  std::atomic<std::uint32_t> skipped_from_{0};
  std::atomic<std::uint32_t> skipped_to_{0};
  std::atomic<unsigned> looks_left_{0};  // at touched pages, before somebody takes new ones
  UnitId next_look_;                     // where the next step of collapse() begins
  std::uint32_t next_rest_ = 0;          // what this round of steps has found so far
  bool has_collapsed_ = false;
  unsigned refusals_ = 0;                // one after the other
  std::atomic<std::size_t> backed_[4] = {};  // units, by UnitKind
  std::atomic<std::size_t> in_use_{0};
  std::atomic<std::size_t> spans_{0};
  std::atomic<std::size_t> large_objects_{0};
  std::atomic<std::size_t> large_bytes_{0};
  std::size_t released_ = 0;
};

// Does something to units that nobody else works on, with the lock released.
template <typename Work>
void MHeap::work_on_L(UnitRange units, Work&& work) {
  const Backer::Run run = run_of(units);
  for (std::size_t i = 0; i < run.count; i++) {
    NH_ASSERT(!run.units[i].busy());
    run.units[i].worker = __builtin_thread_pointer();
  }
  const OsWork os_work;
  count_units(run.units, run.count, false);
  lock_.unlock();
  work(run);
  lock_.lock();
  count_units(run.units, run.count, true);
  for (std::size_t i = 0; i < run.count; i++) run.units[i].worker = nullptr;
  end_busy_L();
}

}  // namespace nh
