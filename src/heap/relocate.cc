#include "heap/relocate.h"

#include <cerrno>
#include <cstring>

#include "base/bits.h"
#include "os/residency.h"

namespace nh {
namespace {

// Calls visit(HeapArena&, units) for the arenas that a piece lies in.
template <typename Visit>
void for_each_arena_of(const HugePiece& piece, Visit&& visit) {
  if (piece.page_bytes == GiB) {
    for (std::size_t i = 0; i < kArenasPerGiB; i++) visit(piece.arena[i], HeapArena::kAll);
    return;
  }
  const auto first = static_cast<unsigned>(piece.start % kArenaSize / kHugeSize);
  visit(*piece.arena, unit_bits(first, static_cast<unsigned>(piece.bytes / kHugeSize)));
}

void set_bits(std::uint32_t* word, std::uint32_t bits) { __atomic_fetch_or(word, bits, __ATOMIC_RELAXED); }
void clear_bits(std::uint32_t* word, std::uint32_t bits) { __atomic_fetch_and(word, ~bits, __ATOMIC_RELAXED); }

void note_plain(const HugePiece& piece, bool thp) {
  for_each_arena_of(piece, [&](HeapArena& arena, std::uint32_t units) {
    clear_bits(&arena.hugetlb, units);
    clear_bits(&arena.huge_1g, units);
    clear_bits(&arena.frozen, units);
    if (thp) set_bits(&arena.thp, units);
  });
}

// A fresh mapping knows nothing of the arena's policy.
void bind_like(MHeap& heap, const HugePiece& piece, void* memory) {
  if (piece.arena->bound == BindMode::kDefault) return;
  heap.os().bind(memory, piece.bytes, piece.arena->bound, heap.backer().config().nodes);
}

// Calls visit(part, state) for runs of pages of a piece in the same state.
template <typename Visit>
void for_each_state(const HugePiece& piece, Visit&& visit) {
  HugePiece part = piece;
  part.bytes = 0;
  PageState state = PageState::kPresent;
  for (std::uintptr_t at = piece.start; at < piece.start + piece.bytes; at += piece.page_bytes) {
    const PageState here = page_state(reinterpret_cast<const void*>(at));
    if (here != state) {
      if (part.bytes != 0) visit(part, state);
      part.start = at;
      part.bytes = 0;
      state = here;
    }
    part.bytes += piece.page_bytes;
  }
  visit(part, state);
}

}  // namespace

HugeKind huge_kind(const MHeap& heap) {
  const Backer::Config& config = heap.backer().config();
  if (config.source == HugeSource::kSharedFile) return HugeKind::kShared;
  return config.first_touch ? HugeKind::kReserved : HugeKind::kUnreserved;
}

HugePiece huge_page_around(MHeap& heap, const void* p) {
  HugePiece piece;
  const std::uintptr_t at = address(p);
  if (at < heap.region_start() || at >= heap.region_end_in_use()) return piece;
  const auto unit = static_cast<unsigned>(at % kArenaSize / kHugeSize);
  heap.visit_arena(at, [&](HeapArena& arena) {
    if ((__atomic_load_n(&arena.hugetlb, __ATOMIC_RELAXED) >> unit & 1) == 0) return;
    const bool is_1g = (__atomic_load_n(&arena.huge_1g, __ATOMIC_RELAXED) >> unit & 1) != 0;
    piece.page_bytes = piece.bytes = is_1g ? GiB : kHugeSize;
    piece.start = align_down(at, piece.page_bytes);
    piece.arena = &arena - (is_1g ? at % GiB / kArenaSize : 0);
  });
  return piece;
}

bool replace_huge_pages(MHeap& heap, const HugePiece& piece, bool keep, bool others_run) {
  const OsOps& os = heap.os();
  if (!keep) {
    if (os.map_plain(piece.at(), piece.bytes) != 0) return false;
    const bool thp = os.advise_thp(piece.at(), piece.bytes, true) == 0;
    bind_like(heap, piece, piece.at());
    note_plain(piece, thp);
    return true;
  }
  void* const copy = os.reserve(piece.bytes, kHugeSize);
  if (copy == nullptr) return false;
  bool ok = os.make_writable(copy, piece.bytes) == 0;
  const bool thp = ok && os.advise_thp(copy, piece.bytes, true) == 0;
  if (ok) bind_like(heap, piece, copy);
  // Out of memory shows as an error here, as a killed process in the copy below. A kernel without the call takes the
  // risk.
  if (ok) {
    const int error = os.populate(copy, piece.bytes);
    ok = error == 0 || error == EINVAL;
  }
  if (ok && others_run) ok = os.make_readable(piece.at(), piece.bytes) == 0;
  if (!ok) {
    os.unreserve(copy, piece.bytes);
    return false;
  }
  std::memcpy(copy, piece.at(), piece.bytes);
  if (os.move_mapping(copy, piece.at(), piece.bytes) != 0) {
    // Unchanged or a reservation, that cannot be told: fresh memory in either case, filled from the copy.
    const bool again = os.map_plain(piece.at(), piece.bytes) == 0;
    if (again) std::memcpy(piece.at(), copy, piece.bytes);
    os.unreserve(copy, piece.bytes);
    if (!again) return false;
  }
  note_plain(piece, thp);
  return true;
}

bool relocate_after_fork(MHeap& heap) {
  const HugeKind kind = huge_kind(heap);
  bool ok = true;
  for_each_huge_piece(heap, [&](const HugePiece& piece) {
    for_each_state(piece, [&](const HugePiece& part, PageState state) {
      // The page table of a child says nothing about a shared file: its pages come with the first access.
      const bool present = state == PageState::kPresent || (state == PageState::kEmpty && kind == HugeKind::kShared);
      if (part.bytes != 0) ok &= replace_huge_pages(heap, part, present, false);
    });
  });
  if (kind != HugeKind::kShared) return ok;
  // Units that no page was ever asked for: populating one now would put the same page into both processes.
  heap.for_each_arena([&](HeapArena& arena, std::uintptr_t base) {
    for_each_run(arena.hugetlb & ~arena.backed, [&](unsigned first, unsigned count) {
      const std::uint32_t units = unit_bits(first, count);
      if (heap.os().reset_to_reserved(reinterpret_cast<void*>(base + first * kHugeSize), count * kHugeSize) != 0) ok = false;
      arena.mapped &= ~units;
      arena.hugetlb &= ~units;
    });
  });
  return ok;
}

void settle_after_fork(MHeap& heap) {
  for_each_huge_piece(heap, [&](const HugePiece& piece) {
    for_each_state(piece, [&](const HugePiece& part, PageState state) {
      if (part.bytes != 0 && state != PageState::kPresent) replace_huge_pages(heap, part, false, false);
    });
  });
}

bool is_frozen(const HugePiece& piece) {
  bool frozen = false;
  for_each_arena_of(piece, [&](HeapArena& arena, std::uint32_t units) {
    frozen |= (__atomic_load_n(&arena.frozen, __ATOMIC_RELAXED) & units) != 0;
  });
  return frozen;
}

void freeze(MHeap& heap) {
  for_each_huge_piece(heap, [&](const HugePiece& piece) {
    const auto mark = [&](bool frozen) {
      for_each_arena_of(piece, [&](HeapArena& arena, std::uint32_t units) {
        frozen ? set_bits(&arena.frozen, units) : clear_bits(&arena.frozen, units);
      });
    };
    mark(true);
    if (heap.os().make_readable(piece.at(), piece.bytes) != 0) mark(false);
  });
}

void thaw(MHeap& heap, const HugePiece& piece) {
  if (heap.os().make_writable(piece.at(), piece.bytes) != 0) return;
  for_each_arena_of(piece, [&](HeapArena& arena, std::uint32_t units) { clear_bits(&arena.frozen, units); });
}

}  // namespace nh
