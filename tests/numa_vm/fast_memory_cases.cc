// Memory by what it is good for, on the machine kinds_of_memory of numa_vm_test: nodes 0 and 1 with CPUs, 2 fast and nearer to 0,
// 3 slow, 4 neither. For bandwidth the order is 2, the own node, the other one with CPUs, 4, 3.
#include <dlfcn.h>
#include <errno.h>
#include <numaheap/hbwmalloc.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <string>

#include "placed.h"
#include "placement.h"

namespace {

constexpr int kFast = 2;
constexpr std::size_t kSizes[] = {24, 3000, 50'000, 700 * kKiB, 5 * kMiB, 20 * kMiB};

const auto verify = NH_LIBRARY_FUNCTION(decltype(&numaheap_verify), numaheap_verify);

using Allocate = void* (*)(std::size_t bytes);

void* for_bandwidth(std::size_t bytes) {
  const numaheap_placement placement = {NUMAHEAP_BANDWIDTH, -1, 0};
  return api().alloc(bytes, 0, &placement);
}
void* for_bandwidth_strictly(std::size_t bytes) {
  const numaheap_placement placement = {NUMAHEAP_BANDWIDTH, -1, NUMAHEAP_ALLOC_STRICT};
  return api().alloc(bytes, 0, &placement);
}
void* for_latency(std::size_t bytes) {
  const numaheap_placement placement = {NUMAHEAP_LATENCY, -1, 0};
  return api().alloc(bytes, 0, &placement);
}

// Objects of this size, a MiB of them at least, written by a thread of node 1.
void expect_on(int node, std::size_t bytes, Allocate allocate) {
  const std::size_t count = bytes < kMiB ? kMiB / bytes : 1;
  Objects objects(count);
  for (std::size_t i = 0; i < count; i++) {
    void* const p = allocate(bytes);
    REQUIRE(p != nullptr, "%zu bytes, errno %d", bytes, errno);
    objects.take(p, bytes);
  }
  on_node(1, [](int, void* p) { static_cast<Objects*>(p)->write(); }, &objects);
  Census census;
  census.add(objects);
  EXPECT(census.total > 0 && census.elsewhere(node) == 0, "%zu bytes, not on %d: %s", bytes, node, census.text());
  objects.free_all();
}

// In a process of its own: takes and writes `bytes` from a CPU of a node.
template <typename Body>
void in_child(Body body) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    body();
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
}

// More than fast memory has: the rest lies on the node of the asker, not on the one that is nearest to fast memory.
void expect_next_best(int asker, std::size_t bytes, Allocate allocate) {
  in_child([=] {
    pin(machine().first_cpu(asker));
    const std::size_t count = machine().memory[kFast] * 5 / 4 / bytes;
    Objects objects(count);
    for (std::size_t i = 0; i < count; i++) {
      void* const p = allocate(bytes);
      REQUIRE(p != nullptr, "object %zu of %zu bytes, errno %d", i, bytes, errno);
      objects.take(p, bytes);
    }
    objects.write();
    Census census;
    census.add(objects);
    EXPECT(census.absent == 0 && census.on[kFast] * 2 > census.total && census.on[asker] > 0 &&
               census.on[kFast] + census.on[asker] == census.total,
           "node %d asks for objects of %zu bytes: %s", asker, bytes, census.text());
  });
}

long mappings() {
  std::ifstream maps("/proc/self/maps");
  long count = 0;
  for (std::string line; std::getline(maps, line);) count++;
  return count;
}

}  // namespace

CASE(with_kinds_placements_take_the_best_memory) {
  for (const int node : {0, 1}) {
    pin(machine().first_cpu(node));
    for (const std::size_t bytes : kSizes) {
      expect_on(kFast, bytes, for_bandwidth);
      expect_on(kFast, bytes, for_bandwidth_strictly);
      expect_on(node, bytes, for_latency);
    }
  }
}

CASE(with_kinds_the_next_best_is_the_askers) {
  for (const int node : {0, 1}) {
    expect_next_best(node, 48 * kKiB, for_bandwidth);
    expect_next_best(node, 3000, for_bandwidth);
    expect_next_best(node, 8 * kMiB, for_bandwidth);
  }
}

CASE(with_kinds_strict_requests_end_where_fast_memory_does) {
  in_child([] {
    const numaheap_placement fast = {NUMAHEAP_BANDWIDTH, -1, NUMAHEAP_ALLOC_STRICT};
    std::size_t count = 0;
    char* last = nullptr;
    while (char* p = static_cast<char*>(for_bandwidth_strictly(4 * kMiB))) {
      memset(p, 1, 4 * kMiB);
      EXPECT(verify(p, 4 * kMiB, &fast) == 1);
      last = p;
      REQUIRE(++count * 4 * kMiB < machine().memory[kFast]);
    }
    EXPECT(errno == ENOMEM && count * 8 * kMiB > machine().memory[kFast], "%zu objects, errno %d", count, errno);
    EXPECT(for_bandwidth(4 * kMiB) != nullptr, "the next best");
    free(last);
    EXPECT(for_bandwidth_strictly(4 * kMiB) != nullptr);
  });
}

