#include "process/pool_runs.h"

#include "base/bits.h"
#include "heap/mheap.h"
#include "os/fork_advice.h"
#include "process/process.h"
#include "process/static_pool.h"

namespace nh {
namespace {

// Marks the arenas that fork works on. Not the thread's own mark, which is there where a signal handler interrupted it.
constinit char g_claim = 0;

template <typename Visit>
void for_each_heap(Visit&& visit) {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) visit(g_process.heaps[HeapId(i)].heap);
}

bool is_claimed(const Unit& u) { return u.worker == &g_claim; }
// What this thread works on, further up on its stack, it finds as it left it.
bool is_pool_in_use(const Unit& u) { return u.backed() && u.hugetlb() && !u.is_mine(); }
bool is_unused_pool(const Unit& u) { return is_claimed(u) && u.state == UnitState::kMapped && u.hugetlb(); }

// Claims what lies in a pool. Other memory needs no claim: whoever backs it from now on sees that the pool is left. False:
// another thread works on some unit.
bool claim_L(const Backer::Run& arena) {
  bool all = true;
  for (std::size_t i = 0; i < arena.count; i++) {
    Unit& u = arena.units[i];
    if (u.busy()) {
      all &= is_claimed(u);
    } else if (u.hugetlb()) {
      u.worker = &g_claim;
    }
  }
  return all;
}

void unclaim(MHeap& heap) {
  heap.for_each_arena([](const Backer::Run& arena) {
    for (std::size_t i = 0; i < arena.count; i++) {
      if (is_claimed(arena.units[i])) arena.units[i].worker = nullptr;
    }
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
  const void* const neighbour = reinterpret_cast<const void*>(unit - kHugeSize);
  const AddressSpace& space = heap.space();
  if (!space.contains(neighbour) || !space.owner(neighbour).has_heap() || space.heap_of(neighbour) != heap.id()) return false;
  for (std::uintptr_t at = unit; at > unit - kHugeSize; at -= kPageSize) {
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
  heap.for_each_arena([&](const Backer::Run& arena) {
    const Unit& first = arena.units[0];
    if (first.backed() && first.kind == UnitKind::kHuge1G) {
      if (arena.start % GiB != 0 || first.is_mine()) return;
      run.start = static_cast<char*>(arena.at(0));
      run.bytes = run.page_bytes = GiB;
      run.bound = first.bound;
      run.small = !heap.whole_units();
      run.kept = first.kept;
      visit(run);
      return;
    }
    run.page_bytes = kHugeSize;
    run.bytes = 0;
    for (std::size_t i = 0; i <= arena.count; i++) {
      const Unit* u = i < arena.count && is_pool_in_use(arena.units[i]) ? &arena.units[i] : nullptr;
      const bool small = u != nullptr && holds_small(heap, address(arena.at(i)));
      const bool ends = u == nullptr || small != run.small || u->kept != run.kept || u->bound != run.bound;
      if (run.bytes != 0 && ends) {
        visit(run);
        run.bytes = 0;
      }
      if (u == nullptr) continue;
      if (run.bytes == 0) run.start = static_cast<char*>(arena.at(i));
      run.small = small;
      run.kept = u->kept;
      run.bound = u->bound;
      run.bytes += kHugeSize;
    }
  });
}

bool is_static(const PoolRun& run) { return !g_process.space.contains(run.start); }
Backer::Run units_of(const PoolRun& part) { return g_process.heaps[part.heap].heap.units_at(part.start, part.bytes); }

}  // namespace

bool holds_a_heap() {
  bool holds = locks_held() != 0 || OsWork::under_way();
  for_each_heap([&](MHeap& heap) { holds |= heap.lock().held_by_me(); });
  return holds;
}

bool may_lie_on_pool(const void* p) { return g_process.space.contains(p) || is_static_on_pool(p); }

bool pool_in_use() {
  bool any = static_data_on_pool();
  for_each_heap([&](MHeap& heap) {
    LockGuard guard(heap.lock());
    heap.for_each_arena([&](const Backer::Run& arena) {
      for (std::size_t i = 0; i < arena.count; i++) {
        const Unit& u = arena.units[i];
        any |= u.busy() || (u.hugetlb() && !u.kept);
      }
    });
  });
  return any;
}

void release_idle_pool_pages() {
  for_each_heap([](MHeap& heap) {
    if (heap.hugetlb_committed() != 0) heap.scavenge(SIZE_MAX, 0);
  });
}

bool claim_pool_units() {
  constexpr std::uint64_t kPauseNs = 50'000;
  // Longer than it takes to clear some ten GiB of huge pages.
  constexpr std::uint64_t kLongestWaitNs = 3'000'000'000;
  bool claimed = true;
  const std::uint64_t begin_ns = linux_os().now_ns();
  for_each_heap([&](MHeap& heap) {
    for (bool all = false; claimed && !all;) {
      all = true;
      {
        LockGuard guard(heap.lock());
        heap.for_each_arena([&](const Backer::Run& arena) { all &= claim_L(arena); });
      }
      if (all) break;
      claimed = linux_os().now_ns() - begin_ns < kLongestWaitNs;
      about_to_wait();
      std::atomic<std::uint32_t> never{0};
      heap.os().futex_wait(&never, 0, kPauseNs);
    }
    if (!claimed) return;
    heap.for_each_arena([&](const Backer::Run& arena) {
      for_each_run(arena.units, arena.count, is_unused_pool,
                   [&](std::size_t first, std::size_t n) { heap.backer().forget_unbacked(arena.part(first, n)); });
    });
  });
  return claimed;
}

void unclaim_pool_units() {
  for_each_heap([](MHeap& heap) {
    LockGuard guard(heap.lock());
    unclaim(heap);
    heap.end_busy_L();
  });
}

void forget_claims() { for_each_heap(unclaim); }

void for_each_pool_run(void (*visit)(void* argument, const PoolRun& run), void* argument) {
  for_each_heap([&](MHeap& heap) { for_each_run_of(heap, [&](const PoolRun& run) { visit(argument, run); }); });
  for_each_static_run(visit, argument);
}

NodeSet nodes_of_heap(HeapId heap) {
  const Backer& backer = g_process.heaps[heap].heap.backer();
  const NodeId home = backer.home().node;
  return home.valid() ? NodeSet::of(home) : backer.config().nodes;
}

BindMode lasting_policy_of(const PoolRun& part) {
  return is_static(part) ? BindMode::kDefault : g_process.heaps[part.heap].heap.backer().lasting_policy();
}

void note_ordinary(const PoolRun& part, bool thp) {
  if (is_static(part)) return note_static_ordinary(part.bytes);
  g_process.heaps[part.heap].heap.note_plain(units_of(part), thp, part.bound);
}

void note_kept(const PoolRun& part) {
  if (is_static(part)) return note_static_kept(part.bytes);
  const Backer::Run run = units_of(part);
  for (std::size_t i = 0; i < run.count; i++) run.units[i].kept = true;
}

bool lose_kept_runs() {
  bool lost = false;
  lose_kept_static_data();
  for_each_heap([&](MHeap& heap) {
    for_each_run_of(heap, [&](const PoolRun& run) {
      if (!run.kept || close_hole(run.start, run.bytes) != 0) return;
      lost = true;
      const Backer::Run units = units_of(run);
      for (std::size_t i = 0; i < units.count; i++) {
        units.units[i].state = UnitState::kLost;
        units.units[i].kept = false;
      }
    });
  });
  return lost;
}

}  // namespace nh
