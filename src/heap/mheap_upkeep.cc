// What happens to a heap beside allocation: giving memory back, statistics, audit, repair after fork.
#include "base/bits.h"
#include "heap/mheap.h"

namespace nh {

void MHeap::flush_page_caches() {
  CpuPages* all = cpu_pages_.load(std::memory_order_acquire);
  for (unsigned i = 0; i < config_.cpus && all != nullptr; i++) {
    CpuPages& c = all[i];
    PageCache taken;
    {
      LockGuard guard(c.lock);
      taken = c.pages;
      c.pages = PageCache();
    }
    if (taken.empty()) continue;
    LockGuard guard(lock_);
    const PageId base = taken.base();
    taken.flush(pages_);
    note_freed_L(base, PageCount(PageCache::kPages));
  }
}

// The highest free unit below *limit that may be released: *limit becomes its first page. A unit inside a 1 GiB page
// cannot go alone.
bool MHeap::find_idle_L(PageId* limit, std::uint32_t idle_ticks) {
  const std::uint32_t now = tick_.load(std::memory_order_relaxed);
  const std::uint32_t floor = tick_floor_.load(std::memory_order_relaxed);
  PageId unit;
  while (pages_.find_free_unit_below(*limit, &unit)) {
    *limit = unit;
    const std::size_t u = unit.value / kPagesPerHuge;
    const HeapArena& a = arena(u / kHugePerArena);
    if (a.busy || (a.huge_1g >> (u % kHugePerArena) & 1) != 0) continue;
    const std::uint32_t freed = a.freed_tick[u % kHugePerArena];
    const std::uint32_t since = freed > floor ? freed : floor;
    // The clock may go back by a tick where two threads set it at once.
    if (idle_ticks == 0 || (now >= since && now - since >= idle_ticks)) return true;
  }
  return false;
}

bool MHeap::has_idle(std::uint32_t idle_ticks) {
  LockGuard guard(lock_);
  PageId limit = pages_.end();
  return find_idle_L(&limit, idle_ticks);
}

std::size_t MHeap::scavenge(std::size_t bytes, std::uint32_t idle_ticks) {
  const PageCount unit_pages(kPagesPerHuge);
  std::size_t done = 0;
  LockGuard guard(lock_);
  PageId unit = pages_.end();
  while (done < bytes && find_idle_L(&unit, idle_ticks)) {
    const std::size_t u = unit.value / kPagesPerHuge;
    HeapArena& a = arena(u / kHugePerArena);
    const std::uint32_t bit = std::uint32_t{1} << (u % kHugePerArena);
    // Claimed: nobody allocates these pages while the lock is released.
    if (!pages_.claim(unit, unit_pages)) continue;
    std::uint32_t released = bit;
    if ((a.backed & bit) != 0) {
      const OsWork work;
      a.begin_work();
      const bool pool = (a.hugetlb & bit) != 0;
      lock_.unlock();
      backer_.release(a, start_ + u / kHugePerArena * kArenaSize, bit, &released);
      lock_.lock();
      a.busy = false;
      if (released != 0) {
        done += kHugeSize;
        released_ += kHugeSize;
        committed_.fetch_sub(kHugeSize, std::memory_order_relaxed);
        if (pool) hugetlb_committed_.fetch_sub(kHugeSize, std::memory_order_relaxed);
      }
      end_busy_L();
    }
    // A unit that was never backed, or no longer is, holds nothing: it reads as zero.
    pages_.release_claim(unit, unit_pages, released != 0);
  }
  return done;
}

HeapStats MHeap::stats() {
  HeapStats s;
  LockGuard guard(lock_);
  s.arenas = arenas_in_use_;
  s.spans = spans_.load(std::memory_order_relaxed);
  s.in_use_bytes = in_use_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < arenas_in_use_; i++) {
    while (arena(i).busy && !OsWork::under_way()) wait_L();
    const HeapArena& a = arena(i);
    auto bytes = [](std::uint32_t units) { return static_cast<std::size_t>(__builtin_popcount(units)) * kHugeSize; };
    s.committed_bytes += bytes(a.backed);
    s.hugetlb_bytes += bytes(a.backed & a.hugetlb);
    s.thp_bytes += bytes(a.backed & a.thp & ~a.hugetlb);
    s.base_bytes += bytes(a.backed & ~a.thp & ~a.hugetlb);
  }
  s.free_bytes = idle_bytes();
  s.released_bytes = released_;
  s.large_objects = large_objects_.load(std::memory_order_relaxed);
  s.large_bytes = large_bytes_.load(std::memory_order_relaxed);
  s.metadata_bytes = metadata_.bytes();
  return s;
}

