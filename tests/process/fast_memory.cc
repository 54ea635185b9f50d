// Memory by what it is good for, on a machine that is described to the process (see CMakeLists.txt): nodes 0 and 1 with a CPU
// each, fast memory on 2 and 3, slow on 4, a GPU's on 5. Heaps are those of the description; where pages lie is not, since the
// real machine knows nothing of it: that is shown in ../numa_vm. What the settings say the cases ask for themselves.
#include <errno.h>
#include <malloc.h>
#include <numaheap/hbwmalloc.h>
#include <sched.h>
#include <string.h>

#include <initializer_list>

#include "placed.h"

namespace {

constexpr size_t kKiB = 1024, kMiB = kKiB * kKiB;
// Heaps of no node.
constexpr int kFirstTouch = -1, kInterleaved = -2, kWeighted = -3, kInterleavedFast = -4, kNone = -100;

bool run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}
bool is_set(const char* name, const char* value) {
  const char* now = getenv(name);
  return value == nullptr ? now == nullptr : now != nullptr && strcmp(now, value) == 0;
}
bool no_settings() { return is_set("NUMAHEAP_POLICY", nullptr) && is_set("NUMAHEAP_LARGE", nullptr); }

int name_of(const numaheap_heap_stats& stats) {
  return stats.kind == NUMAHEAP_HEAP_NODE ? stats.node : -stats.kind;
}

struct Live {
  unsigned count = 0;
  int name[12];
  uint64_t bytes[12];
};
Live live() {
  Live now;
  numaheap_heap_stats stats;
  while (api().heap_stats(now.count, &stats, sizeof stats) == 0) {
    REQUIRE(now.count < 12);
    now.name[now.count] = name_of(stats);
    now.bytes[now.count++] = stats.live_bytes;
  }
  return now;
}

// The heap that has so much more than before.
int heap_that_grew(const Live& before, size_t least) {
  const Live now = live();
  for (unsigned i = 0; i < now.count; i++) {
    if (now.bytes[i] >= before.bytes[i] + least) return now.name[i];
  }
  return kNone;
}

template <typename Allocate>
int heap_of(size_t size, Allocate allocate) {
  // Small objects come in batches and from pages that are there: many of them show.
  const unsigned count = size < 100 * kKiB ? 200 : 1;
  void* blocks[200];
  const Live before = live();
  for (unsigned i = 0; i < count; i++) {
    blocks[i] = allocate(size);
    REQUIRE(blocks[i] != nullptr, "%zu bytes, errno %d", size, errno);
  }
  const int heap = heap_that_grew(before, count * size);
  for (unsigned i = 0; i < count; i++) free(blocks[i]);
  return heap;
}
int heap_of_placed(size_t size, int where, unsigned flags = 0) {
  return heap_of(size, [&](size_t n) {
    const numaheap_placement placement = {where, -1, flags};
    return api().alloc(n, 0, &placement);
  });
}
int heap_of_malloc(size_t size) {
  return heap_of(size, [](size_t n) { return malloc(n); });
}

constexpr size_t kSizes[] = {100, 4096, 50000, 700 * kKiB, 6 * kMiB, 40 * kMiB};

}  // namespace

CASE(heaps_are_listed_in_the_order_that_is_promised) {
  const Live now = live();
  const int expected[] = {0, 1, 2, 3, 4, 5, kFirstTouch, kInterleaved, kWeighted, kInterleavedFast};
  REQUIRE(now.count == 10, "%u", now.count);
  for (unsigned i = 0; i < now.count; i++) EXPECT(now.name[i] == expected[i], "heap %u: %d", i, now.name[i]);
}

CASE(placements_take_the_nearest_of_the_best) {
  for (const int cpu : {0, 1}) {
    if (!run_on(cpu)) continue;
    for (const unsigned flags : {0u, unsigned{NUMAHEAP_ALLOC_ZERO}}) {
      for (const size_t size : kSizes) {
        EXPECT(heap_of_placed(size, NUMAHEAP_BANDWIDTH, flags) == 2 + cpu, "CPU %d, %zu", cpu, size);
        EXPECT(heap_of_placed(size, NUMAHEAP_LATENCY, flags) == cpu, "CPU %d, %zu", cpu, size);
        EXPECT(heap_of_placed(size, NUMAHEAP_CAPACITY, flags) == 4, "CPU %d, %zu", cpu, size);
        EXPECT(heap_of_placed(size, NUMAHEAP_WEIGHTED, flags) == kWeighted, "%zu", size);
      }
    }
  }
}

CASE(realloc_keeps_the_place) {
  for (const int where : {NUMAHEAP_BANDWIDTH, NUMAHEAP_CAPACITY, NUMAHEAP_WEIGHTED}) {
    const numaheap_placement placement = {where, -1, 0};
    const Live before = live();
    void* p = api().alloc(100, 0, &placement);
    p = realloc(p, 9 * kMiB);
    const int first = heap_that_grew(before, 9 * kMiB);
    EXPECT(where == NUMAHEAP_BANDWIDTH ? first == 2 || first == 3 : first == (where == NUMAHEAP_CAPACITY ? 4 : kWeighted));
    p = realloc(p, 50 * kMiB);
    EXPECT(heap_that_grew(before, 50 * kMiB) == first);
    free(p);
  }
}

