#include "heap/mheap.h"

#include <new>

#include "base/bits.h"
#include "base/check.h"

namespace nh {
namespace {

static_assert([] {
  for (unsigned c = 0; c < kSizeClasses; c++) {
    if (kSizeClassTable[c].pages > PageCache::kPages / 4) return false;
  }
  return true;
}(), "longer spans would mostly miss the page cache (the runtime's rule)");
// Descriptors are made a block at a time.
constexpr unsigned kDescriptorBlock = 20;

}  // namespace

void MHeap::init(const OsOps& os, AddressSpace& space, const Config& config) {
  config_ = config;
  os_ = &os;
  space_ = &space;
  backer_.init(os, config.backing);
  metadata_.init(os, config.node, config.bind_metadata);
  arenas_.init(os, space, config.id, config.bind_metadata ? config.node : NodeId());
}

void MHeap::destroy() {
  arenas_.for_each_arena([&](UnitRange arena, std::uintptr_t start) {
    const auto is_mapped = [](const Unit& u) { return u.mapped(); };
    for_each_run(&arenas_.unit(arena.first), kUnitsPerArena, is_mapped, [&](std::size_t first, std::size_t n) {
      os_->unmap(reinterpret_cast<void*>(start + first * kHugeSize), n * kHugeSize);
    });
  });
  arenas_.unmap_tables();
}

bool MHeap::in_small_unit(const void* p) const {
  return arenas_.end() != 0 && is_small(UnitId(0)) && address(p) - arenas_.address_of(UnitId(0)) < kHugeSize;
}

PageCount MHeap::pages_for(std::size_t bytes) const {
  return PageCount::holding(takes_units(bytes) ? align_up(bytes, kHugeSize) : bytes);
}

// ---- waiting for the OS ------------------------------------------------------------------------------------------

// Bounded: if a signal handler forks when this thread has found somebody busy and does not sleep yet, the one whom it is
// about to wait for does not exist in the child, and what the repair there changes it does not see. Callers look again.
void MHeap::wait_L() {
  constexpr std::uint64_t kLongestSleepNs = 10'000'000;
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed);
  waiters_++;
  lock_.unlock();
  about_to_wait();
  os_->futex_wait(&epoch_, epoch, kLongestSleepNs);
  lock_.lock();
  waiters_--;
}

void MHeap::end_busy_L() {
  epoch_.fetch_add(1, std::memory_order_relaxed);
  if (waiters_ == 0) return;
  lock_.unlock();
  os_->futex_wake(&epoch_, 1 << 30);
  lock_.lock();
}

// ---- pages -------------------------------------------------------------------------------------------------------

// Of a run of pages that is long enough for any place in it, the part that begins at a multiple of align_bytes.
PageAlloc::Run MHeap::cut_aligned_L(const PageAlloc::Run& run, PageCount all, PageCount pages, std::size_t align_bytes) {
  const std::uintptr_t start = arenas_.address_of(run.first);
  const PageCount head((align_up(start, align_bytes) - start) >> kPageShift);
  const PageCount tail = all - head - pages;
  const bool zero = run.scavenged == all;
  if (head.value != 0) arenas_.pages().release_claim(run.first, head, zero);
  if (tail.value != 0) arenas_.pages().release_claim(run.first + head + pages, tail, zero);
  return {run.first + head, zero ? pages : PageCount(0), true};
}

PageAlloc::Run MHeap::alloc_pages_L(PageCount pages, std::size_t align_pages) {
  // Within an arena page numbers are aligned as addresses are; beyond that there is no telling.
  const bool cuts = align_pages > kPagesPerArena;
  const PageCount wanted = cuts ? pages + PageCount(align_pages) : pages;
  for (;;) {
    const PageAlloc::Run run =
        cuts || align_pages <= 1 ? arenas_.pages().alloc(wanted) : arenas_.pages().alloc_aligned(wanted, align_pages);
    if (run.ok) return cuts ? cut_aligned_L(run, wanted, pages, align_pages << kPageShift) : run;
    if (!grow_L(wanted)) return {};
  }
}

PageAlloc::Run MHeap::pages_from_heap(PageCount pages, std::size_t align_pages) {
  LockGuard guard(lock_);
  for (;;) {
    const PageAlloc::Run run = alloc_pages_L(pages, align_pages);
    if (run.ok && kind() == HeapKind::kTouchedPages) note_taken_L(run.first, pages);
    if (!run.ok || back_L(run.first, pages)) return run;
    if (release_free_L(run.first, pages)) return {};
  }
}

// Spans of small objects come from the CPU's cache; an empty cache is filled with the free pages of one aligned group of
// 64, which lies in one huge page.
PageAlloc::Run MHeap::pages_from_cache(CpuPages& c, PageCount pages) {
  {
    LockGuard guard(c.lock);
    if (!c.pages.empty()) return c.pages.alloc(pages);
  }
  PageCache fresh;
  {
    LockGuard guard(lock_);
    fresh = arenas_.pages().allocate_to_cache();
    while (fresh.empty() && grow_L(PageCount(1))) fresh = arenas_.pages().allocate_to_cache();
    if (fresh.empty()) return {};
    if (!back_L(fresh.base(), PageCount(PageCache::kPages))) {
      fresh.flush(arenas_.pages());
      return {};
    }
  }
  const PageAlloc::Run run = fresh.alloc(pages);
  PageCache surplus;
  {
    LockGuard guard(c.lock);
    surplus = c.pages;  // another thread of this CPU may have filled it meanwhile
    c.pages = fresh;
  }
  if (!surplus.empty()) {
    LockGuard guard(lock_);
    surplus.flush(arenas_.pages());
  }
  return run;
}