CASE(with_kinds_verify_tells_them_apart) {
  pin(machine().first_cpu(1));
  const numaheap_placement fast = {NUMAHEAP_BANDWIDTH, -1, 0}, exact = {NUMAHEAP_BANDWIDTH, -1, NUMAHEAP_ALLOC_STRICT},
                           local = {NUMAHEAP_LOCAL, -1, 0}, near = {NUMAHEAP_LATENCY, -1, 0},
                           spread = {NUMAHEAP_INTERLEAVED, -1, 0};
  auto* p = static_cast<char*>(for_bandwidth(6 * kMiB));
  memset(p, 1, 6 * kMiB);
  EXPECT(verify(p, 6 * kMiB, &fast) == 1 && verify(p, 6 * kMiB, &exact) == 1);
  EXPECT(verify(p, 6 * kMiB, &local) == 0 && verify(p, 6 * kMiB, &near) == 0 && verify(p, 6 * kMiB, &spread) == 0);
  auto* here = static_cast<char*>(api().local(6 * kMiB));
  memset(here, 1, 6 * kMiB);
  EXPECT(verify(here, 6 * kMiB, &local) == 1 && verify(here, 6 * kMiB, &near) == 1 && verify(here, 6 * kMiB, &fast) == 0);
  // Latency: the other node's memory is as good, but for strict requests.
  auto* there = static_cast<char*>(api().on_node(6 * kMiB, 0));
  memset(there, 1, 6 * kMiB);
  const numaheap_placement nearest = {NUMAHEAP_LATENCY, -1, NUMAHEAP_ALLOC_STRICT};
  EXPECT(verify(there, 6 * kMiB, &near) == 1 && verify(there, 6 * kMiB, &nearest) == 0 && verify(there, 6 * kMiB, &local) == 0);
  auto* even = static_cast<char*>(api().interleaved(64 * kMiB));
  memset(even, 1, 64 * kMiB);
  EXPECT(verify(even, 64 * kMiB, &spread) == 1 && verify(even, 64 * kMiB, &local) == 0);
  EXPECT(verify(here, 6 * kMiB, &spread) == 0, "all on one node");
}

CASE(with_kinds_memory_is_spread_by_weight) {
  const numaheap_placement weighted = {NUMAHEAP_WEIGHTED, -1, 0}, even = {NUMAHEAP_INTERLEAVED, -1, 0};
  const long before = mappings();
  auto* p = static_cast<char*>(api().alloc(124 * kMiB, 0, &weighted));
  REQUIRE(p != nullptr);
  memset(p, 1, 124 * kMiB);
  EXPECT(mappings() < before + 20, "%ld mappings more", mappings() - before);
  Census census;
  census.add(p, 124 * kMiB);
  if (access("/sys/kernel/mm/mempolicy/weighted_interleave", F_OK) != 0) {
    // By bandwidth: 65536, 65536, 262144, 16384 and 65536 MB/s are 4, 4, 18, 1 and 4 turns of 31, two rounds here.
    const long expected[] = {8, 8, 36, 2, 8};
    for (int node = 0; node < 5; node++) {
      const long share = expected[node] * static_cast<long>(kHuge / 4096);
      EXPECT(labs(census.on[node] - share) <= 2 * static_cast<long>(kHuge / 4096), "node %d: %s", node, census.text());
    }
    EXPECT(verify(p, 124 * kMiB, &even) == 0);
  }
  EXPECT(verify(p, 124 * kMiB, &weighted) == 1, "%s", census.text());
}

CASE(with_kinds_memkinds_names_mean_fast_memory) {
  const auto check = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_check_available), numaheap_hbw_check_available);
  const auto allocate = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_malloc), numaheap_hbw_malloc);
  const auto set = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_set_policy), numaheap_hbw_set_policy);
  const auto region = NH_LIBRARY_FUNCTION(decltype(&numaheap_hbw_verify_memory_region), numaheap_hbw_verify_memory_region);
  REQUIRE(check() == 0);
  for (const int policy : {HBW_POLICY_BIND, HBW_POLICY_PREFERRED, HBW_POLICY_INTERLEAVE, HBW_POLICY_BIND_ALL}) {
    in_child([&] {
      EXPECT(set(policy) == 0);
      for (const std::size_t bytes : kSizes) expect_on(kFast, bytes, allocate);
      auto* p = static_cast<char*>(allocate(9 * kMiB));
      EXPECT(region(p, 9 * kMiB, HBW_TOUCH_PAGES) == 0);
      auto* ordinary = static_cast<char*>(malloc(9 * kMiB));
      EXPECT(region(ordinary, 9 * kMiB, HBW_TOUCH_PAGES) == -1);
      if (policy != HBW_POLICY_BIND && policy != HBW_POLICY_BIND_ALL) return;
      std::size_t count = 0;
      for (; allocate(4 * kMiB) != nullptr; count++) REQUIRE(count * 4 * kMiB < machine().memory[kFast]);
      EXPECT(errno == ENOMEM, "errno %d after %zu", errno, count);
    });
  }
}

CASE(with_the_policy_bandwidth_malloc_takes_fast_memory) {
  for (const int node : {0, 1}) {
    pin(machine().first_cpu(node));
    for (const std::size_t bytes : kSizes) expect_on(kFast, bytes, malloc);
  }
}

// In a process that has no memory of its own, of which a child would make copies where the kernel has room.
CASE(with_the_policy_bandwidth_the_next_best_is_the_askers) {
  for (const int node : {0, 1}) {
    expect_next_best(node, 48 * kKiB, malloc);
    expect_next_best(node, 3000, malloc);
    expect_next_best(node, 8 * kMiB, malloc);
  }
}

CASE(with_sizes_for_fast_memory_only_these_take_it) {
  for (const int node : {0, 1}) {
    pin(machine().first_cpu(node));
    for (const std::size_t bytes : {std::size_t{3000}, 50 * kKiB, 100 * kKiB}) expect_on(node, bytes, malloc);
    for (const std::size_t bytes : {kMiB, 5 * kMiB, 16 * kMiB}) expect_on(kFast, bytes, malloc);
    // By first touch, of a thread of node 1.
    expect_on(1, 24 * kMiB, malloc);
  }
}

CASE(with_sizes_for_fast_memory_the_next_best_is_the_askers) { expect_next_best(1, 8 * kMiB, malloc); }
