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
    taken.flush(arenas_.pages());
    note_freed_L(base, PageCount(PageCache::kPages));
  }
}

// For how many ticks a unit has been free. Differences of ticks are right as long as no unit stays free for half of the
// range, 248 days with the shortest ticks; one that does only goes later.
std::uint32_t MHeap::age_of_L(const Unit& unit) const {
  const std::uint32_t from = skipped_from_.load(std::memory_order_relaxed), to = skipped_to_.load(std::memory_order_relaxed);
  const std::uint32_t since = unit.freed_tick - from < to - from ? to : unit.freed_tick;
  const auto age = static_cast<std::int32_t>(tick() - since);
  return age > 0 ? static_cast<std::uint32_t>(age) : 0;  // a stamp may lie ahead
}

// The highest free unit below *limit that may be released: *limit becomes its first page. A unit inside a 1 GiB page
// cannot go alone.
bool MHeap::find_idle_L(PageId* limit, std::uint32_t idle_ticks) {
  PageId page;
  while (arenas_.pages().find_free_unit_below(*limit, &page)) {
    *limit = page;
    const Unit& unit = arenas_.unit_of(page);
    if (unit.busy() || (unit.mapped() && unit.kind == UnitKind::kHuge1G)) continue;
    if (idle_ticks == 0 || age_of_L(unit) >= idle_ticks) return true;
  }
  return false;
}

bool MHeap::next_idle(std::uint32_t idle_ticks, std::uint32_t* wait) {
  LockGuard guard(lock_);
  bool found = false;
  *wait = idle_ticks;
  PageId page = arenas_.pages().end();
  while (*wait != 0 && arenas_.pages().find_free_unit_below(page, &page)) {
    const Unit& unit = arenas_.unit_of(page);
    if (!unit.busy() && unit.mapped() && unit.kind == UnitKind::kHuge1G) continue;
    found = true;
    const std::uint32_t age = age_of_L(unit);
    // Of a unit that somebody works on nobody knows what it will be; there will be something to see in a tick.
    const std::uint32_t least = unit.busy() ? 1 : 0;
    const std::uint32_t left = age + least < idle_ticks ? idle_ticks - age : least;
    if (left < *wait) *wait = left;
  }
  return found;
}

std::size_t MHeap::scavenge(std::size_t bytes, std::uint32_t idle_ticks) {
  const PageCount unit_pages(kPagesPerHuge);
  std::size_t done = 0;
  LockGuard guard(lock_);
  PageId page = arenas_.pages().end();
  while (done < bytes && find_idle_L(&page, idle_ticks)) {
    // Claimed: nobody allocates these pages while the lock is released.
    if (!arenas_.pages().claim(page, unit_pages)) continue;
    const UnitId u = UnitId::of(page);
    const bool was_backed = arenas_.unit(u).backed();
    if (was_backed) release_L({u, u + UnitCount(1)});
    const bool is_backed = arenas_.unit(u).backed();
    if (was_backed && !is_backed) {
      done += kHugeSize;
      released_ += kHugeSize;
    }
    // A unit that was never backed, or no longer is, holds nothing: it reads as zero.
    arenas_.pages().release_claim(page, unit_pages, !is_backed);
  }
  return done;
}

HeapStats MHeap::stats() {
  HeapStats s;
  const auto bytes_of = [&](UnitKind kind) {
    return backed_[static_cast<unsigned>(kind)].load(std::memory_order_relaxed) * kHugeSize;
  };
  s.hugetlb_bytes = bytes_of(UnitKind::kHuge2M) + bytes_of(UnitKind::kHuge1G);
  s.thp_bytes = bytes_of(UnitKind::kThp);
  s.base_bytes = bytes_of(UnitKind::kBase);
  s.committed_bytes = s.hugetlb_bytes + s.thp_bytes + s.base_bytes;
  s.spans = spans_.load(std::memory_order_relaxed);
  s.in_use_bytes = in_use_.load(std::memory_order_relaxed);
  s.free_bytes = idle_bytes();
  s.large_objects = large_objects_.load(std::memory_order_relaxed);
  s.large_bytes = large_bytes_.load(std::memory_order_relaxed);
  s.metadata_bytes = metadata_.bytes();
  LockGuard guard(lock_);
  s.arenas = arenas_.count();
  s.released_bytes = released_;
  return s;
}