void MHeap::note_freed_L(PageId first, PageCount pages) {
  const std::uint32_t now = tick_.load(std::memory_order_relaxed);
  const UnitRange units = UnitRange::around(first, pages);
  for (UnitId u = units.first; u < units.end; ++u) arenas_.unit(u).freed_tick = now;
}

// ---- spans -------------------------------------------------------------------------------------------------------

MHeap::CpuPages* MHeap::cpu_pages() {
  CpuPages* all = cpu_pages_.load(std::memory_order_acquire);
  if (all != nullptr) return all;
  all = static_cast<CpuPages*>(metadata_.alloc(config_.cpus * sizeof(CpuPages), alignof(CpuPages)));
  if (all == nullptr) return nullptr;
  for (unsigned i = 0; i < config_.cpus; i++) new (&all[i]) CpuPages;
  // Of several threads that got here at once one wins; what the others made is lost, once per heap.
  CpuPages* expected = nullptr;
  return cpu_pages_.compare_exchange_strong(expected, all, std::memory_order_acq_rel) ? all : expected;
}

MSpan* MHeap::new_descriptor(CpuPages& c) {
  {
    LockGuard guard(c.lock);
    if (MSpan* span = c.spare; span != nullptr) {
      c.spare = span->next;
      return span;
    }
  }
  {
    LockGuard guard(lock_);
    if (MSpan* span = spare_; span != nullptr) {
      spare_ = span->next;
      return span;
    }
  }
  auto* block = static_cast<MSpan*>(metadata_.alloc(kDescriptorBlock * sizeof(MSpan), alignof(MSpan)));
  if (block == nullptr) return nullptr;
  LockGuard guard(c.lock);
  for (unsigned i = 1; i < kDescriptorBlock; i++) {
    block[i].next = c.spare;
    c.spare = &block[i];
  }
  return block;
}

MSpan* MHeap::make_span(MSpan* span, const PageAlloc::Run& run, PageCount pages, SpanClass c) {
  span->next = span->prev = nullptr;
  span->start_addr = arenas_.address_of(run.first);
  span->npages = static_cast<std::uint32_t>(pages.value);
  span->span_class = c;
  span->elem_size = 0;  // not yet initialised; the descriptor may have had another life
  span->nelems = 0;
  span->set = SpanSet::kNone;
  span->fresh_from = 0;
  span->heap = static_cast<std::uint16_t>(config_.id.value);
  span->need_zero = run.scavenged != pages;
  spans_.fetch_add(1, std::memory_order_relaxed);
  in_use_.fetch_add(pages.bytes(), std::memory_order_relaxed);
  return span;
}

MSpan* MHeap::alloc_span(SpanClass c, CpuId cpu) {
  NH_ASSERT(!is_large(c) && size_class_of(c) != 0);
  const PageCount pages(size_class(c).pages);
  CpuPages* all = cpu_pages();
  if (all == nullptr) return nullptr;
  CpuPages& cp = all[static_cast<unsigned>(cpu.value) < config_.cpus ? cpu.value : 0];
  MSpan* span = new_descriptor(cp);
  if (span == nullptr) return nullptr;
  PageAlloc::Run run = pages_from_cache(cp, pages);
  if (!run.ok) run = pages_from_heap(pages, 1);
  if (!run.ok) {
    LockGuard guard(lock_);
    span->next = spare_;
    spare_ = span;
    return nullptr;
  }
  make_span(span, run, pages, c);
  space_->publish(span);
  return span;
}

void MHeap::free_span(MSpan* span) {
  const PageId first = arenas_.page_of(span->start_addr);
  const PageCount pages = span->pages();
  if (is_large(span->span_class)) {
    // Two threads that free one object at once may both come here.
    if (__atomic_exchange_n(&span->use, SpanUse::kNone, __ATOMIC_ACQ_REL) == SpanUse::kNone) large_freed_twice(*span);
    large_objects_.fetch_sub(1, std::memory_order_relaxed);
    large_bytes_.fetch_sub(span->alloc_cache, std::memory_order_relaxed);
  }
  space_->retract(span);
  spans_.fetch_sub(1, std::memory_order_relaxed);
  in_use_.fetch_sub(pages.bytes(), std::memory_order_relaxed);
  LockGuard guard(lock_);
  if (mappings_are_scarce_ && pages.value >= kPagesPerHuge) {
    // What is idle and mapped would be missing elsewhere: stacks of threads, libraries, files.
    release_free_L(first, pages);
  } else {
    arenas_.pages().free(first, pages);
    note_freed_L(first, pages);
    if (kind() == HeapKind::kTouchedPages) tag_L(first, pages);
  }
  span->next = spare_;
  spare_ = span;
}

}  // namespace nh
