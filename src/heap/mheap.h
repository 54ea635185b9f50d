// mheap: all the memory of one NUMA node (or of the first-touch or interleaved region).
//
// Hands out spans: runs of pages of its region with a descriptor, published in the page map and backed by memory that
// may be used without risk of a signal. Spans of small objects come from a 64-page cache per CPU, large objects
// from the page allocator under the heap's lock; the region grows by arenas.
//
// Thread safety: all public functions may be called from any thread. No system call is made under the heap's lock: an
// arena is marked busy, the lock released, the OS asked, the lock taken again (others wait on a futex for it).
//
// Errors: nullptr or false means out of memory on this heap. The caller decides who is asked next.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/lock.h"
#include "base/units.h"
#include "heap/address_space.h"
#include "heap/backing.h"
#include "heap/metadata.h"
#include "heap/mspan.h"
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
    bool bind_metadata = false;
    bool whole_units = false;  // spans are whole huge pages (first touch): no two owners in one
    unsigned cpus = 1;   // possible CPUs
    Backer::Config backing;
  };

  // Reserves the tables of this heap; the region of `space` with the same id must be unused. False: address space refused.
  bool init(const OsOps& os, AddressSpace& space, const Config& config);
  void destroy();  // tests: gives the tables back (not the region)

  // A span of the size that class c of small objects has, its objects not yet initialised. cpu: the caller's, a hint.
  MSpan* alloc_span(SpanClass c, CpuId cpu);
  // A large object. alignment: a power of two of at least kPageSize; nullptr where the region itself is aligned to less.
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
  // Whether scavenge() would find something.
  bool has_idle(std::uint32_t idle_ticks);
  // Takes back what the CPUs' page caches hold.
  void flush_page_caches();
  // The scavenger's clock. restart: nobody kept it for a while, so that what was freed meanwhile has a stamp that is too
  // old; it all counts as freed now.
  void set_tick(std::uint32_t tick, bool restart) {
    if (restart) tick_floor_.store(tick, std::memory_order_relaxed);
    tick_.store(tick, std::memory_order_relaxed);
  }

  HeapStats stats();
  // Backed bytes, kept up to date; cheap.
  std::size_t committed() const { return committed_.load(std::memory_order_relaxed); }
  // Of these, the ones that are pages of a pool. Those that a fork has taken out of the pool still count.
  std::size_t hugetlb_committed() const { return hugetlb_committed_.load(std::memory_order_relaxed); }
  // Backed memory that no span uses, roughly; cheap.
  std::size_t idle_bytes() const {
    const std::size_t used = in_use_.load(std::memory_order_relaxed), all = committed();
    return all > used ? all - used : 0;
  }

  MetadataPool& metadata() { return metadata_; }
  HeapId id() const { return config_.id; }
  NodeId node() const { return config_.node; }
  bool whole_units() const { return config_.whole_units; }
  AddressSpace& space() { return *space_; }
  const OsOps& os() { return *os_; }
  Backer& backer() { return backer_; }
  const Backer& backer() const { return backer_; }
  Lock& lock() { return lock_; }

  // Calls visit(HeapArena&, start address) for every arena in use; in a fork child or a test, where nothing moves.
  template <typename Visit>
  void for_each_arena(Visit&& visit) {
    for (std::size_t i = 0; i < arenas_in_use_; i++) visit(arena(i), start_ + i * kArenaSize);
  }
  // The same for the arena around an address of the region in use.
  template <typename Visit>
  void visit_arena(std::uintptr_t at, Visit&& visit) {
    visit(arena((at - start_) / kArenaSize));
  }
  std::uintptr_t region_start() const { return start_; }
  std::uintptr_t region_end_in_use() const { return start_ + arenas_in_use_ * kArenaSize; }

  // In a fork child: makes the heap usable after another thread of the parent was inside it.
  void repair_after_fork();
  // Audit: page allocator, arenas, spans and page map agree. Nothing else may run.
  bool check();

 private:
  struct alignas(64) CpuPages {
    Lock lock{LockRank::kPageCache};
    PageCache pages;
    MSpan* spare = nullptr;  // unused descriptors, linked by next
  };

  HeapArena& arena(std::size_t i) { return static_cast<HeapArena*>(arena_table_.data())[i]; }
  PageId page_of(std::uintptr_t a) const { return PageId((a - start_) >> kPageShift); }
  std::uintptr_t address_of(PageId p) const { return start_ + (p.value << kPageShift); }

  // Those marked L are called with the lock held; they may release it and take it again.
  bool grow_L(PageCount pages);
  bool back_L(PageId first, PageCount pages);
  bool back_arena_L(std::size_t index, std::uint32_t units, Backer::Extent* extent);
  bool try_1g_L(std::size_t index);
  void wait_L();
  void end_busy_L();
  void fill_small_unit_L();
  void take_advice_L(Backer::Extent* extent);
  bool find_idle_L(PageId* limit, std::uint32_t idle_ticks);
  PageAlloc::Run alloc_pages_L(PageCount pages, std::size_t align_pages);
  void note_freed_L(PageId first, PageCount pages);
  bool free_unbacked_L(PageId first, PageCount pages);

  PageAlloc::Run pages_from_cache(CpuPages& c, PageCount pages);
  PageAlloc::Run pages_from_heap(PageCount pages, std::size_t align_pages);
  CpuPages* cpu_pages();
  MSpan* new_descriptor(CpuPages& c);
  MSpan* make_span(MSpan* span, const PageAlloc::Run& run, PageCount pages, SpanClass c);
  PageCount pages_for(std::size_t bytes) const;
  // Whether it matters who uses memory that was used before. Where a policy places all pages alike, new ones would be no
  // better than the old.
  bool asks_place() const {
    return config_.backing.first_touch && !config_.backing.policy_places && config_.backing.nodes.count() > 1;
  }
  bool extend(PageId end, PageCount more, NodeId asker);
  bool has_hugetlb(PageId first, PageCount pages);
  bool lies_on(PageId first, PageCount pages, NodeId node);
  bool renew(PageId first, PageCount pages, bool* dropped);
  bool settle(PageId first, PageCount pages, NodeId asker, bool* dropped);

  Lock lock_{LockRank::kHeap};
  Config config_;
  const OsOps* os_ = nullptr;
  AddressSpace* space_ = nullptr;
  std::uintptr_t start_ = 0;
  PageAlloc pages_;
  void* tables_ = nullptr;  // the reservation that the tables below are cut from
  std::size_t tables_bytes_ = 0;
  GrowingTable bitmap_table_;
  GrowingTable summary_table_[kTreeLevels];
  GrowingTable arena_table_;
  Backer backer_;
  MetadataPool metadata_;
  std::atomic<CpuPages*> cpu_pages_{nullptr};  // one per possible CPU, made at first use
  MSpan* spare_ = nullptr;
  std::size_t arenas_in_use_ = 0;
  bool growing_ = false;
  bool small_unit_full_ = false;
  unsigned waiters_ = 0;
  std::atomic<std::uint32_t> epoch_{0};  // counts the ends of waits for the OS; sleepers wait for it to change
  std::atomic<std::uint32_t> tick_{0};
  std::atomic<std::uint32_t> tick_floor_{0};
  std::atomic<std::size_t> committed_{0};
  std::atomic<std::size_t> hugetlb_committed_{0};
  std::atomic<std::size_t> in_use_{0};
  std::atomic<std::size_t> spans_{0};
  std::atomic<std::size_t> large_objects_{0};
  std::atomic<std::size_t> large_bytes_{0};
  std::size_t released_ = 0;
};

}  // namespace nh