void MHeap::repair_after_fork(bool lost) {
  // Whoever held a lock does not exist here. The thread that forked may hold one itself (fork in a signal handler that
  // interrupted the allocator): it goes on where it was, so that lock and what it guards are left alone.
  CpuPages* all = cpu_pages_.load(std::memory_order_relaxed);
  for (unsigned i = 0; i < config_.cpus && all != nullptr; i++) {
    CpuPages& c = all[i];
    if (c.lock.held_by_me() || (!c.lock.held() && !lost)) continue;
    c.lock.reset_after_fork();
    c.pages = PageCache();  // half-changed, or no longer there: its pages are lost to the child
    c.spare = nullptr;
  }
  metadata_.repair_after_fork();
  looks_left_.store(0, std::memory_order_relaxed);  // what there is the child shares with its parent
  const bool growing = growth_.running && growth_.thread == __builtin_thread_pointer();
  if (!growing) arenas_.repair_after_fork();
  // System calls of other threads that were under way. What this thread is busy with (it forked in a signal handler) it
  // goes on with.
  const auto is_others = [](const Unit& u) { return u.busy() && !u.is_mine(); };
  const bool inside = lock_.held_by_me();
  // Beyond the borders of arenas, since a page of 1 GiB can only be unmapped as a whole. Numbers that follow each other
  // stand for addresses that do, and one that was left out has no busy units.
  for_each_run(&arenas_.unit(UnitId(0)), arenas_.unit_end().value, is_others, [&](std::size_t first, std::size_t n) {
    const Backer::Run part = run_of({UnitId(first), UnitId(first) + UnitCount(n)});
    backer_.forget_unbacked(part);
    for (std::size_t i = 0; i < n; i++) part.units[i].worker = nullptr;
    // Whoever works on units has taken them out of the counts.
    if (inside) count_units(part.units, n, true);
  });
  if (!growing) growth_ = {};
  // This thread may be asleep until somebody is done (its signal handler forked): it has to look again.
  epoch_.fetch_add(1, std::memory_order_relaxed);
  if (inside) return;
  if (lock_.held()) {
    lock_.reset_after_fork();
    spare_ = nullptr;
    arenas_.forget_half_added();
  }
  for (auto& count : backed_) count.store(0, std::memory_order_relaxed);
  // What this thread is working on it will count itself.
  const auto is_counted = [](const Unit& u) { return u.backed() && !u.busy(); };
  arenas_.for_each_arena([&](UnitRange arena, std::uintptr_t) {
    const Unit* units = &arenas_.unit(arena.first);
    for_each_run(units, kUnitsPerArena, is_counted,
                 [&](std::size_t first, std::size_t n) { count_units(units + first, n, true); });
  });
  const auto is_shared = [](const Unit& u) { return u.backed() && !u.busy() && !u.hugetlb(); };
  for_each_run(&arenas_.unit(UnitId(0)), arenas_.unit_end().value, is_shared, [&](std::size_t first, std::size_t n) {
    backer_.prefer_copies(run_of({UnitId(first), UnitId(first) + UnitCount(n)}));
  });
}

bool MHeap::check() {
  LockGuard guard(lock_);
  if (arenas_.end() == 0) return true;
  if (!arenas_.pages().check()) return false;
  std::size_t backed = 0;
  bool ok = true;
  arenas_.for_each_arena([&](UnitRange arena, std::uintptr_t start) {
    for (UnitId u = arena.first; u < arena.end; ++u) {
      const Unit& unit = arenas_.unit(u);
      backed += unit.backed();
      ok &= !unit.busy();
    }
    ok &= space_->heap_of(reinterpret_cast<const void*>(start)) == config_.id;
    ok &= arenas_.page_of(start) == arena.first.first_page();
  });
  if (backed * kHugeSize != committed()) return false;
  std::size_t bytes = 0, spans = 0;
  for_each_span([&](MSpan* span) {
    const PageId first = arenas_.page_of(span->start_addr);
    spans++;
    bytes += span->pages().bytes();
    if (span->heap != config_.id.value || span->use == SpanUse::kNone) ok = false;
    for (std::size_t p = 0; p < span->npages; p++) {
      if (arenas_.pages().is_free(first + PageCount(p), PageCount(1))) ok = false;
    }
    const UnitRange units = UnitRange::around(first, span->pages());
    for (UnitId u = units.first; u < units.end; ++u) ok &= arenas_.unit(u).backed();
    ok &= arenas_.address_of(first + span->pages() - PageCount(1)) + kPageSize == span->end_addr();
  });
  return ok && bytes == in_use_.load() && spans == spans_.load();
}

}  // namespace nh
