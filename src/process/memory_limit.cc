#include "process/memory_limit.h"

#include <atomic>
#include <cstdint>

#include "heap/growth.h"
#include "process/process.h"

namespace nh {
namespace {

// A process that has less does not ask for the group's limit: that reads files, and every short-lived process would pay.
constexpr std::size_t kSmallProcess = 8 * MiB;
// Emptying the CPU caches costs each CPU the refills that follow, so it is not done again and again for each unit.
constexpr std::uint64_t kDrainPause = 10'000'000;  // ns

std::atomic<std::uint64_t> g_next_drain{0};

// By how much `use` is above nine tenths of a limit.
std::uint64_t excess(std::uint64_t use, std::uint64_t limit) {
  const std::uint64_t line = limit - limit / 10;
  return use > line ? use - line : 0;
}

// By how many bytes the process would be too near a limit with `more` bytes.
std::uint64_t excess_with(std::size_t more) {
  std::uint64_t committed = 0, hugetlb = 0;
  for (unsigned h = 0; h < g_process.heaps.count(); h++) {
    const MHeap& heap = g_process.heaps[HeapId(h)].heap;
    committed += heap.committed();
    hugetlb += heap.hugetlb_committed();
  }
  std::uint64_t worst = 0;
  if (const std::uint64_t limit = g_process.options.limit; limit != 0) worst = excess(committed + more, limit);
  MemoryLimit group;
  if (committed + more < kSmallProcess || !linux_os().memory_limit(&group)) return worst;
  // Memory that was handed out and that the program has not touched yet is not in the group's use, but will be. Pages of
  // a pool never are.
  const std::uint64_t ours = committed > hugetlb ? committed - hugetlb : 0;
  const std::uint64_t over = excess((group.used > ours ? group.used : ours) + more, group.limit);
  return over > worst ? over : worst;
}

std::size_t give_back_idle(std::size_t wanted) {
  std::size_t done = 0;
  for (unsigned h = 0; h < g_process.heaps.count() && done < wanted; h++) {
    done += g_process.heaps[HeapId(h)].heap.scavenge(wanted - done, 0);
  }
  return done;
}

bool may_drain() {
  const std::uint64_t now = linux_os().now_ns();
  std::uint64_t next = g_next_drain.load(std::memory_order_relaxed);
  return now >= next && g_next_drain.compare_exchange_strong(next, now + kDrainPause, std::memory_order_relaxed);
}

GrowthAdvice before_growth(std::size_t bytes) {
  GrowthAdvice advice;
  const std::uint64_t wanted = excess_with(bytes);
  if (wanted == 0) return advice;
  advice.no_thp = true;
  const std::size_t done = give_back_idle(wanted);
  if (done >= wanted || !may_drain()) return advice;
  release_kept();  // or it does not count as idle
  give_back_idle(wanted - done);
  return advice;
}

}  // namespace

bool memory_is_tight() { return excess_with(0) != 0; }

void release_kept() {
  g_caches.drain_all();
  g_process.heaps.trim_centrals();
}

void init_memory_limit() { set_growth_adviser(before_growth); }

}  // namespace nh
