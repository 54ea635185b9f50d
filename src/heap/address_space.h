// The address space of all heaps: one window that grows, whose arenas are dealt to the heaps that ask; and the flat tables
// that tell what every page of it is.
//
//   base                                                  end in use            limit
//   | heap 0 | heap 0 | heap 2 | heap 1 |  (obstacle)  | heap 0 |   nothing yet   |
//
// Nothing is reserved. A window is a place where nothing is mapped (OsOps::find_window) and nobody else is expected; its
// end only grows. Arenas are dealt in the order of their addresses, and their heap maps memory into them as it needs it.
// If something lies in the way, the arenas there are left out for good.
//
// free() needs one comparison to know that an address is not ours: it lies below the end in use, or it does not. So the
// page map is readable as far as that end. The tables lie at planned places in a window of their own, are mapped in steps
// as arenas are dealt, and read as zero: "nothing of ours".
//
// Thread safety: deal() from any thread. The end in use is stored after the tables behind it are mapped; whoever was handed
// an object of an arena by its allocating thread sees that store as well (it happened before). The entries of a span's
// pages are written by whoever owns the pages; readers see entries of objects that they were given, so no ordering is
// needed beyond the one that gave them the object.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/lock.h"
#include "base/units.h"
#include "heap/mspan.h"
#include "heap/page_entry.h"
#include "os/os.h"

namespace nh {

// A flat array at a planned address of which parts are mapped, from the front on. The caller serialises its calls.
class WindowTable {
 public:
  // place: where nothing is mapped; max_bytes: what it may grow to. Both multiples of kStep.
  void init(const OsOps& os, std::uintptr_t place, std::size_t max_bytes);
  // Makes bytes [0, end) of the array usable. Those in [hole, hole + hole_bytes), behind all that is usable yet, need
  // only be readable; they read as zero. 0, or ENOMEM: the OS refuses, or something else lies there.
  int extend(std::size_t end, std::size_t hole = 0, std::size_t hole_bytes = 0);
  // From now on its memory comes in transparent huge pages, where there are such.
  void prefer_huge_pages() { huge_ = true; }
  // From now on its memory lies on this node.
  void prefer_node(NodeId node) { node_ = node; }
  void unmap();
  // In a fork child: another thread of the parent may have been inside extend().
  void repair_after_fork();

  void* data() const { return reinterpret_cast<void*>(place_); }
  std::size_t bytes() const { return mapped_; }

  // A multiple of every page size of the kernels there are (64 KiB on some).
  static constexpr std::size_t kStep = 64 * KiB;

 private:
  friend struct LiveLayout;  // process/live_block.cc

  int map_until(std::size_t end, bool readable_only);

  const OsOps* os_ = nullptr;
  std::uintptr_t place_ = 0;
  std::size_t max_bytes_ = 0;
  std::size_t mapped_ = 0;
  std::size_t mapping_until_ = 0;  // while the OS is being asked
  bool huge_ = false;
  NodeId node_;
};

// One arena of the window.
struct ArenaOwner {
  std::uint32_t place;  // its number among the arenas of its heap (heap/heap_arenas.h), + 1; 0 = nobody's
  std::uint32_t lists;  // where the lists of its heap begin, as a page entry says it

  bool has_heap() const { return place != 0; }
  HeapId heap() const { return HeapId(lists / static_cast<std::uint32_t>(list_offset(HeapId(1), SpanClass()))); }
  std::size_t number() const { return place - std::size_t{1}; }
};
static_assert(sizeof(ArenaOwner) == 8);

// An arena of the window, counted from its base.
using ArenaIndex = std::uint32_t;

class AddressSpace {
 public:
  struct Config {
    std::size_t bytes = 0;              // the most that the window may grow to, a multiple of kArenaSize
    std::size_t heap_table_bytes = 0;   // places to plan for tables of each heap (heap_tables())
    unsigned heaps = 1;
  };

  // False where the OS has no place for a window or its first tables.
  bool init(const OsOps& os, const Config& config);
  // Gives the tables back (tests). The arenas are their heaps' to unmap.
  void destroy();

  // Where a copy of used_bytes() is to be kept up to date, for a fast path that wants it beside other things.
  void mirror_used_bytes(std::size_t* copy);

