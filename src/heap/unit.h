// Unit: what is known of 2 MiB of a heap's address space. Each heap has one flat table of them, in the order of its pages.
//
// The layout is read from outside the process, too, so it has a version: a change of it must change kUnitTableVersion.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "os/os.h"

namespace nh {

inline constexpr unsigned kUnitTableVersion = 1;

// Unit::place where its pages are known to lie on several nodes.
inline constexpr std::int16_t kMixed = -1;

enum class UnitState : std::uint8_t {
  kReserved,  // address space that is ours to map, and not mapped
  kMapped,    // accessible; its memory may not be used yet
  kBacked,    // its memory may be used: the pages are there, or the program may fault them in
  kLost,      // another mapping of the process lies there: never to be touched
};

enum class UnitKind : std::uint8_t { kBase, kThp, kHuge2M, kHuge1G };

struct Unit {
  UnitState state;
  UnitKind kind : 3;   // of a unit that is mapped or backed
  BindMode bound : 3;  // the policy in force; kDefault: none
  bool kept : 1;       // hugetlb memory that does not exist in fork children
  // First-touch memory of several nodes: the node on which all its pages are known to lie, + 1; 0 = not known. Of touched
  // pages: which object was freed there last, or, in use, kMixed.
  // Belongs to whoever owns the unit; atomic, because a fork makes all of them forgotten.
  std::int16_t place;
  std::uint32_t freed_tick;  // when a page of it was last freed, in scavenger ticks; of touched pages, or taken
  // The thread that works on the unit with the heap's lock released, by its thread pointer (which a fork child keeps);
  // nullptr: nobody. While it is set, state, kind and policy are that thread's to change. It is set and cleared under the
  // heap's lock, so whoever holds that and finds nullptr may read everything.
  const void* worker;

  bool backed() const { return state == UnitState::kBacked; }
  bool mapped() const { return state == UnitState::kMapped || state == UnitState::kBacked; }
  bool hugetlb() const { return mapped() && (kind == UnitKind::kHuge2M || kind == UnitKind::kHuge1G); }
  bool busy() const { return worker != nullptr; }
  bool is_mine() const { return worker == __builtin_thread_pointer(); }
  Backing backing() const {
    if (!backed()) return Backing::kNone;
    switch (kind) {
      case UnitKind::kBase: return Backing::kBase;
      case UnitKind::kThp: return Backing::kThp;
      case UnitKind::kHuge2M: return Backing::kHuge2M;
      case UnitKind::kHuge1G: return Backing::kHuge1G;
    }
    return Backing::kNone;
  }
};
static_assert(sizeof(Unit) == 16);
static_assert(offsetof(Unit, place) == 2 && offsetof(Unit, freed_tick) == 4 && offsetof(Unit, worker) == 8);

// Calls visit(first, count) for every run of neighbours of units[0 .. n) for which same(unit) holds.
template <typename Same, typename Visit>
void for_each_run(const Unit* units, std::size_t n, Same&& same, Visit&& visit) {
  for (std::size_t i = 0; i < n;) {
    if (!same(units[i])) {
      i++;
      continue;
    }
    std::size_t end = i + 1;
    while (end < n && same(units[end])) end++;
    visit(i, end - i);
    i = end;
  }
}

}  // namespace nh
