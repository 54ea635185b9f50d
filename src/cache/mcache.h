// The fast path of malloc and free. What it cannot do it leaves to its caller, the malloc family in src/api/:
//
//   malloc(size) -- mcache_alloc: list by one table load, pop, take the mark off
//     | empty, no rseq, before start, ...
//     +-- CpuCaches::alloc: fetch a batch from the mcentral | fallback mode   (cpu_caches_slow.cc)
//     | > 32 KiB
//     +-- mcache_alloc_bin, mcache_take_extent: the same for large objects
//
//   free(p) ------ mcache_free: page map entry -> object start? -> mark -> push on this CPU's list for p's heap
//     | kOdd: null, foreign, interior, large without a bin, tiny, 8-byte, marked as free already
//     | kFull: the list is full
//     +-- CpuCaches::free: grow the list | send a batch home
//
// There is no "initialised yet?" branch: before start and wherever something is odd the tables below make the fast path
// fail into the slow one.
//
// Thread safety: everything here from any thread and, as far as the fast path goes, from signal handlers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "cache/layout.h"
#include "cache/page_kinds.h"
#include "cache/rseq_section.h"
#include "central/free_mark.h"
#include "heap/address_space.h"
#include "heap/size_classes.h"

namespace nh {

// What the fast path reads beside the tables, in one cache line: written at start, and constant afterwards but for the end
// of the window, which grows (heap/address_space.h says why whoever has an object sees an end behind it).
struct alignas(64) HotState {
  std::uintptr_t base;     // of the window of address space
  std::size_t used_bytes;  // of it; 0 before start, so that no pointer is ours
  const PageEntry* page_map;
  MSpan* const* spans;        // of the window's pages
  std::uint64_t free_key;     // a copy of g_free_key in the line that is here anyway
  const ArenaOwner* owners;   // of the window's arenas
  std::uint32_t extent_heap;  // whose large objects CPUs keep by their descriptors
  std::uint32_t twin_lists;   // from the lists of the local heap to those of its paged twin
  std::size_t delete_bytes;   // as used_bytes, for operator delete with a size, which finds out first whether it may (operators.cc)
};
static_assert(sizeof(HotState) == 64);
extern HotState g_hot [[gnu::visibility("hidden")]];

// Other threads let the window grow meanwhile. An aligned word is read whole in any case, and g++ makes an instruction more
// of an atomic load and a comparison.
#if defined(__SANITIZE_THREAD__)
inline std::size_t hot_used_bytes() { return __atomic_load_n(&g_hot.used_bytes, __ATOMIC_RELAXED); }
#else
[[gnu::always_inline]] inline std::size_t hot_used_bytes() { return g_hot.used_bytes; }
#endif

// (size + 15) / 16 -> offset of the list.
inline constexpr auto kListOffset = [] {
  std::array<std::uint16_t, kMaxSmallSize / 16 + 1> table{};
  for (unsigned i = 0; i < table.size(); i++) {
    table[i] = static_cast<std::uint16_t>(offset_in_set(make_span_class(kAlignedClass[i], false)));
  }
  return table;
}();

// Says that a free object was written to, or is on its list twice, and aborts.
[[noreturn, gnu::cold]] void mark_lost(const void* p);

// Takes the mark off an object that comes from a list. One without it is not handed out: it was written to after it was
// freed, or was freed once more after its mark had been written over, and handed out already.
[[gnu::always_inline]] inline void unmark(void* p) {
  if (mark_word(p) != (g_hot.free_key ^ address(p))) [[unlikely]] mark_lost(p);
  mark_word(p) = 0;
}

// An object for `size` bytes, at most kMaxSmallSize, aligned to 16. False: take the slow way.
[[gnu::always_inline]] inline bool mcache_alloc_small(std::size_t size, void** object) {
  void* p;
  if (!rseq_pop(local_slots(), kListOffset[(size + 15) / 16], &p)) [[unlikely]] return false;
  unmark(p);
  *object = p;
  return true;
}

// The same from the paged twin of the local heap.
[[gnu::always_inline]] inline bool mcache_alloc_paged(std::size_t size, void** object) {
  void* p;
  if (!rseq_pop(local_slots(), g_hot.twin_lists + std::size_t{kListOffset[(size + 15) / 16]}, &p)) [[unlikely]] return false;
  unmark(p);
  *object = p;
  return true;
}

// The same for any size.
[[gnu::always_inline]] inline bool mcache_alloc(std::size_t size, void** object) {
  if (size > kMaxSmallSize) [[unlikely]] return false;
  return mcache_alloc_small(size, object);
}

// An object of a class with mark. False: take the slow way.
[[gnu::always_inline]] inline bool mcache_alloc_class(SpanClass c, void** object) {
  void* p;
  if (!rseq_pop(local_slots(), offset_in_set(c), &p)) [[unlikely]] return false;
  unmark(p);
  *object = p;
  return true;
}

// Pages of a large request -> offset of the list of its bin.
inline constexpr auto kBinListOffset = [] {
  std::array<std::uint16_t, kMaxBinBytes / kPageSize + 1> table{};
  for (std::size_t pages = kMaxSmallSize / kPageSize + 1; pages < table.size(); pages++) {
    table[pages] = static_cast<std::uint16_t>(offset_in_set(bin_class(pages * kPageSize, false)));
  }
  return table;
}();

// A large object of at most kMaxBinBytes. from: 0, or g_hot.twin_lists for the paged twin. False: take the slow way.
[[gnu::always_inline]] inline bool mcache_alloc_bin(std::size_t size, bool noscan, void** object, std::size_t from = 0) {
  const std::size_t offset = from + kBinListOffset[(size + kPageSize - 1) / kPageSize];
  void* p;
  // The lists of a bin's two classes are neighbours.
  if (!rseq_pop(local_slots(), offset + (noscan ? kListBytes : 0), &p)) [[unlikely]] return false;
  unmark(p);
  *object = p;
  return true;
}

// The same of touched pages, with whatever is in it. lists: g_large_route.pages_lists.
[[gnu::always_inline]] inline bool mcache_alloc_touched(std::size_t size, bool noscan, void** object, std::size_t lists) {
  const std::size_t offset = lists + kBinListOffset[(size + kPageSize - 1) / kPageSize] + (noscan ? kListBytes : 0);
  void* p;
  if (!rseq_pop(all_slots(), offset, &p)) return false;
  unmark(p);
  *object = p;
  return true;
}

// An extent of first-touch memory that was freed on this CPU, with whatever is in it. nullptr: none of this size is kept.
// The descriptor stands for the object: it, too, begins with the link. Two threads that free one object at once may both
// have found it in use, so that two CPUs keep it: the second that takes it sees that it is not free, as unmark() does.
[[gnu::always_inline]] inline MSpan* mcache_take_extent(unsigned units) {
  static_assert(offsetof(MSpan, next) == 0);
  void* taken;
  const std::size_t offset = list_offset(HeapId(g_hot.extent_heap), extent_class(units));
  if (!rseq_pop(all_slots(), offset, &taken)) return nullptr;
  auto* span = static_cast<MSpan*>(taken);
  if (span->use != SpanUse::kFreed) [[unlikely]] large_freed_twice(*span);
  span->use = SpanUse::kInUse;
  span->need_zero = true;
  return span;
}

// The large object without a bin that begins at p and is in use. nullptr: the slow way finds out what p is.
[[gnu::always_inline]] inline MSpan* mcache_find_extent(const void* p) {
  constexpr std::size_t kLargeKind = entry_kind(make_page_entry(HeapId(0), kLargeClass, 0));
  const std::uintptr_t at = address(p) - g_hot.base;
  if (at >= hot_used_bytes() || entry_kind(g_hot.page_map[at >> kPageShift]) != kLargeKind) return nullptr;
  MSpan* span = __atomic_load_n(&g_hot.spans[at >> kPageShift], __ATOMIC_RELAXED);
  return span != nullptr && span->use == SpanUse::kInUse && address(p) == span->object_addr() ? span : nullptr;
}

// Frees what mcache_find_extent() found. False: this CPU does not keep it, and the caller gives it to its heap.
[[gnu::always_inline]] inline bool mcache_free_extent(MSpan* span) {
  // Before the push, since afterwards the object is somebody else's. A plain store: a locked instruction here would double
  // the cost of malloc and free together.
  span->use = SpanUse::kFreed;
  const unsigned units = span->npages / kPagesPerHuge;
  if (span->heap != g_hot.extent_heap || units > kMaxKeptUnits) return false;
  const std::size_t offset = list_offset(HeapId(g_hot.extent_heap), extent_class(units));
  // 0: its second word, `prev`, stays null.
  static_assert(offsetof(MSpan, prev) == 8);
  return rseq_push(all_slots(), offset, span, 0);
}

// A pointer to an object that may be freed.
struct LiveObject {
  PageEntry entry;     // of its page
  std::uint64_t mark;  // what its second word holds when it is free
};

// False: p is not the start of an object of a class that has a mark, or it carries the mark; the slow way finds out more.
[[gnu::always_inline]] inline bool mcache_find(const void* p, LiveObject* found, std::size_t bytes = hot_used_bytes()) {
  const std::uintptr_t at = address(p) - g_hot.base;
  if (at >= bytes) [[unlikely]] return false;
  const PageEntry entry = g_hot.page_map[at >> kPageShift];
  if (!kStartTest[entry_kind(entry)](address(p))) [[unlikely]] return false;
  const std::uint64_t mark = g_hot.free_key ^ address(p);
  if (mark_word(const_cast<void*>(p)) == mark) [[unlikely]] return false;
  *found = {entry, mark};
  return true;
}

// Marks the object and pushes it. False: marked only, no room.
[[gnu::always_inline]] inline bool mcache_push(void* p, const LiveObject& object) {
  return rseq_push(all_slots(), entry_list(object.entry), p, object.mark);
}

enum class FreeOutcome { kDone, kOdd, kFull };

// kOdd: nothing was done. kFull: p is the start of an object, now marked as free, and its list has no room.
[[gnu::always_inline]] inline FreeOutcome mcache_free(void* p) {
  LiveObject object;
  if (!mcache_find(p, &object)) [[unlikely]] return FreeOutcome::kOdd;
  return mcache_push(p, object) ? FreeOutcome::kDone : FreeOutcome::kFull;
}

// As mcache_free(), for an object of 1 to kMaxSmallSize bytes that malloc or operator new has given, by its size alone: it
// is of the class of that size and not placed, and its heap is that of its arena. With a wrong size it lands on the list
// of another class. kFull says nothing of p but that it has the mark now. bytes: g_hot.used_bytes, or what stands for it.
[[gnu::always_inline]] inline FreeOutcome mcache_free_trusting(void* p, std::size_t size, std::size_t bytes) {
  const std::uintptr_t at = address(p) - g_hot.base;
  if (at >= bytes) [[unlikely]] return FreeOutcome::kOdd;
  const std::uint64_t mark = g_hot.free_key ^ address(p);
  if (mark_word(p) == mark) [[unlikely]] return FreeOutcome::kOdd;
  const std::size_t offset = std::size_t{g_hot.owners[at >> kArenaShift].lists} + kListOffset[(size + 15) / 16];
  return rseq_push(all_slots(), offset, p, mark) ? FreeOutcome::kDone : FreeOutcome::kFull;
}

// As mcache_free(), for an object that was asked for with `size` bytes. kOdd, too, where that size would be of another
// class. bytes: as above.
[[gnu::always_inline]] inline FreeOutcome mcache_free_checked(void* p, std::size_t size, std::size_t bytes) {
  LiveObject object;
  if (!mcache_find(p, &object, bytes)) [[unlikely]] return FreeOutcome::kOdd;
  const std::size_t kind = entry_kind(object.entry);
  if (size > kSizesOfKind.most[kind] || size <= kSizesOfKind.below[kind]) [[unlikely]] return FreeOutcome::kOdd;
  return mcache_push(p, object) ? FreeOutcome::kDone : FreeOutcome::kFull;
}

}  // namespace nh
