// First-touch memory that was used before: on which node its pages lie, and whether its next owner gets them.
//
// Pages of first-touch memory lie where they were first written to. An extent that is handed out again with them would put
// its new owner's data where its last owner worked. So it keeps its pages only for a thread of the node on which all of
// them lie; otherwise they are dropped, and the next store decides anew.
#include <cerrno>

#include "base/bits.h"
#include "heap/mheap.h"

namespace nh {
namespace {

// Addresses per question to the kernel: small enough for any stack.
constexpr std::size_t kAddressesPerCall = 64;

enum class Lies : std::uint8_t {
  kThere,      // every page is on the node
  kSoFar,      // every page that exists is; the next store to another one may go elsewhere. Or the kernel does not tell
  kElsewhere,
};

Lies ask(const OsOps& os, std::uintptr_t start, std::size_t bytes, std::size_t step, NodeId node) {
  const void* addresses[kAddressesPerCall];
  int nodes[kAddressesPerCall];
  Lies lies = Lies::kThere;
  for (std::size_t at = 0; at < bytes;) {
    std::size_t n = 0;
    for (; n < kAddressesPerCall && at < bytes; at += step) addresses[n++] = reinterpret_cast<const void*>(start + at);
    if (os.nodes_of(addresses, n, nodes) != 0) return Lies::kSoFar;
    for (std::size_t i = 0; i < n; i++) {
      if (nodes[i] < 0) {
        lies = Lies::kSoFar;
      } else if (nodes[i] != node.value) {
        return Lies::kElsewhere;
      }
    }
  }
  return lies;
}

}  // namespace

// Asking costs 49 us for 4 MiB of base pages, so the answer is remembered where it cannot change any more before the
// pages are dropped: where all of them are there. (The kernel's own balancing may move some; it moves them to their user.)
// The units belong to the caller.
bool MHeap::lies_on(PageId first, PageCount pages, NodeId node) {
  const Home home = backer_.home();
  if (home.is_set()) node = home.node;
  if (!node.valid()) return false;
  const UnitRange units = UnitRange::around(first, pages);
  const auto known = [&](UnitId u) { return __atomic_load_n(&arenas_.unit(u).place, __ATOMIC_RELAXED); };
  const auto here = static_cast<std::int16_t>(node.value + 1);
  // One page per unit first: what lies elsewhere mostly shows there.
  for (UnitId u = units.first; u < units.end; ++u) {
    if (arenas_.unit(u).bound != home.mode) return false;  // the process was bound otherwise
    if (known(u) == here) continue;
    if (known(u) != 0 || ask(*os_, arenas_.address_of(u), kHugeSize, kHugeSize, node) == Lies::kElsewhere) return false;
  }
  for (UnitId u = units.first; u < units.end; ++u) {
    if (known(u) == here) continue;
    const bool one_page = arenas_.unit(u).hugetlb();
    switch (ask(*os_, arenas_.address_of(u), kHugeSize, one_page ? kHugeSize : kOsPageSize, node)) {
      case Lies::kThere: __atomic_store_n(&arenas_.unit(u).place, here, __ATOMIC_RELAXED); break;
      case Lies::kSoFar: break;
      case Lies::kElsewhere: return false;
    }
  }
  return true;
}

// Drops the pages of whole units that the caller owns, and backs the units anew: huge pages of a pool lose their
// reservation with their page. False: they could not be backed again. *dropped: all of them read as zero now.
bool MHeap::renew(PageId first, PageCount pages, bool* dropped) {
  const UnitRange units = UnitRange::around(first, pages);
  LockGuard guard(lock_);
  release_L(units);
  *dropped = true;
  for (UnitId u = units.first; u < units.end; ++u) *dropped &= !arenas_.unit(u).backed();
  return back_L(first, pages);
}

// Touched pages that were part of another object would bring its placement along: the first megabytes of an array that was
// shared out lie on one node, too, and perhaps on the asker's. So only what is asked for again as it was freed, and has units
// for itself, keeps its pages, if they lie there. Otherwise they go, and nothing else does, since units are shared. What loops
// use again and again CPUs keep. Locked memory stays where it is.
void MHeap::settle_pages(PageId first, PageCount pages, NodeId asker, bool* dropped) {
  const std::uintptr_t start = arenas_.address_of(first);
  const UnitRange units = UnitRange::around(first, pages);
  const std::int16_t tag = tag_of(first, pages);
  bool again = tag != 0 && asker.valid();
  for (UnitId u = units.first; u < units.end; ++u) {
    again &= __atomic_exchange_n(&arenas_.unit(u).place, std::int16_t{0}, __ATOMIC_RELAXED) == tag;
  }
  // One page per unit first: what lies elsewhere mostly shows there.
  for (const std::size_t step : {kHugeSize, kOsPageSize}) {
    again = again && ask(*os_, start, pages.bytes(), step, asker) != Lies::kElsewhere;
  }
  *dropped = !again && os_->discard(reinterpret_cast<void*>(start), pages.bytes()) == 0;
}

// What the units of a freed object of touched pages remember of it; 0: it shared them.
std::int16_t MHeap::tag_of(PageId first, PageCount pages) const {
  const UnitRange own = UnitRange::inside(first, pages);
  if (own != UnitRange::around(first, pages)) return 0;
  return static_cast<std::int16_t>((own.first.value * 31 + own.count().value) % INT16_MAX + 1);
}

void MHeap::tag_L(PageId first, PageCount pages) {
  const UnitRange units = UnitRange::around(first, pages);
  const std::int16_t tag = tag_of(first, pages);
  for (UnitId u = units.first; u < units.end; ++u) __atomic_store_n(&arenas_.unit(u).place, tag, __ATOMIC_RELAXED);
}

bool MHeap::settle(PageId first, PageCount pages, NodeId asker, bool* dropped) {
  *dropped = false;
  if (!asks_place()) return true;
  if (whole_units()) return lies_on(first, pages, asker) || renew(first, pages, dropped);
  settle_pages(first, pages, asker, dropped);
  return true;
}

bool MHeap::settle(MSpan* span, NodeId asker) {
  if (!span->need_zero) return true;
  bool dropped;
  if (!settle(arenas_.page_of(span->start_addr), span->pages(), asker, &dropped)) return false;
  if (dropped) span->need_zero = false;
  return true;
}

void MHeap::forget_places() {
  if (!asks_place()) return;
  for (UnitId u(0); u < arenas_.unit_end(); ++u) __atomic_store_n(&arenas_.unit(u).place, std::int16_t{0}, __ATOMIC_RELAXED);
}

}  // namespace nh
