#include "large/large.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "process/background.h"
#include "process/memory_limit.h"
#include "process/process.h"
#include "large/sampled.h"
#include "base/bits.h"
#include "cache/mcache.h"

namespace nh {

namespace {

void* start_of(MSpan* span) { return reinterpret_cast<void*>(span->object_addr()); }
void* start_or_error(MSpan* span) {
  if (span != nullptr) return start_of(span);
  errno = ENOMEM;
  return nullptr;
}

MHeap& heap_of(const MSpan* span) { return g_process.heaps[HeapId(span->heap)].heap; }

// What this CPU keeps of touched pages.
bool take_touched(std::size_t size, bool noscan, void** object) {
  const LargeRoute& route = g_large_route;
  return size <= kMaxBinBytes && route.is_touched_pages(size) &&
         mcache_alloc_touched(size, noscan, object, LargeRoute::word(route.pages_lists));
}

// Extents begin at boundaries of 2 MiB. Codes that walk through many arrays of one size side by side would find all their
// streams in the same few sets of every cache, so each begins at a cache line of its own in the first 4 KiB (a lattice
// sweep over 38 arrays: 170 ms, so 114). Where the size leaves no room in the last unit only objects that are large
// beside it get another.
constexpr unsigned kStarts = 64;
constexpr std::size_t kRoomToShift = (kStarts - 1) * kCacheLine;
constexpr std::size_t kMinToAddUnit = 32 * MiB;

void shift_start(MSpan* span, std::size_t size) {
  const std::size_t slack = span->pages().bytes() - size;
  const std::size_t unit = span->start_addr / kHugeSize;
  // Neighbours, and arrays at equal distances, get different lines (multiplicative hashing, Knuth).
  const auto line = static_cast<unsigned>(static_cast<std::uint32_t>(unit * 0x9e3779b1u) >> 26);
  span->shift_object(slack >= kRoomToShift ? line : 0);
}

MSpan* take_extent(std::size_t size, bool noscan, std::size_t alignment) {
  MSpan* span = mcache_take_extent(static_cast<unsigned>(div_up(size, kHugeSize)));
  if (span == nullptr) return nullptr;
  span->nelems = noscan ? MSpan::kLargeNoscan : 0;
  alignment <= kCacheLine ? shift_start(span, size) : span->shift_object(0);
  if (g_process.topology.heap_count() == 1 || heap_of(span).settle(span, current_node())) return span;
  free_large(span);
  return nullptr;
}

MSpan* allocate_from_heaps(HeapChoice from, std::size_t size, std::size_t alignment, bool noscan) {
  return g_process.heaps.alloc_large(from.heap, size, alignment, noscan, from.help, current_node());
}

// bytes: what the heap is asked for. What CPUs keep comes before new memory.
MSpan* allocate_span_from(HeapChoice from, std::size_t bytes, std::size_t alignment, bool noscan) {
  if (g_process.heaps[from.heap].heap.idle_bytes() < bytes) g_caches.drain_large_before_growth(from.heap, bytes);
  MSpan* span = allocate_from_heaps(from, bytes, alignment, noscan);
  if (span == nullptr) {
    release_kept();
    span = allocate_from_heaps(from, bytes, alignment, noscan);
  }
  if (span == nullptr) return nullptr;
  g_caches.large_missed(*span);
  // The memory may have been an object that was freed, and what is no bin becomes one when it shrinks. Fresh pages have no
  // mark, and are not touched for it; extents have none.
  if (span->need_zero && !heap_of(span).whole_units()) mark_word(start_of(span)) = 0;
  return span;
}

MSpan* allocate_span(std::size_t size, std::size_t alignment, bool noscan) {
  if (size > PTRDIFF_MAX || !ensure_started()) return nullptr;
  // What no giving back can make room for.
  if (size > g_process.space.max_bytes() || alignment > g_process.space.max_bytes()) return nullptr;
  const LargeRoute& route = g_large_route;
  const bool units = size >= LargeRoute::word(route.extent_min) || (size > kMaxBinBytes && route.is_touched_pages(size));
  const bool shifts = alignment <= kCacheLine && units && !route.is_best(size);
  const std::size_t bytes = shifts && size >= kMinToAddUnit ? size + kRoomToShift : size;
  if (alignment < kPageSize) alignment = kPageSize;
  MSpan* span = allocate_span_from(heap_for_large(size), bytes, alignment, noscan);
  if (span != nullptr && shifts && heap_of(span).takes_units(bytes)) shift_start(span, size);
  return span;
}

// caller: where malloc() or its like returns to. They jump here, so that it is where these functions return to.
// New touched pages become huge ones when they have rested.
void* returned(MSpan* span, const void* caller) {
  if (span != nullptr && heap_of(span).may_collapse()) touched_pages_were_taken(caller);
  return start_or_error(span);
}

// Out of line, so that the way through a CPU's lists needs no stack frame.
[[gnu::noinline]] void* allocate_other(std::size_t size, bool noscan, std::size_t alignment) {
  if (void* p = allocate_sampled(size, alignment, noscan)) return p;
  if (void* p; take_touched(size, noscan, &p)) return p;
  if (g_large_route.is_extent(size)) {
    if (MSpan* span = take_extent(size, noscan, alignment)) return start_of(span);
  }
  return returned(allocate_span(size, alignment, noscan), __builtin_return_address(0));
}

}  // namespace

void* allocate_large(std::size_t size, bool noscan) {
  void* p;
  if (allocate_bin_fast(size, noscan, &p)) [[likely]] return p;
  return allocate_other(size, noscan, 16);
}

void* allocate_large(std::size_t size) {
  void* p;
  if (allocate_bin_fast(size, false, &p)) [[likely]] return p;
  return allocate_other(size, false, 16);
}

[[gnu::noinline]] void* allocate_large_zeroed(std::size_t size, bool noscan) {
  void* p;
  if (allocate_bin_fast(size, noscan, &p)) return std::memset(p, 0, size);
  if ((p = allocate_sampled(size, 16, noscan, true)) != nullptr) return p;
  if (take_touched(size, noscan, &p)) return std::memset(p, 0, size);
  MSpan* span = g_large_route.is_extent(size) ? take_extent(size, noscan, 16) : nullptr;
  if (span == nullptr) span = allocate_span(size, 16, noscan);
  if (span == nullptr) return start_or_error(nullptr);
  // Pages that come fresh from the OS are zero, and touching them here would place them on this thread's node.
  if (heap_of(span).clear_large(span)) return returned(span, __builtin_return_address(0));
  free_large(span);
  return start_or_error(nullptr);
}

void* allocate_large_aligned(std::size_t size, std::size_t alignment, bool noscan) {
  // What is kept lies at a page, extents at a huge page.
  const bool in_bin = size > kMaxSmallSize && size <= kMaxBinBytes && alignment <= kPageSize;
  if (in_bin && (size <= bin_max() || g_large_route.is_touched_pages(size))) return allocate_large(size, noscan);
  if (alignment <= kHugeSize && g_large_route.is_extent(size)) return allocate_other(size, noscan, alignment);
  if (void* p = allocate_sampled(size, alignment, noscan)) return p;
  return returned(allocate_span(size == 0 ? 1 : size, alignment, noscan), __builtin_return_address(0));
}

void* allocate_large_paged(std::size_t size, std::size_t alignment, bool noscan) {
  // These are ordinary memory, too.
  if (g_large_route.is_touched_pages(size)) return allocate_large_aligned(size, alignment, noscan);
  void* p;
  const bool in_bin = alignment <= kPageSize && size > kMaxSmallSize && !g_large_route.is_best(size);
  if (in_bin && mcache_alloc_bin(size, noscan, &p, g_hot.twin_lists)) return p;
  if ((p = allocate_sampled(size, alignment, noscan)) != nullptr) return p;
  if (alignment < kPageSize) alignment = kPageSize;
  return start_or_error(allocate_span_from(heap_for_paged(size), size == 0 ? 1 : size, alignment, noscan));
}

void free_large(MSpan* span) {
  g_caches.large_turned_away(*span);
  g_process.heaps.free_large(span);
}

}  // namespace nh