void MHeap::repair_after_fork() {
  // Whoever held a lock does not exist here. The thread that forked may hold one itself (fork in a signal handler that
  // interrupted the allocator): it goes on where it was, so that lock and what it guards are left alone.
  CpuPages* all = cpu_pages_.load(std::memory_order_relaxed);
  for (unsigned i = 0; i < config_.cpus && all != nullptr; i++) {
    CpuPages& c = all[i];
    if (!c.lock.held() || c.lock.held_by_me()) continue;
    c.lock.reset_after_fork();
    c.pages = PageCache();  // half-changed: its pages are lost to the child
    c.spare = nullptr;
  }
  metadata_.repair_after_fork();
  // System calls of other threads that were under way. What this thread is busy with (it forked in a signal handler) it
  // goes on with.
  for (std::size_t i = 0; i < arenas_in_use_; i++) {
    HeapArena& a = arena(i);
    if (!a.busy || a.is_mine()) continue;
    backer_.forget_unbacked(a, start_ + i * kArenaSize);
    a.busy = false;
  }
  if (lock_.held() && lock_.held_by_me()) return;
  if (lock_.held()) {
    lock_.reset_after_fork();
    spare_ = nullptr;
    if (arenas_in_use_ != 0) pages_.rebuild_summaries(PageId(arenas_in_use_ * kPagesPerArena));
  }
  growing_ = false;  // growing again what another thread had grown already is harmless
  // This thread may be asleep until somebody is done (its signal handler forked): it has to look again.
  epoch_.fetch_add(1, std::memory_order_relaxed);
  std::size_t units = 0, pool_units = 0;
  for (std::size_t i = 0; i < arenas_in_use_; i++) {
    units += static_cast<std::size_t>(__builtin_popcount(arena(i).backed));
    pool_units += static_cast<std::size_t>(__builtin_popcount(arena(i).backed & arena(i).hugetlb));
  }
  committed_.store(units * kHugeSize, std::memory_order_relaxed);
  hugetlb_committed_.store(pool_units * kHugeSize, std::memory_order_relaxed);
}

bool MHeap::check() {
  LockGuard guard(lock_);
  if (arenas_in_use_ == 0) return true;
  if (!pages_.check()) return false;
  std::size_t committed = 0;
  for (std::size_t i = 0; i < arenas_in_use_; i++) {
    const HeapArena& a = arena(i);
    if (a.busy || (a.backed & ~a.mapped) != 0 || (a.huge_1g & ~a.hugetlb) != 0) return false;
    if (((a.hugetlb | a.thp) & ~a.mapped) != 0 || (a.hugetlb & a.thp) != 0 || (a.lost & a.mapped) != 0) return false;
    committed += static_cast<std::size_t>(__builtin_popcount(a.backed)) * kHugeSize;
  }
  if (committed != this->committed()) return false;
  bool ok = true;
  std::size_t bytes = 0, spans = 0;
  space_->for_each_span(start_, region_end_in_use(), [&](MSpan* span) {
    const PageId first = page_of(span->start_addr);
    spans++;
    bytes += span->pages().bytes();
    if (span->heap != config_.id.value || span->use == SpanUse::kNone) ok = false;
    for (std::size_t p = 0; p < span->npages; p++) {
      if (pages_.is_free(first + PageCount(p), PageCount(1))) ok = false;
    }
    for (std::uintptr_t at = span->start_addr; at < span->end_addr(); at += kHugeSize) {
      const std::size_t u = (at - start_) >> kHugeShift;
      if (((arena(u / kHugePerArena).backed >> (u % kHugePerArena)) & 1) == 0) ok = false;
    }
  });
  return ok && bytes == in_use_.load() && spans == spans_.load();
}

}  // namespace nh
