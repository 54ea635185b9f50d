// Which objects the program can still reach: conservative marking.
//
// Every word that may be a pointer counts as one if it points to or into an object in use, and then what that object holds is
// looked at in the same way, unless the object was asked for as one without pointers. An object in use is one that its span
// has handed out and that carries no mark of a free one (central/free_mark.h): so what waits in the caches of CPUs is free
// without their being emptied, which is not possible everywhere. Tiny objects live and die with their block of 16 bytes.
//
// Tables: a bit for each 8 bytes of the window and a word for each page of it, of which as much takes memory as there are
// objects. All is mapped before the other threads are stopped, since what libc calls for a mapping may wait for one of them.
//
// Not thread-safe; nobody else may change the heap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "heap/mspan.h"
#include "os/pagemap.h"
#include "process/scratch.h"

namespace nh {

class LeakMarking {
 public:
  struct Object {
    std::uintptr_t start = 0;
    std::size_t bytes = 0;
    const MSpan* span = nullptr;  // nullptr: no object
  };

  // Tables for the heap as it is, and room to grow. False: no memory.
  bool prepare();
  // Finds the spans. False: the heap has outgrown the tables.
  bool collect();

  // Marks what the words of a range point to, and what can be reached from there. Not memory of the heap, and only what the
  // process itself has stored. A thread that was stopped inside malloc or free may know a large object by its descriptor only.
  void mark_from(std::uintptr_t start, std::uintptr_t end);

  // Once all roots were marked from: calls lost(argument, object, direct) for every object in use that was not reached.
  // direct: no other lost object points to it, or only such as it reaches itself; of a ring one object counts as that.
  void for_each_lost(void (*lost)(void* argument, const Object& object, bool direct), void* argument);

  // Calls visit(start, end) for the tables, whose words are no pointers of the program's.
  template <typename Visit>
  void for_each_table(Visit&& visit) const {
    const auto tell = [&](const auto& table) { visit(address(table.begin()), address(table.begin()) + table.bytes()); };
    tell(reached_);
    tell(pointed_to_);
    tell(spans_);
    tell(work_);
    tell(large_);
  }

 private:
  Object object_at(std::uintptr_t p) const;
  Object object_described_by(std::uintptr_t p) const;
  static bool in_use(const Object& object);
  std::size_t bit_of(std::uintptr_t p) const { return (p - base_) / 8; }
  template <typename Find, typename Visit>
  void for_each_object(std::uintptr_t start, std::uintptr_t end, bool own_only, Find&& find, Visit&& visit) const;
  template <typename Visit>
  void for_each_pointer(std::uintptr_t start, std::uintptr_t end, Visit&& visit) const;
  template <typename Visit>
  void for_each_unreached(Visit&& visit) const;
  void reach(const Object& object);
  void follow();

  std::uintptr_t base_ = 0;
  std::size_t window_bytes_ = 0;       // that the tables reach over
  Scratch<std::uint64_t> reached_;     // a bit for each 8 bytes
  Scratch<std::uint64_t> pointed_to_;  // the same, by lost objects
  Scratch<const MSpan*> spans_;        // of each page
  Scratch<std::uintptr_t> work_;       // objects that were reached and not looked at yet
  Scratch<std::uintptr_t> large_;      // descriptors of large objects, sorted
  PageMap pages_;
};

}  // namespace nh
