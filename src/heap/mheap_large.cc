// Large objects: spans of their own, of any size.
#include <cstring>

#include "base/bits.h"
#include "heap/mheap.h"

namespace nh {
namespace {

// From here on dropping pages and faulting them in again is no dearer than clearing them, and a sparse user pays less.
constexpr std::size_t kDropToClear = 64 * MiB;

}  // namespace

MSpan* MHeap::alloc_large(std::size_t bytes, std::size_t alignment, bool noscan, SpanClass c) {
  // Pages count from the start of the region: they can be aligned no better than it is.
  if (bytes > space_->region_bytes() || !is_aligned(start_, alignment)) return nullptr;
  const PageCount pages = pages_for(bytes);
  CpuPages* all = cpu_pages();
  MSpan* span = all == nullptr ? nullptr : new_descriptor(all[0]);
  if (span == nullptr) return nullptr;
  // Whole units begin at one, even where another heap's exhaustion has brought small spans here.
  if (config_.whole_units && alignment < kHugeSize) alignment = kHugeSize;
  const PageAlloc::Run run = pages_from_heap(pages, alignment >> kPageShift);
  if (!run.ok) {
    LockGuard guard(lock_);
    span->next = spare_;
    spare_ = span;
    return nullptr;
  }
  make_span(span, run, pages, c);
  span->elem_size = pages.bytes();
  span->nelems = noscan ? 1 : 0;  // see MSpan::noscan()
  large_objects_.fetch_add(1, std::memory_order_relaxed);
  large_bytes_.fetch_add(pages.bytes(), std::memory_order_relaxed);
  space_->publish(span);
  return span;
}

bool MHeap::resize_large(MSpan* span, std::size_t bytes, SpanClass c) {
  if (bytes > space_->region_bytes()) return false;
  const PageCount old = span->pages();
  const PageCount pages = pages_for(bytes);
  if (pages == old) return true;
  const PageId first = page_of(span->start_addr);
  if (pages < old) {
    LockGuard guard(lock_);
    pages_.free(first + pages, old - pages);
    note_freed_L(first + pages, old - pages);
    in_use_.fetch_sub((old - pages).bytes(), std::memory_order_relaxed);
    large_bytes_.fetch_sub((old - pages).bytes(), std::memory_order_relaxed);
  } else {
    LockGuard guard(lock_);
    const PageId end = first + old;
    const PageCount more = pages - old;
    PageCount scavenged;
    bool ok = pages_.extend(end, more, &scavenged);
    if (!ok && end <= pages_.end()) {
      // Nothing but free pages between us and the end of the heap: the heap can grow behind us.
      const PageCount behind = pages_.end() - end;
      if (behind < more && (behind.value == 0 || pages_.is_free(end, behind)) && grow_L(more - behind)) {
        ok = pages_.extend(end, more, &scavenged);
      }
    }
    if (!ok) return false;
    if (!back_L(end, more)) {
      free_unbacked_L(end, more);
      return false;
    }
    in_use_.fetch_add(more.bytes(), std::memory_order_relaxed);
    large_bytes_.fetch_add(more.bytes(), std::memory_order_relaxed);
  }
  span->npages = static_cast<std::uint32_t>(pages.value);
  span->elem_size = pages.bytes();
  span->span_class = c;
  space_->publish(span);
  return true;
}

void MHeap::clear_large(MSpan* span) {
  if (!span->need_zero) return;
  span->need_zero = false;
  if (!config_.backing.first_touch || span->pages().bytes() < kDropToClear) {
    std::memset(reinterpret_cast<void*>(span->start_addr), 0, span->pages().bytes());
    return;
  }
  // The kernel gives zeroed pages anyway, where the program touches them, and on the node of the thread that does. Pages
  // of a pool stay: dropped ones would lose their reservation.
  const std::size_t units = span->pages().bytes() / kHugeSize;
  const std::size_t first = page_of(span->start_addr).value / kPagesPerHuge;
  for (std::size_t u = first; u < first + units;) {
    const std::size_t stop = align_up(u + 1, kHugePerArena) < first + units ? align_up(u + 1, kHugePerArena) : first + units;
    std::uint32_t hugetlb;
    {
      LockGuard guard(lock_);
      while (arena(u / kHugePerArena).busy) wait_L();
      hugetlb = arena(u / kHugePerArena).hugetlb;
    }
    const std::uint32_t mine = unit_bits(static_cast<unsigned>(u % kHugePerArena), static_cast<unsigned>(stop - u));
    const std::uintptr_t base = start_ + u / kHugePerArena * kArenaSize;
    for (const std::uint32_t kind : {mine & hugetlb, mine & ~hugetlb}) {
      for_each_run(kind, [&](unsigned run, unsigned count) {
        void* start = reinterpret_cast<void*>(base + run * kHugeSize);
        const bool dropped = kind == (mine & ~hugetlb) && os_->discard(start, count * kHugeSize) == 0;
        if (!dropped) std::memset(start, 0, count * kHugeSize);
      });
    }
    u = stop;
  }
}

}  // namespace nh
