// Hugetlb memory that has to become ordinary memory of the same content, at the same address: what fork needs where the
// pools cannot serve both processes.
//
// Works on the bits of HeapArena without the heap's lock, since it runs in signal handlers and in fork children. It
// changes the bits of units that the program has in use only, and atomically; a thread that has the arena busy changes
// those of units that are free or not handed out yet.
#pragma once

#include <cstddef>
#include <cstdint>

#include "heap/mheap.h"

namespace nh {

// How the kernel treats hugetlb memory across a fork.
enum class HugeKind : std::uint8_t {
  kUnreserved,  // private, NORESERVE: whoever writes first copies, and gets SIGBUS where the pool is dry
  // Private with a reservation, which belongs to the process that mapped it. Where the pool is dry and that process
  // writes, the kernel takes the page away from all others (unmap_ref_private in mm/hugetlb.c), who are killed when they
  // touch it. And what has no page yet has no reservation in a child.
  kReserved,
  kShared,  // a shared file: no copy is ever made
};
HugeKind huge_kind(const MHeap& heap);

// A piece of hugetlb memory that can be protected or moved as a whole: a run of 2 MiB units within an arena, or a group
// of arenas on a page of 1 GiB.
struct HugePiece {
  HeapArena* arena = nullptr;  // the first one
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  std::size_t page_bytes = 0;
  void* at() const { return reinterpret_cast<void*>(start); }
};

// The page of hugetlb memory around p; bytes = 0 where p lies in other memory.
HugePiece huge_page_around(MHeap& heap, const void* p);

// Calls visit(const HugePiece&) for all backed hugetlb memory of a heap.
template <typename Visit>
void for_each_huge_piece(MHeap& heap, Visit&& visit) {
  heap.for_each_arena([&](HeapArena& arena, std::uintptr_t base) {
    const std::uint32_t huge_1g = __atomic_load_n(&arena.huge_1g, __ATOMIC_RELAXED);
    if (huge_1g != 0) {
      if (base % GiB == 0) visit(HugePiece{&arena, base, GiB, GiB});
      return;
    }
    const std::uint32_t backed = __atomic_load_n(&arena.backed, __ATOMIC_RELAXED);
    const std::uint32_t units = __atomic_load_n(&arena.hugetlb, __ATOMIC_RELAXED) & backed;
    for_each_run(units, [&](unsigned first, unsigned count) {
      visit(HugePiece{&arena, base + first * kHugeSize, count * kHugeSize, kHugeSize});
    });
  });
}

// Puts transparent huge pages in the place of a piece: with the same content, or with zeros where keep is false.
// others_run: other threads of the process are alive; they find the piece read-only while it is copied. False: nothing
// changed (out of memory, too many mappings).
bool replace_huge_pages(MHeap& heap, const HugePiece& piece, bool keep, bool others_run);

// In a fork child, alone: makes everything of a heap that lies on hugetlb memory the child's own. False: some piece was
// left as it was.
bool relocate_after_fork(MHeap& heap);
// In a fork child that shares its parent's pages: what cannot stay shared. Memory with no page behind it, for which the
// child has no reservation, becomes ordinary memory; so does what MADV_DONTFORK kept back, which reads as zero then: a
// hole in the heap would catch the next mmap of the child.
void settle_after_fork(MHeap& heap);

// ---- frozen pieces: read-only so that a store can be caught --------------------------------------------------------
bool is_frozen(const HugePiece& piece);
// Makes all backed hugetlb memory of the heap read-only. What the kernel refuses stays as it is.
void freeze(MHeap& heap);
void thaw(MHeap& heap, const HugePiece& piece);

}  // namespace nh
