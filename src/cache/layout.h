// mcache: what one CPU's cache looks like in memory.
//
// For every heap and span class one intrusive list, on which free() pushes and from which malloc() pops: the last object
// freed is the first one handed out, while it is warm.
//
// Since the lists of all heaps are there, an object of another node needs no branch: its list on this CPU is the buffer
// in which it waits for its way home. Placed objects, which are handed out from the lists of any heap, have a second set
// of lists for each.
//
// Head and room are separate words on purpose: packed into one, the next call waits for the header of this one (7.2 - 7.9
// ns for a pair). What malloc() loads is what the free() just before has stored; processors pass such a word on without
// waiting only where both name its address as register and displacement, without an index (rseq_section.h: 3.4 ns, with an
// index 5.3). The room is a hint, because a restartable sequence that is aborted between its two stores has changed the
// room only; it is set right whenever a list is taken as a whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/lock.h"
#include "base/units.h"
#include "heap/page_entry.h"

namespace nh {

struct FreeList {
  void* head;          // linked through the objects' first word
  std::uint32_t room;  // how many more objects it takes
  std::uint32_t cap;   // room when empty; 0 = not in use
  // About how many objects it holds; any thread may ask.
  std::uint32_t count() const {
    const std::uint32_t most = __atomic_load_n(&cap, __ATOMIC_RELAXED), left = __atomic_load_n(&room, __ATOMIC_RELAXED);
    return most > left ? most - left : 0;
  }
};

// One of the two sets of lists that a CPU's cache has of each heap (list_set() in heap/page_entry.h).
struct ListSet {
  FreeList of[kClassCodes];
};
static_assert(sizeof(FreeList) == kListBytes && sizeof(ListSet) == kListSetBytes);

// Large objects. A CPU keeps a few that were freed on it, so that a loop that allocates and frees one does not reach the
// page allocator (3 - 8 ns instead of 190 - 500). They use the lists from kFirstBinList on.
//   - In node heaps they are objects like any other: free() marks them, links them through their first word, and the
//     page map's class is that of the list.
//   - First-touch memory is not touched by free(), since a page that nobody has written to would get its place then. Its
//     extents are linked through their descriptors, and the list tells the number of units.
//   - Touched pages are as in node heaps, on every CPU: the first page of 128 KiB and more is the only one that free() may
//     be the first to touch. They are handed out with the pages that they have, as glibc's heap does.
inline constexpr unsigned kMaxKeptUnits = kMaxKeptBytes / kHugeSize;
constexpr SpanClass extent_class(unsigned units) { return SpanClass(kFirstBinList + units - 1); }
static_assert(extent_class(kMaxKeptUnits).list() < kClassCodes);
constexpr unsigned units_of_extent(SpanClass c) { return c.list() + 1 - kFirstBinList; }
inline constexpr unsigned kLargeLists = kClassCodes - kFirstBinList;

// One CPU's cache, on the CPU's node.
struct CpuCache {
  ListSet* lists;        // two per heap
  Lock lock{LockRank::kCache};  // only where restartable sequences are missing
  HeapId local;          // the heap that this CPU allocates from
  std::uint32_t cpu;
  bool has_other_heaps;          // objects of other heaps than the local one were allocated or freed here
  bool has_placed;               // placed objects were allocated or freed here
  std::uint32_t clock_hand;      // where the search for unused capacity goes on
  std::uint32_t substituted;     // objects that another node's heap has given because the local one's was full
  std::uint32_t starved;         // misses of lists that could not grow any more
  std::uint64_t capacity_bytes;  // sum of cap * object size over all lists of small objects
  std::uint64_t large_capacity_bytes;  // the same for large ones
  // Large objects of these lists were turned away for want of capacity: [0] those of the CPU's own heap, [1] of its twin,
  // [2] extents, [3] touched pages.
  bool turned_away[4][kLargeLists];
  std::uint64_t refills;         // batches fetched
  std::uint64_t flushes;         // batches sent off
  Lock tiny_lock{LockRank::kTiny};
  std::uint32_t tiny_offset;     // where the next tiny object may begin in tiny_block
  std::uintptr_t tiny_block;     // the 16 bytes being filled; 0 = none
  std::uint16_t* tiny_starts;    // its start bits
  std::uint64_t lists_seen;        // of which lists drain_one_unused() has last found this cache to consist,
  std::uint64_t lists_changed_ns;  // and when it first found them so
};

// Where the fast path finds a CPU's lists: one table for malloc(), which holds the local heap's lists, one for free(),
// which holds the first heap's and counts on from there. Two tables of pointers, since pairs would need a shift of the
// index. Index: the signed cpu_id; -1 and -2 mean a thread without registration. Slots of CPUs that are not prepared or
// switched off point to the permanent empty lists.
//
// The tables are variables of the library rather than memory of a heap, whose address would have to be loaded first: a
// load less in malloc() and in free(), worth 0.2 ns each (Xeon, batch/fifo-64). Most of them is never touched.
using CpuSlot = char*;
struct alignas(64) CpuSlots {
  CpuSlot of[2 + kMaxCpus];
};
extern CpuSlots g_local_slots [[gnu::visibility("hidden")]];
extern CpuSlots g_all_slots [[gnu::visibility("hidden")]];
inline CpuSlot* local_slots() { return g_local_slots.of + 2; }
inline CpuSlot* all_slots() { return g_all_slots.of + 2; }

}  // namespace nh
