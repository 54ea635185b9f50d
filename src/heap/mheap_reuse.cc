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
  const std::size_t begin = first.value / kPagesPerHuge, end = (first + pages).value / kPagesPerHuge;
  auto place = [&](std::size_t u) { return &arena(u / kHugePerArena).place[u % kHugePerArena]; };
  auto known = [&](std::size_t u) { return __atomic_load_n(place(u), __ATOMIC_RELAXED); };
  const auto here = static_cast<std::int16_t>(node.value + 1);
  // One page per unit first: what lies elsewhere mostly shows there.
  for (std::size_t u = begin; u < end; u++) {
    if (known(u) == here) continue;
    if (known(u) != 0 || ask(*os_, start_ + u * kHugeSize, kHugeSize, kHugeSize, node) == Lies::kElsewhere) return false;
  }
  for (std::size_t u = begin; u < end; u++) {
    if (known(u) == here) continue;
    const bool one_page = (arena(u / kHugePerArena).hugetlb >> (u % kHugePerArena) & 1) != 0;
    switch (ask(*os_, start_ + u * kHugeSize, kHugeSize, one_page ? kHugeSize : kOsPageSize, node)) {
      case Lies::kThere: __atomic_store_n(place(u), here, __ATOMIC_RELAXED); break;
      case Lies::kSoFar: break;
      case Lies::kElsewhere: return false;
    }
  }
  return true;
}

// Drops the pages of whole units that the caller owns, and backs the units anew: huge pages of a pool lose their
// reservation with their page. False: they could not be backed again. *dropped: all of them read as zero now.
bool MHeap::renew(PageId first, PageCount pages, bool* dropped) {
  *dropped = true;
  const std::size_t end = (first + pages).value / kPagesPerHuge;
  LockGuard guard(lock_);
  for (std::size_t u = first.value / kPagesPerHuge; u < end;) {
    HeapArena& a = arena(u / kHugePerArena);
    if (a.busy) {
      if (OsWork::under_way()) return false;
      wait_L();
      continue;
    }
    const std::size_t next_arena = align_up(u + 1, kHugePerArena);
    const std::size_t stop = next_arena < end ? next_arena : end;
    const std::uint32_t units = unit_bits(static_cast<unsigned>(u % kHugePerArena), static_cast<unsigned>(stop - u));
    std::uint32_t released = 0;
    const std::uint32_t pool_units = a.hugetlb;
    const OsWork work;
    a.begin_work();
    lock_.unlock();
    backer_.release(a, start_ + u / kHugePerArena * kArenaSize, units, &released);
    lock_.lock();
    const auto bytes = [](std::uint32_t bits) { return static_cast<std::size_t>(__builtin_popcount(bits)) * kHugeSize; };
    committed_.fetch_sub(bytes(released), std::memory_order_relaxed);
    hugetlb_committed_.fetch_sub(bytes(released & pool_units), std::memory_order_relaxed);
    a.busy = false;
    end_busy_L();
    *dropped &= released == units;
    u = stop;
  }
  return back_L(first, pages);
}

bool MHeap::settle(PageId first, PageCount pages, NodeId asker, bool* dropped) {
  *dropped = false;
  return !asks_place() || lies_on(first, pages, asker) || renew(first, pages, dropped);
}

bool MHeap::settle(MSpan* span, NodeId asker) {
  if (!span->need_zero) return true;
  bool dropped;
  if (!settle(page_of(span->start_addr), span->pages(), asker, &dropped)) return false;
  if (dropped) span->need_zero = false;
  return true;
}

void MHeap::forget_places() {
  if (!asks_place()) return;
  for (std::size_t i = 0; i < arenas_in_use_; i++) {
    for (std::int16_t& place : arena(i).place) __atomic_store_n(&place, std::int16_t{0}, __ATOMIC_RELAXED);
  }
}

}  // namespace nh
