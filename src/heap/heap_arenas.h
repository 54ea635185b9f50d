// The arenas of one heap, in the order in which it got them, and the table of their units.
//
// A heap numbers its arenas densely, so that its tables are as long as the heap is large, wherever in the window its arenas
// lie. Arenas that lie side by side have numbers that follow each other. Between others one number is left out, so that no
// run of pages reaches from one to the next:
//
//   window    | a0 | b0 | b1 | a1 | a2 | b2 |         (a and b are two heaps)
//   a's pages | a0 | -- | a1 | a2 |
//
// Page and unit numbers count from the first arena: a page of arena k has a number from k * kPagesPerArena on.
//
// Thread safety: prepare() without a lock, by one thread at a time; add() under the heap's lock. Everything else reads
// what add() has written: under the lock, or for arenas in which the caller owns something.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "heap/address_space.h"
#include "heap/unit.h"
#include "page/page_alloc.h"

namespace nh {

class HeapArenas {
 public:
  // Places for the tables, as AddressSpace::Config::heap_table_bytes wants them for a window of this size.
  static std::size_t table_bytes(std::size_t window_bytes);

  // node: where the tables are to lie; invalid: anywhere.
  void init(const OsOps& os, AddressSpace& space, HeapId id, NodeId node);
  void unmap_tables();  // tests

  // The page allocator over all arenas. Belongs to the heap's lock.
  PageAlloc& pages() { return pages_; }

  // Makes the tables long enough for `count` arenas more. 0 or an errno value.
  int prepare(std::size_t count);
  // Takes arenas over that the window dealt: their pages are free from now on.
  void add(ArenaIndex first, std::size_t count);

  // One past the highest number in use, left out ones included.
  std::size_t end() const { return end_; }
  std::size_t count() const { return count_; }
  // kNone for the number of no arena.
  ArenaIndex window_index(std::size_t number) const { return places()[number] - 1; }
  ArenaIndex last() const { return end_ == 0 ? AddressSpace::kNone : window_index(end_ - 1); }
  bool exists(std::size_t number) const { return number < end_ && places()[number] != 0; }

  std::uintptr_t address_of(PageId p) const {
    return space_->arena_address(window_index(p.value / kPagesPerArena)) + p.value % kPagesPerArena * kPageSize;
  }
  std::uintptr_t address_of(UnitId u) const { return address_of(u.first_page()); }
  // a must lie in one of our arenas.
  PageId page_of(std::uintptr_t a) const {
    const ArenaOwner& owner = space_->owner(reinterpret_cast<const void*>(a));
    return PageId(owner.number() * kPagesPerArena + (a - space_->base()) % kArenaSize / kPageSize);
  }
  Unit& unit(UnitId u) const { return static_cast<Unit*>(units_.data())[u.value]; }
  Unit& unit_of(PageId p) const { return unit(UnitId::of(p)); }
  UnitId unit_end() const { return UnitId(end_ * kUnitsPerArena); }

  // Calls visit(UnitRange, address) for every arena.
  template <typename Visit>
  void for_each_arena(Visit&& visit) const {
    for (std::size_t number = 0; number < end_; number++) {
      if (!exists(number)) continue;
      const UnitId first(number * kUnitsPerArena);
      visit(UnitRange{first, first + UnitCount(kUnitsPerArena)}, address_of(first));
    }
  }

  // In a fork child: another thread of the parent may have been inside prepare().
  void repair_after_fork();
  // The same for add(): the page allocator may have been half-changed as well, by that or by whatever held the heap's lock.
  void forget_half_added();

 private:
  friend struct LiveLayout;  // process/live_block.cc

  const std::uint32_t* places() const { return static_cast<const std::uint32_t*>(places_.data()); }

  AddressSpace* space_ = nullptr;
  PageAlloc pages_;
  std::size_t end_ = 0;
  std::size_t count_ = 0;
  WindowTable places_;  // number -> window index + 1; 0 = no arena
  WindowTable units_;
  WindowTable bitmaps_;
  WindowTable summaries_[kTreeLevels];
};

}  // namespace nh
