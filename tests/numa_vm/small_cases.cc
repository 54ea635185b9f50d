// Small and medium objects: on the node of the CPU that asks, whoever writes to them first.
#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "placement.h"

namespace {

constexpr std::size_t kEach = 5000;
constexpr std::size_t kMany = 200'000;
constexpr std::size_t kLargest = 256 * kKiB;
constexpr std::size_t kLargestOfNode = 64 * kKiB;  // larger ones lie where they are written

void allocate_here(int cpu, void* lists) {
  (*static_cast<Lists*>(lists))[cpu].allocate(kEach, kLargest, 1000 + static_cast<unsigned>(cpu));
}
void write_here(int cpu, void* lists) { (*static_cast<Lists*>(lists))[cpu].write(); }

void expect_all_at_home(const Lists& lists) {
  for (int cpu = 0; cpu < machine().cpus; cpu++) {
    Census census;
    census.add(lists[cpu]);
    EXPECT_ALL_ON(census, machine().home(cpu));
  }
}

}  // namespace

// 16 B to 256 KiB, 200 000 objects of each thread, half of them tiny so that all of it fits into the machine: 270 MiB. The
// run says on which kind of pages, so that what is shown is shown of that kind.
CASE(a_great_many_objects_lie_on_the_node_of_their_thread) {
  Lists lists(kMany);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate_many(kMany, kLargest, 77 + cpu); }, &lists);
  on_all_cpus(write_here, &lists);
  expect_all_at_home(lists);
  const char* pages = getenv("NH_PAGES");
  if (pages == nullptr) return;
  const HugeBytes huge = huge_bytes();
  const bool hugetlb = strcmp(pages, "hugetlb") == 0, transparent = strcmp(pages, "thp") == 0;
  EXPECT(hugetlb ? huge.hugetlb > 220 * kMiB : huge.hugetlb == 0, "%zu bytes on pages of the pools", huge.hugetlb);
  // The lists of the test itself may be on transparent huge pages.
  EXPECT(transparent ? huge.transparent > 220 * kMiB : huge.transparent < 64 * kMiB, "%zu bytes on transparent huge pages",
         huge.transparent);
}

CASE(objects_lie_on_the_node_of_their_thread) {
  Lists lists(kEach);
  on_all_cpus(allocate_here, &lists);
  on_all_cpus(write_here, &lists);
  expect_all_at_home(lists);
}

// A thread of node 0 is the first to write to them all: what was allocated on a node lies there nevertheless.
CASE(objects_lie_on_the_node_of_their_allocating_thread_not_of_their_first_writer) {
  Lists lists(kEach);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate(kEach, kLargestOfNode, 1000); }, &lists);
  pin(0);
  for (int cpu = 0; cpu < machine().cpus; cpu++) lists[cpu].write();
  expect_all_at_home(lists);
}

// The same where a node's heap has not outgrown its first unit, which is on base pages and not populated.
CASE(the_first_objects_of_a_node_lie_there_too) {
  Lists lists(8);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate(8, 32 * kKiB, 7); }, &lists);
  pin(0);
  for (int cpu = 0; cpu < machine().cpus; cpu++) lists[cpu].write();
  expect_all_at_home(lists);
}

CASE(a_thread_that_migrates_allocates_on_its_new_node_at_once) {
  const int last = machine().cpus - 1;
  const int there = machine().nodes > 2 ? machine().first_cpu(2) : last;
  Objects at_first(kEach), later(kEach);
  pin(0);
  at_first.allocate(kEach, kLargestOfNode, 1);
  pin(there);
  later.allocate(kEach, kLargestOfNode, 2);
  pin(0);
  at_first.write();
  later.write();
  Census before, after;
  before.add(at_first);
  after.add(later);
  EXPECT_ALL_ON(before, machine().home(0));
  EXPECT_ALL_ON(after, machine().home(there));
}

// ---- under a policy that the run sets ----------------------------------------------------------------------------------

// NUMAHEAP_POLICY=bind:1 or preferred:1: from the very first object on, and whichever CPU asks.
CASE(with_node_1_asked_for_everything_lies_there) {
  constexpr std::size_t kFew = 1000;  // of all eight, they must fit into one node
  Lists lists(kFew);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate(kFew, kLargest, 6); }, &lists);
  on_all_cpus(write_here, &lists);
  for (int cpu = 0; cpu < machine().cpus; cpu++) {
    Census census;
    census.add(lists[cpu]);
    EXPECT_ALL_ON(census, 1);
  }
}

