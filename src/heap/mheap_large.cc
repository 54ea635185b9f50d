// Large objects: spans of their own, of any size.
#include <cstring>

#include "base/bits.h"
#include "base/check.h"
#include "base/format.h"
#include "heap/mheap.h"

namespace nh {
namespace {

// From here on dropping pages and faulting them in again is no dearer than clearing them, and a sparse user pays less.
constexpr std::size_t kDropToClear = 64 * MiB;
// A descriptor counts pages in 32 bits: 32 TiB.
constexpr std::size_t kMostPages = UINT32_MAX;

}  // namespace

MSpan* MHeap::alloc_large(std::size_t bytes, std::size_t alignment, bool noscan, SpanClass c, NodeId asker) {
  if (bytes > space_->max_bytes() || alignment > space_->max_bytes() || backer_.exceeds_memory(bytes)) return nullptr;
  const PageCount pages = pages_for(bytes);
  if (pages.value > kMostPages) return nullptr;
  CpuPages* all = cpu_pages();
  MSpan* span = all == nullptr ? nullptr : new_descriptor(all[0]);
  if (span == nullptr) return nullptr;
  // Whole units begin at one, even where another heap's exhaustion has brought small spans here.
  if (takes_units(bytes) && alignment < kHugeSize) alignment = kHugeSize;
  const PageAlloc::Run run = pages_from_heap(pages, alignment >> kPageShift);
  if (!run.ok) {
    LockGuard guard(lock_);
    span->next = spare_;
    spare_ = span;
    return nullptr;
  }
  make_span(span, run, pages, c);
  span->shift_object(0);
  span->nelems = noscan ? MSpan::kLargeNoscan : 0;  // see MSpan::noscan()
  large_objects_.fetch_add(1, std::memory_order_relaxed);
  span->alloc_cache = 0;
  count_large(span, bytes);
  space_->publish(span);
  if (settle(span, asker)) return span;
  free_span(span);
  return nullptr;
}

// Statistics count large objects by the memory that was asked for, in whole pages of the OS, as programs expect that know
// glibc. What CPUs may keep counts as its span, since they do not know what was asked for.
void MHeap::count_large(MSpan* span, std::size_t bytes) {
  const std::size_t all = span->pages().bytes();
  const std::size_t counted = all <= kMaxKeptBytes ? all : align_up(bytes, kOsPageSize);
  large_bytes_.fetch_add(counted - span->alloc_cache, std::memory_order_relaxed);
  span->alloc_cache = counted;
}

// Takes free pages that begin where an object ends.
bool MHeap::extend(PageId end, PageCount more, NodeId asker) {
  PageCount scavenged;
  {
    LockGuard guard(lock_);
    PageAlloc& all = arenas_.pages();
    bool ok = all.extend(end, more, &scavenged);
    if (!ok && end <= all.end() && is_last_of_window()) {
      // Nothing but free pages between us and the end of the window: the heap can grow behind us.
      const PageCount behind = all.end() - end;
      if (behind < more && (behind.value == 0 || all.is_free(end, behind)) && grow_L(more - behind)) {
        ok = all.extend(end, more, &scavenged);
      }
    }
    if (!ok) return false;
    if (!back_L(end, more)) {
      release_free_L(end, more);
      return false;
    }
  }
  bool dropped;
  if (scavenged != more && !settle(end, more, asker, &dropped)) {
    LockGuard guard(lock_);
    release_free_L(end, more);
    return false;
  }
  in_use_.fetch_add(more.bytes(), std::memory_order_relaxed);
  return true;
}

bool MHeap::resize_large(MSpan* span, std::size_t bytes, SpanClass c, NodeId asker) {
  if (bytes > space_->max_bytes()) return false;
  const PageCount old = span->pages();
  if (bytes > old.bytes() && backer_.exceeds_memory(bytes)) return false;
  const PageCount pages = pages_for(bytes + span->free_index * kCacheLine);
  if (pages.value > kMostPages) return false;
  if (pages == old) {
    count_large(span, bytes);
    return true;
  }
  const PageId first = arenas_.page_of(span->start_addr);
  if (pages < old) {
    LockGuard guard(lock_);
    arenas_.pages().free(first + pages, old - pages);
    note_freed_L(first + pages, old - pages);
    in_use_.fetch_sub((old - pages).bytes(), std::memory_order_relaxed);
  } else if (!extend(first + old, pages - old, asker)) {
    return false;
  }
  span->npages = static_cast<std::uint32_t>(pages.value);
  count_large(span, bytes);
  span->shift_object(span->free_index);
  span->span_class = c;
  const SpanUse use = span->use;
  space_->publish(span);
  span->use = use;
  return true;
}

// Whether the heap's last arena is the window's, so that what is dealt next lies right behind it.
bool MHeap::is_last_of_window() const {
  return arenas_.end() != 0 && (std::size_t{arenas_.last()} + 1) * kArenaSize == space_->used_bytes();
}

bool MHeap::has_hugetlb(PageId first, PageCount pages) const {
  const UnitRange units = UnitRange::around(first, pages);
  for (UnitId u = units.first; u < units.end; ++u) {
    if (arenas_.unit(u).hugetlb()) return true;
  }
  return false;
}

bool MHeap::clear_large(MSpan* span) {
  if (!span->need_zero) return true;
  span->need_zero = false;
  void* start = reinterpret_cast<void*>(span->start_addr);
  const std::size_t bytes = span->pages().bytes();
  const PageId first = arenas_.page_of(span->start_addr);
  if (kind() == HeapKind::kTouchedPages) {
    // It lies where it should, or its pages would have been dropped.
    if (bytes < kDropToClear || os_->discard(start, bytes) != 0) std::memset(start, 0, bytes);
    return true;
  }
  // Clearing touches, and the program's own threads are to be the first to touch a page. Where the place of all pages is
  // known they are there. Without several nodes it is only a matter of cost, and pages of a pool stay: another process
  // might take them.
  const bool by_touch = asks_place() && !backer_.home().is_set();
  bool drop = backer_.first_touch() && bytes >= kDropToClear && (by_touch || !has_hugetlb(first, span->pages()));
  const UnitRange units = UnitRange::around(first, span->pages());
  for (UnitId u = units.first; asks_place() && u < units.end; ++u) {
    drop |= __atomic_load_n(&arenas_.unit(u).place, __ATOMIC_RELAXED) == 0;
  }
  bool dropped = false;
  if (drop && !renew(first, span->pages(), &dropped)) return false;
  if (!dropped) std::memset(start, 0, bytes);
  return true;
}

void large_freed_twice(const MSpan& span) {
  Text<120> text;
  text.text("double free of the large object ").ptr(reinterpret_cast<const void*>(span.object_addr()));
  text.text(": two threads freed it at once");
  fatal(text.c_str());
}

}  // namespace nh