CASE(a_gpus_memory_may_be_named_and_is_not_listed) {
  EXPECT(api().node_count() == 5);
  EXPECT(heap_of(50000, [](size_t n) { return api().on_node(n, 5); }) == 5);
}

CASE(nothing_changes_for_malloc) {
  if (!no_settings()) return;
  for (const int cpu : {0, 1}) {
    if (!run_on(cpu)) continue;
    EXPECT(heap_of_malloc(4096) == cpu && heap_of_malloc(50000) == cpu);
    EXPECT(heap_of_malloc(20 * kMiB) == kFirstTouch);
  }
}

CASE(policy_bandwidth_holds_for_all_sizes) {
  if (!is_set("NUMAHEAP_POLICY", "bandwidth")) return;
  for (const int cpu : {0, 1}) {
    if (!run_on(cpu)) continue;
    for (const size_t size : kSizes) EXPECT(heap_of_malloc(size) == 2 + cpu, "CPU %d, %zu: %d", cpu, size, heap_of_malloc(size));
    EXPECT(heap_of_placed(50000, NUMAHEAP_LOCAL) == cpu, "a placement counts before the policy");
  }
}

CASE(policy_preferred_takes_the_nearest_of_several) {
  if (!is_set("NUMAHEAP_POLICY", "preferred:2-3")) return;
  for (const int cpu : {0, 1}) {
    if (run_on(cpu)) EXPECT(heap_of_malloc(50000) == 2 + cpu, "CPU %d", cpu);
  }
}

CASE(policy_weighted_has_a_heap_of_its_own) {
  if (!is_set("NUMAHEAP_POLICY", "weighted")) return;
  for (const size_t size : kSizes) EXPECT(heap_of_malloc(size) == kWeighted, "%zu", size);
  EXPECT(heap_of_placed(50000, NUMAHEAP_INTERLEAVED) == kInterleaved);
}

CASE(sizes_of_large_objects_have_memory_of_their_own) {
  if (!is_set("NUMAHEAP_LARGE", "bandwidth:1M-16M")) return;
  for (const int cpu : {0, 1}) {
    if (!run_on(cpu)) continue;
    for (const size_t size : {size_t{100}, size_t{50000}, 100 * kKiB}) EXPECT(heap_of_malloc(size) == cpu, "%zu", size);
    const int below = heap_of_malloc(1000 * kKiB);
    EXPECT(below == cpu || below == kFirstTouch, "%d", below);
    for (const size_t size : {kMiB, 3 * kMiB, 4 * kMiB, 16 * kMiB}) {
      EXPECT(heap_of_malloc(size) == 2 + cpu, "%zu", size);
      EXPECT(heap_of(size, [](size_t n) { return calloc(1, n); }) == 2 + cpu, "calloc, %zu", size);
      EXPECT(heap_of(size, [](size_t n) { return memalign(4096, n); }) == 2 + cpu, "memalign, %zu", size);
      EXPECT(heap_of(size, [](size_t n) { return memalign(4 * kMiB, n); }) == 2 + cpu, "memalign, %zu", size);
    }
    for (const size_t size : {16 * kMiB + 1, 20 * kMiB, 40 * kMiB}) EXPECT(heap_of_malloc(size) == kFirstTouch, "%zu", size);
    // Again, now that CPUs may keep what they have seen freed.
    for (int i = 0; i < 20; i++) {
      EXPECT(heap_of_malloc(100 * kKiB) == cpu && heap_of_malloc(900 * kKiB) == below);
      EXPECT(heap_of_malloc(2 * kMiB) == 2 + cpu && heap_of_malloc(5 * kMiB) == 2 + cpu);
      EXPECT(heap_of_malloc(18 * kMiB) == kFirstTouch);
    }
  }
}

CASE(objects_that_grow_into_these_sizes_move_there) {
  if (!is_set("NUMAHEAP_LARGE", "bandwidth:1M-16M") || !run_on(1)) return;
  const Live before = live();
  void* p = malloc(600 * kKiB);
  memset(p, 7, 600 * kKiB);
  p = realloc(p, 2 * kMiB);
  EXPECT(heap_that_grew(before, 2 * kMiB) == 3);
  EXPECT(static_cast<char*>(p)[600 * kKiB - 1] == 7);
  free(p);
}

CASE(high_bandwidth_memory_by_memkinds_names) {
  const auto check = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_check_available), numaheap_hbw_check_available);
  const auto allocate = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_malloc), numaheap_hbw_malloc);
  const auto set = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_set_policy), numaheap_hbw_set_policy);
  REQUIRE(check() == 0);
  const char* wanted = getenv("HBW_POLICY");
  if (wanted != nullptr) EXPECT(set(atoi(wanted)) == 0);
  const int policy = wanted == nullptr ? HBW_POLICY_PREFERRED : atoi(wanted);
  for (const int cpu : {0, 1}) {
    if (!run_on(cpu)) continue;
    for (const size_t size : kSizes) {
      // This kernel binds nothing to nodes that it does not have.
      if (policy == HBW_POLICY_BIND && access("/sys/devices/system/node/node2", F_OK) != 0) {
        errno = 0;
        EXPECT(allocate(size) == nullptr && errno == EPERM);
        continue;
      }
      EXPECT(heap_of(size, allocate) == (policy == HBW_POLICY_INTERLEAVE ? kInterleavedFast : 2 + cpu), "%zu", size);
    }
  }
}
