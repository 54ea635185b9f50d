#include "process/pool_runs.h"

#include "base/bits.h"
#include "heap/mheap.h"
#include "os/fork_advice.h"
#include "process/process.h"

namespace nh {
namespace {

// Marks the arenas that fork works on. Not the thread's own mark, which is there where a signal handler interrupted it.
constinit char g_claim = 0;

template <typename Visit>
void for_each_heap(Visit&& visit) {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) visit(g_process.heaps[HeapId(i)].heap);
}

bool is_claimed(const HeapArena& a) { return a.busy && a.worker == &g_claim; }

// Claims an arena. False: another thread works on it.
bool claim_L(HeapArena& a) {
  if (a.busy) return a.is_mine() || is_claimed(a);
  a.busy = true;
  a.worker = &g_claim;
  return true;
}

// Units that are mapped from the pool but hold nothing yet would be served from it later on.
void drop_unused(MHeap& heap, HeapArena& a, std::uintptr_t base) {
  for_each_run(a.hugetlb & ~a.backed & ~a.huge_1g, [&](unsigned first, unsigned count) {
    void* const start = reinterpret_cast<void*>(base + first * kHugeSize);
    const std::size_t bytes = count * kHugeSize;
    if (heap.os().reset_to_reserved(start, bytes) != 0) return;
    if (a.bound != BindMode::kDefault) heap.os().bind(start, bytes, a.bound, heap.backer().config().nodes);
    const std::uint32_t units = unit_bits(first, count);
    a.mapped &= ~units;
    clear_units(a.hugetlb, units);
  });
}

// Whether an object begins in the unit, or one reaches into it that is smaller than a unit. Of a large object only the
// first page is in the page map. Objects come and go meanwhile; it is only a question of which units come first.
bool holds_small(MHeap& heap, std::uintptr_t unit) {
  if (heap.whole_units()) return false;
  const auto begins_at = [&](std::uintptr_t at) { return heap.space().entry(reinterpret_cast<const void*>(at)) != 0; };
  for (std::uintptr_t at = unit; at < unit + kHugeSize; at += kPageSize) {
    if (begins_at(at)) return true;
  }
  const std::uintptr_t before = unit - heap.region_start() < kHugeSize ? unit : unit - kHugeSize;
  for (std::uintptr_t at = unit; at > before; at -= kPageSize) {
    if (!begins_at(at - kPageSize)) continue;
    const MSpan* const span = heap.space().span_of(reinterpret_cast<const void*>(at - kPageSize));
    return span != nullptr && span->pages().bytes() < kHugeSize;
  }
  return false;
}

template <typename Visit>
void for_each_run_of(MHeap& heap, Visit&& visit) {
  PoolRun run;
  run.heap = heap.id();
  run.shared = heap.backer().config().source == HugeSource::kSharedFile;
  heap.for_each_arena([&](HeapArena& a, std::uintptr_t base) {
    run.bound = a.bound;
    if (a.huge_1g != 0) {
      if (base % GiB != 0) return;
      run.start = reinterpret_cast<char*>(base);
      run.bytes = run.page_bytes = GiB;
      run.small = !heap.whole_units();
      run.kept = a.kept != 0;
      visit(run);
      return;
    }
    run.page_bytes = kHugeSize;
    run.bytes = 0;
    const std::uint32_t units = a.hugetlb & a.backed;
    for (unsigned u = 0; u <= kHugePerArena; u++) {
      const bool in_use = u < kHugePerArena && (units >> u & 1) != 0;
      const std::uintptr_t at = base + u * kHugeSize;
      const bool small = in_use && holds_small(heap, at);
      const bool kept = in_use && (a.kept >> u & 1) != 0;
      if (run.bytes != 0 && (!in_use || small != run.small || kept != run.kept)) {
        visit(run);
        run.bytes = 0;
      }
      if (!in_use) continue;
      if (run.bytes == 0) run.start = reinterpret_cast<char*>(at);
      run.small = small;
      run.kept = kept;
      run.bytes += kHugeSize;
    }
  });
}

// Calls visit(HeapArena&, units) for the arenas that a part of a run lies in.
template <typename Visit>
void for_each_arena_of(const PoolRun& part, Visit&& visit) {
  MHeap& heap = g_process.heaps[part.heap].heap;
  const std::uintptr_t end = address(part.start) + part.bytes;
  for (std::uintptr_t at = address(part.start); at < end;) {
    const std::uintptr_t next = align_up(at + 1, kArenaSize), stop = next < end ? next : end;
    const std::uint32_t units = unit_bits(static_cast<unsigned>(at % kArenaSize / kHugeSize),
                                          static_cast<unsigned>((stop - at) / kHugeSize));
    heap.visit_arena(at, [&](HeapArena& a) { visit(a, units); });
    at = stop;
  }
}

}  // namespace

