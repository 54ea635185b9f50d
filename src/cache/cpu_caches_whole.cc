// The cache of a CPU as a whole, whoever is running there: emptying it, finding out whether it is in use, adding up.
#include "cache/cpu_caches.h"

namespace nh {

// Calls visit(number of the set, set) for the sets of lists in which this CPU may ever have put something: memory of others
// was never touched.
template <typename Visit>
void CpuCaches::for_each_used_set(const CpuCache& cache, Visit&& visit) const {
  const bool placed = __atomic_load_n(&cache.has_placed, __ATOMIC_RELAXED);
  const bool all = placed || __atomic_load_n(&cache.has_other_heaps, __ATOMIC_RELAXED);
  for (unsigned set = 0; set < list_sets(); set++) {
    const HeapId h = heap_of_set(set);
    if (set % kListSetsPerHeap != 0 ? placed : all || keeps_large_of(cache, h)) visit(set, cache.lists[set]);
  }
}

// Sends all small objects of a cache home and takes the large ones. The caller has seen to it that nobody else changes its lists.
void CpuCaches::flush_lists(CpuCache* cache, MSpan** large) {
  for (unsigned set = 0; set < list_sets(); set++) {
    for (unsigned number = 0; number < kCachedClasses; number++) {
      const SpanClass c = class_in_set(set, number);
      FreeList& list = cache->lists[set].of[number];
      if (list.head == nullptr) continue;
      void* head = list.head;
      const unsigned count = list.count();
      __atomic_store_n(&list.head, static_cast<void*>(nullptr), __ATOMIC_RELAXED);
      __atomic_store_n(&list.room, list.cap, __ATOMIC_RELAXED);
      const HeapId h = heap_of_set(set);
      heaps_->flush(h, c, head, count, hands_out(*cache, h) ? h : cache->local);
    }
  }
  for (unsigned h = 0; h < heaps_->count(); h++) flush_large(cache, HeapId(h), large);
}

bool CpuCaches::drain(CpuId cpu) {
  return drain_with(cpu, [this](CpuCache* cache, MSpan** large) { flush_lists(cache, large); });
}

// The state of all lists in a number: 0 if they are empty. The first objects tell nearly everything, since what malloc()
// takes is hardly ever what free() brings back in the end.
std::uint64_t CpuCaches::lists_of(const CpuCache& cache) const {
  std::uint64_t state = 0;
  for_each_used_set(cache, [&](unsigned, const ListSet& set) {
    for (const FreeList& list : set.of) {
      const auto head = reinterpret_cast<std::uintptr_t>(__atomic_load_n(&list.head, __ATOMIC_RELAXED));
      if (head == 0 && state == 0) continue;
      state = (state ^ head ^ list.count()) * 0x9e3779b97f4a7c15u;
      state ^= state >> 32;
      state |= 1;
    }
  });
  return state;
}

void CpuCaches::drain_all() {
  for_each([this](const CpuCache& cache) {
    if (lists_of(cache) != 0) drain(CpuId(static_cast<int>(cache.cpu)));
  });
}

bool CpuCaches::drain_one_unused(std::uint64_t unused_ns) {
  const std::uint64_t now = os_->now_ns();
  CpuCache* unused = nullptr;
  for_each([&](CpuCache& cache) {
    const std::uint64_t lists = lists_of(cache);
    if (lists != cache.lists_seen) {
      cache.lists_seen = lists;
      cache.lists_changed_ns = now;
    } else if (lists != 0 && now - cache.lists_changed_ns >= unused_ns) {
      unused = &cache;
    }
  });
  return unused != nullptr && drain(CpuId(static_cast<int>(unused->cpu)));
}

CpuCaches::Totals CpuCaches::totals(std::uint64_t* cached_per_heap) {
  Totals t;
  for (unsigned h = 0; h < heaps_->count(); h++) cached_per_heap[h] = 0;
  for_each([&](const CpuCache& cache) {
    t.prepared++;
    t.refills += __atomic_load_n(&cache.refills, __ATOMIC_RELAXED);
    t.flushes += __atomic_load_n(&cache.flushes, __ATOMIC_RELAXED);
    for_each_used_set(cache, [&](unsigned set, const ListSet& lists) {
      std::uint64_t bytes = 0;
      for (unsigned c = 2; c < kCachedClasses; c++) {
        bytes += std::uint64_t{lists.of[c].count()} * size_class(SpanClass(c)).bytes;
      }
      cached_per_heap[heap_of_set(set).value] += bytes;
    });
  });
  for (unsigned h = 0; h < heaps_->count(); h++) t.cached_bytes += cached_per_heap[h];
  return t;
}

}  // namespace nh