  bool contains(const void* p) const { return address(p) - base_ < used_bytes(); }
  std::uintptr_t base() const { return base_; }
  // From the base on; bytes behind were never dealt.
  std::size_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  std::size_t max_bytes() const { return max_bytes_; }
  PageEntry* page_map() const { return static_cast<PageEntry*>(page_map_.data()); }
  // Of the first page of each span, as far as the page map has entries.
  MSpan** spans() const { return static_cast<MSpan**>(spans_.data()); }
  // Indexed by (address - base) >> kArenaShift, as far as the window is in use.
  const ArenaOwner* owners() const { return static_cast<const ArenaOwner*>(owners_.data()); }

  // p must be contained.
  const ArenaOwner& owner(const void* p) const { return owners()[(address(p) - base_) >> kArenaShift]; }
  // p must lie in an arena that was dealt.
  HeapId heap_of(const void* p) const { return owner(p).heap(); }
  std::uintptr_t arena_address(ArenaIndex i) const { return base_ + std::uintptr_t{i} * kArenaSize; }
  // Places for the tables of a heap, heap_table_bytes of them, where nothing is mapped.
  std::uintptr_t heap_tables(HeapId h) const { return heap_tables_ + h.value * heap_table_bytes_; }

  // Deals `count` arenas side by side to a heap, the first at a multiple of `alignment` bytes (a power of two; at most
  // kArenaSize asks for nothing), and numbers them from `next` on, or, if the heap's last arena `behind` is not right
  // before them, from next + 1 on. ENOMEM: the window is used up, or its tables cannot grow; nothing changed. EDEADLK: the calling
  // thread is inside deal() already (a function that libc calls for us allocates).
  static constexpr ArenaIndex kNone = UINT32_MAX;
  int deal(HeapId h, std::size_t count, std::size_t alignment, ArenaIndex behind, std::uint32_t next, ArenaIndex* first);

  // Whether the OS would map so much more. It may be gone a moment later.
  bool has_room(std::size_t bytes);

  // p must be contained.
  PageEntry entry(const void* p) const { return __atomic_load_n(&page_map()[index(address(p))], __ATOMIC_RELAXED); }

  // The span that p lies in, nullptr where its page is not in use. For a large object only its first page knows.
  MSpan* span_of(const void* p) const {
    if (!contains(p)) return nullptr;
    const PageEntry e = entry(p);
    if (e == 0) return nullptr;
    return __atomic_load_n(&spans()[index(address(p)) - entry_index(e)], __ATOMIC_RELAXED);
  }
  // For span_of() soon after. p must be contained.
  void prefetch_span_of(const void* p) const {
    __builtin_prefetch(&page_map()[index(address(p))]);
    __builtin_prefetch(&spans()[index(address(p))]);
  }
  // The same for any address inside a large object: walks back page by page. For error messages only.
  MSpan* span_around(const void* p) const;

  void publish(MSpan* span);
  void retract(MSpan* span);

  // Calls visit(MSpan*) for every span in use that begins in an arena that was dealt. The caller keeps them from changing.
  template <typename Visit>
  void for_each_span(ArenaIndex arena, Visit&& visit) const {
    for (std::size_t i = arena * kPagesPerArena, end = i + kPagesPerArena; i < end; i++) {
      if (page_map()[i] != 0 && entry_index(page_map()[i]) == 0 && spans()[i] != nullptr) visit(spans()[i]);
    }
  }

  // In a fork child: another thread of the parent may have been inside deal().
  void repair_after_fork();

 private:
  std::size_t index(std::uintptr_t a) const { return (a - base_) >> kPageShift; }
  bool place_tables(std::uintptr_t place);
  int extend_tables(ArenaIndex hole, ArenaIndex first, ArenaIndex end);

  const OsOps* os_ = nullptr;
  std::uintptr_t base_ = 0;
  std::size_t max_bytes_ = 0;
  std::atomic<std::size_t> used_bytes_{0};
  // Arenas before it are in a hole, whose part of the page map may be readable only, even if deal() failed afterwards.
  ArenaIndex floor_ = 0;
  std::size_t* mirror_ = nullptr;
  std::uintptr_t heap_tables_ = 0;
  std::size_t heap_table_bytes_ = 0;
  unsigned heaps_ = 0;
  Lock lock_{LockRank::kWindow};
  WindowTable page_map_;
  WindowTable spans_;
  WindowTable owners_;
};

}  // namespace nh