bool holds_a_heap() {
  bool holds = locks_held() != 0;
  for_each_heap([&](MHeap& heap) { holds |= heap.lock().held_by_me(); });
  return holds;
}

bool pool_in_use() {
  std::uint32_t any = 0;
  for_each_heap([&](MHeap& heap) {
    heap.for_each_arena([&](HeapArena& a, std::uintptr_t) { 
      any |= __atomic_load_n(&a.hugetlb, __ATOMIC_RELAXED) & ~__atomic_load_n(&a.kept, __ATOMIC_RELAXED);
    });
  });
  return any != 0;
}

void release_idle_pool_pages() {
  for_each_heap([](MHeap& heap) {
    std::uint32_t any = 0;
    heap.for_each_arena([&](HeapArena& a, std::uintptr_t) { any |= __atomic_load_n(&a.hugetlb, __ATOMIC_RELAXED); });
    if (any != 0) heap.scavenge(SIZE_MAX, 0);
  });
}

void claim_pool_units() {
  for_each_heap([](MHeap& heap) {
    for (bool all = false; !all;) {
      all = true;
      {
        LockGuard guard(heap.lock());
        heap.for_each_arena([&](HeapArena& a, std::uintptr_t) { all &= claim_L(a); });
      }
      if (all) break;
      about_to_wait();
      std::atomic<std::uint32_t> never{0};
      heap.os().futex_wait(&never, 0, 50'000);
    }
    heap.for_each_arena([&](HeapArena& a, std::uintptr_t base) {
      if (is_claimed(a)) drop_unused(heap, a, base);
    });
  });
}

void unclaim_pool_units() {
  for_each_heap([](MHeap& heap) {
    LockGuard guard(heap.lock());
    heap.for_each_arena([](HeapArena& a, std::uintptr_t) {
      if (is_claimed(a)) a.busy = false;
    });
    heap.end_busy_L();
  });
}

void for_each_pool_run(void (*visit)(void* argument, const PoolRun& run), void* argument) {
  for_each_heap([&](MHeap& heap) { for_each_run_of(heap, [&](const PoolRun& run) { visit(argument, run); }); });
}

const NodeSet& nodes_of_heap(HeapId heap) { return g_process.heaps[heap].heap.backer().config().nodes; }

void note_ordinary(const PoolRun& part, bool thp) {
  for_each_arena_of(part, [&](HeapArena& a, std::uint32_t units) {
    clear_units(a.hugetlb, units);
    clear_units(a.huge_1g, units);
    if (thp) set_units(a.thp, units);
  });
}

void note_kept(const PoolRun& part) {
  for_each_arena_of(part, [](HeapArena& a, std::uint32_t units) { set_units(a.kept, units); });
}

bool lose_kept_runs() {
  bool small = false;
  for_each_heap([&](MHeap& heap) {
    for_each_run_of(heap, [&](const PoolRun& run) {
      if (!run.kept || close_hole(run.start, run.bytes) != 0) return;
      small |= run.small;
      for_each_arena_of(run, [](HeapArena& a, std::uint32_t units) {
        a.mapped &= ~units;
        a.backed &= ~units;
        clear_units(a.hugetlb, units);
        clear_units(a.huge_1g, units);
        clear_units(a.kept, units);
        a.lost |= units;
      });
    });
  });
  return small;
}

}  // namespace nh