namespace {

// Objects of all sizes, and a large one.
void expect_everything_on(int node) {
  Objects objects(kEach + 1);
  objects.allocate(kEach, kLargest, 5);
  objects.take(malloc(32 * kMiB), 32 * kMiB);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, node);
}

}  // namespace

// numactl --cpunodebind=3 --membind=3, or a cpuset with node 3 alone: large objects, too.
CASE(with_a_binding_to_node_3_everything_lies_there) { expect_everything_on(3); }
CASE(with_a_binding_to_node_1_everything_lies_there) { expect_everything_on(1); }

// numactl --preferred=2, on CPUs of any node.
CASE(with_a_preference_for_node_2_everything_lies_there) {
  for (const int cpu : {0, machine().first_cpu(3)}) {
    pin(cpu);
    expect_everything_on(2);
  }
}

// A cpuset with the CPUs of nodes 2 and 3 and their memory: threads of both find their own.
CASE(with_a_cpuset_of_nodes_2_and_3_both_serve_their_own) {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  EXPECT(CPU_COUNT(&allowed) == 4 && !CPU_ISSET(0, &allowed), "the cpuset is not in force");
  for (const int node : {2, 3}) {
    pin(machine().first_cpu(node));
    expect_everything_on(node);
  }
}

// A cpuset with the CPUs of node 0 and the memory of nodes 2 and 3: the nearer one of those serves.
CASE(with_a_cpuset_elsewhere_the_nearest_allowed_node_serves) {
  pin(0);
  REQUIRE(machine().distance[0][2] < machine().distance[0][3]);
  Objects objects(kEach);
  objects.allocate(kEach, kLargest, 5);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 2);
}

// numactl --interleave=all, NUMAHEAP_LARGE=interleave: large arrays are spread within 5 %. A node gets whole huge pages, so
// that only an array of many shows it.
CASE(with_interleaving_large_arrays_are_spread) {
  Objects array(1);
  array.take(malloc(256 * kMiB), 256 * kMiB);
  array.write();
  Census census;
  census.add(array);
  const long share = census.total / machine().nodes;
  for (int node = 0; node < machine().nodes; node++) {
    EXPECT(census.on[node] * 100 >= share * 95 && census.on[node] * 100 <= share * 105, "node %d: %s", node, census.text());
  }
}

// NUMAHEAP_POLICY=bind:0,1 on a CPU of node 0: once that is full node 1 serves, and no other.
CASE(with_nodes_0_and_1_one_helps_the_other_out) {
  constexpr std::size_t kBytes = 64 * kKiB;
  pin(0);
  const std::size_t room = (machine().memory[0] + machine().memory[1]) / kBytes;
  Objects objects(room * 2);
  errno = 0;
  const std::size_t count = objects.allocate_same(room * 2, kBytes);
  EXPECT(errno == ENOMEM, "errno %d after %zu objects", errno, count);
  EXPECT(count > room / 2 && count < room, "%zu of %zu objects", count, room);
  Census census;
  census.add(objects);
  EXPECT(census.on[0] > census.total / 4 && census.on[1] > census.total / 4 && census.on[0] + census.on[1] == census.total,
         "%s", census.text());
  objects.free_all();
}

// NUMAHEAP_POLICY=bind:1, or numactl --membind=1 without the option: the node fills up, then malloc refuses, and nobody is
// killed.
CASE(with_a_binding_to_node_1_a_full_node_means_no_memory) {
  constexpr std::size_t kBytes = 64 * kKiB;
  const std::size_t room = machine().memory[1] / kBytes;
  Objects objects(room * 2);
  errno = 0;
  const std::size_t count = objects.allocate_same(room * 2, kBytes);
  EXPECT(errno == ENOMEM, "errno %d after %zu objects", errno, count);
  // The kernel, its page cache and pages that it holds back take their part.
  EXPECT(count > room / 2 && count < room, "%zu of %zu objects", count, room);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 1);
  objects.free_all();
  void* again = malloc(kBytes);
  EXPECT(again != nullptr);
  free(again);
}
