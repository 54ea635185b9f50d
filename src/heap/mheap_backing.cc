// How a heap grows and how its units get their memory: who works on what while the lock is released.
#include <cerrno>

#include "base/bits.h"
#include "base/check.h"
#include "heap/growth.h"
#include "heap/mheap.h"

namespace nh {
namespace {

// From here on a heap that was asked to uses pages of 1 GiB.
constexpr std::size_t kMinFor1G = 512 * MiB;
constexpr std::size_t kUnitsPerGiB = GiB / kHugeSize;

}  // namespace

void MHeap::count_units(const Unit* units, std::size_t n, bool add) {
  for (std::size_t i = 0; i < n; i++) {
    if (!units[i].backed()) continue;
    auto& count = backed_[static_cast<unsigned>(units[i].kind)];
    add ? count.fetch_add(1, std::memory_order_relaxed) : count.fetch_sub(1, std::memory_order_relaxed);
  }
}

// ---- growth ------------------------------------------------------------------------------------------------------

bool MHeap::grow_L(PageCount pages) {
  if (growth_.running) {
    if (OsWork::under_way()) return false;
    wait_L();
    return true;  // the caller looks again
  }
  const std::size_t needed = div_up(pages.value, kPagesPerArena);
  std::size_t count = needed;
  const bool giant = config_.backing.huge_pages == HugePagesOption::k1G && kind() != HeapKind::kPaged &&
                     (count * kArenaSize >= kMinFor1G || committed() >= kMinFor1G);
  // Long runs of arenas keep the number of hugetlb mappings small, which never merge.
  if (giant || arenas_.count() >= kArenasPerGiB) count = align_up(count, kArenasPerGiB);
  // Free pages before the end of the heap may be the first part of a run, if what comes next lies right behind it.
  const std::size_t free = arenas_.pages().free_pages().value;
  const std::size_t least = pages.value <= free ? 1 : div_up(pages.value - free, kPagesPerArena);
  const ArenaIndex behind = arenas_.last();
  const auto next = static_cast<std::uint32_t>(arenas_.end());

  growth_ = {true, __builtin_thread_pointer()};
  const OsWork os_work;
  lock_.unlock();
  ArenaIndex first = 0;
  // Tables for address space that could not be used would cost what is scarce.
  const std::size_t more = pages.value <= free ? 0 : align_up((pages.value - free) * kPageSize, kHugeSize);
  // A small process is not asked: the answer takes a file.
  const bool scarce = (arenas_.count() != 0 || more > kArenaSize) && os_->mappings_are_scarce();
  const bool room = !scarce || more <= kArenaSize || space_->has_room(more);
  int error = room ? arenas_.prepare(count) : ENOMEM;
  if (error == 0) error = space_->deal(config_.id, count, giant ? GiB : kArenaSize, behind, next, &first);
  for (const std::size_t fewer : {needed, least}) {
    if (error == 0 || !room || fewer >= count) continue;
    count = fewer;
    error = arenas_.prepare(count);
    if (error == 0) error = space_->deal(config_.id, count, kArenaSize, behind, next, &first);
  }
  lock_.lock();
  growth_ = {};
  mappings_are_scarce_ = scarce;
  if (error == 0) arenas_.add(first, count);
  end_busy_L();
  return error == 0;
}

// ---- backing -----------------------------------------------------------------------------------------------------

// Tries to back the GiB around a unit with one page.
void MHeap::try_1g_L(UnitId around) {
  const std::size_t offset = (arenas_.address_of(around) % GiB) >> kHugeShift;
  if (around.value < offset) return;
  const UnitId first(around.value - offset);
  const UnitRange group{first, first + UnitCount(kUnitsPerGiB)};
  for (std::size_t arena = first.arena(); arena < first.arena() + kArenasPerGiB; arena++) {
    if (!arenas_.exists(arena)) return;
  }
  for (UnitId u = group.first; u < group.end; ++u) {
    if (arenas_.unit(u).busy() || arenas_.unit(u).state != UnitState::kReserved) return;
  }
  work_on_L(group, [&](const Backer::Run& run) { backer_.map_1g(run); });
}

// Where the GiB of addresses ends that a unit lies in.
UnitId MHeap::giant_end(UnitId u) const {
  return u + UnitCount((GiB - arenas_.address_of(u) % GiB) >> kHugeShift);
}

// Where a long hugetlb mapping over `units` ends: where a GiB or what lies side by side does, or something else is mapped.
UnitId MHeap::step_end_L(UnitRange units) const {
  const UnitId limit = giant_end(UnitId(units.end.value - 1));
  UnitId u = units.end;
  while (u < limit && arenas_.exists(u.arena()) && !arenas_.unit(u).busy() && arenas_.unit(u).state == UnitState::kReserved) ++u;
  return u;
}

// Backs the units from wanted.first on as far as they can be worked on together. *done: where to go on.
bool MHeap::back_run_L(UnitRange wanted, Backer::Request* request, UnitId* done) {
  // The next GiB may be had in one page.
  const UnitId limit = config_.backing.huge_pages == HugePagesOption::k1G ? giant_end(wanted.first) : wanted.end;
  UnitId end = wanted.first;
  while (end < wanted.end && end < limit) {
    const Unit& unit = arenas_.unit(end);
    if (unit.busy() || unit.backed() || unit.state == UnitState::kLost) break;
    ++end;
  }
  const std::size_t needed = (end - wanted.first).value;
  const UnitId claimed = request->steps ? step_end_L({wanted.first, end}) : end;
  int error = 0;
  work_on_L({wanted.first, claimed}, [&](const Backer::Run& run) { error = backer_.back(run, needed, request); });
  *done = end;
  return error == 0;
}

bool MHeap::back_small_L() {
  int error = 0;
  work_on_L({UnitId(0), UnitId(1)}, [&](const Backer::Run& run) { error = backer_.back_small(run); });
  return error == 0;
}

bool MHeap::back_L(PageId first, PageCount pages) {
  const UnitRange range = UnitRange::around(first, pages);
  Backer::Request request;
  bool unmapped = false;
  for (UnitId u = range.first; u < range.end;) {
    const Unit& unit = arenas_.unit(u);
    // What somebody works on may be backed soon, or no longer be.
    if (unit.busy()) {
      if (OsWork::under_way()) return false;
      wait_L();
      continue;
    }
    if (!unit.backed() && !is_faulted_in_L(u)) {
      request.bytes += kHugeSize;
      unmapped |= unit.state == UnitState::kReserved;
    }
    ++u;
  }
  if (request.bytes != 0) {
    lock_.unlock();
    request.no_thp = advise_growth(request.bytes).no_thp;
    const int error = backer_.decide(&request, unmapped);
    lock_.lock();
    if (error != 0) return false;
  }
  // One attempt for each unit: it releases the lock, after which things may look otherwise.
  UnitId next_giant = config_.backing.huge_pages == HugePagesOption::k1G ? range.first : range.end;
  for (UnitId u = range.first; u < range.end;) {
    const Unit& unit = arenas_.unit(u);
    if (unit.busy()) {
      if (OsWork::under_way()) return false;
      wait_L();
    } else if (unit.backed()) {
      ++u;
    } else if (unit.state == UnitState::kLost) {
      return false;
    } else if (!(u < next_giant)) {
      next_giant = u + UnitCount(1);
      try_1g_L(u);
    } else if (is_faulted_in_L(u)) {
      if (!back_small_L()) return false;
    } else if (!back_run_L({u, range.end}, &request, &u)) {
      return false;
    }
  }
  if (!small_unit_full_ && committed() > kHugeSize) fill_small_unit_L();
  return true;
}

// The first unit is left to page faults while the process is small. Once it is not, these faults should be over, too.
void MHeap::fill_small_unit_L() {
  if (!is_small(UnitId(0)) || kind() == HeapKind::kPaged) {
    small_unit_full_ = true;
    return;
  }
  const Unit& unit = arenas_.unit(UnitId(0));
  if (unit.busy() || !unit.backed()) return;
  small_unit_full_ = true;
  lock_.unlock();
  // A failure leaves things as they were.
  const bool filled = os_->populate(reinterpret_cast<void*>(arenas_.address_of(UnitId(0))), kHugeSize) == 0;
  lock_.lock();
  if (!filled || unit.busy() || !unit.backed()) return;
  work_on_L({UnitId(0), UnitId(1)}, [&](const Backer::Run& run) { backer_.loosen(run); });
}

// The units belong to the caller, or their pages are claimed.
void MHeap::release_L(UnitRange units) {
  for (UnitId u = units.first; u < units.end;) {
    if (arenas_.unit(u).busy()) {
      if (OsWork::under_way()) return;  // they stay backed
      wait_L();
      continue;
    }
    UnitId end = u;
    while (end < units.end && !arenas_.unit(end).busy()) ++end;
    work_on_L({u, end}, [&](const Backer::Run& run) { backer_.release(run); });
    u = end;
  }
}

// Frees pages and gives the units that consist of them back to the OS at once, for instance because not all of them could be
// backed. Those in lost units stay taken for ever, since the next search would find them first. True: there were none of
// these.
bool MHeap::release_free_L(PageId first, PageCount pages) {
  note_freed_L(first, pages);
  const UnitRange own = UnitRange::inside(first, pages);
  if (!own.empty()) release_L(own);
  bool all = true;
  const PageId end = first + pages;
  for (PageId at = first; at < end;) {
    const UnitId u = UnitId::of(at);
    const PageId stop = (u + UnitCount(1)).first_page();
    const PageCount part = (stop < end ? stop : end) - at;
    const Unit& unit = arenas_.unit(u);
    const bool known = !unit.busy();
    if (known && unit.state == UnitState::kLost) {
      all = false;
    } else if (known && !unit.backed() && !(u < own.first) && u < own.end) {
      arenas_.pages().release_claim(at, part, true);
    } else {
      arenas_.pages().free(at, part);
    }
    at = at + part;
  }
  return all;
}

void MHeap::note_plain(const Backer::Run& run, bool thp, BindMode bound) {
  count_units(run.units, run.count, false);
  for (std::size_t i = 0; i < run.count; i++) {
    run.units[i].kind = thp ? UnitKind::kThp : UnitKind::kBase;
    run.units[i].bound = bound;
    run.units[i].kept = false;
  }
  count_units(run.units, run.count, true);
}

}  // namespace nh
