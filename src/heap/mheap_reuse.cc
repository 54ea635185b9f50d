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
  kSoFar,      // every page that exists is; the next store to another one may go elsewhere
  kElsewhere,  // or the kernel does not tell
};

Lies ask(const OsOps& os, std::uintptr_t start, std::size_t bytes, std::size_t step, NodeId node) {
  const void* addresses[kAddressesPerCall];
  int nodes[kAddressesPerCall];
  Lies lies = Lies::kThere;
  for (std::size_t at = 0; at < bytes;) {
    std::size_t n = 0;
    for (; n < kAddressesPerCall && at < bytes; at += step) addresses[n++] = reinterpret_cast<const void*>(start + at);
    if (os.nodes_of(addresses, n, nodes) != 0) return Lies::kElsewhere;
    for (std::size_t i = 0; i < n; i++) {
      if (nodes[i] == -ENOENT) {
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
  if (!node.valid()) return false;
  const UnitRange units = UnitRange::around(first, pages);
  const auto known = [&](UnitId u) { return __atomic_load_n(&arenas_.unit(u).place, __ATOMIC_RELAXED); };
  const auto here = static_cast<std::int16_t>(node.value + 1);
  // One page per unit first: what lies elsewhere mostly shows there.
  for (UnitId u = units.first; u < units.end; ++u) {
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

bool MHeap::settle(PageId first, PageCount pages, NodeId asker, bool* dropped) {
  *dropped = false;
  return !asks_place() || lies_on(first, pages, asker) || renew(first, pages, dropped);
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
