// Small and medium objects: on the node of the CPU that asks, whoever writes to them first.
#include <cstdlib>

#include "placement.h"

namespace {

constexpr std::size_t kEach = 5000;
constexpr std::size_t kLargest = 256 * kKiB;

struct PerCpu {
  Objects* of[kCpus];
};

struct Lists {
  PerCpu per_cpu;
  explicit Lists(std::size_t most) {
    for (auto& objects : per_cpu.of) objects = new Objects(most);
  }
  ~Lists() {
    for (auto* objects : per_cpu.of) delete objects;
  }
  Objects& operator[](int cpu) const { return *per_cpu.of[cpu]; }
};

void allocate_here(int cpu, void* lists) {
  (*static_cast<Lists*>(lists))[cpu].allocate(kEach, kLargest, 1000 + static_cast<unsigned>(cpu));
}
void write_here(int cpu, void* lists) { (*static_cast<Lists*>(lists))[cpu].write(); }

void expect_all_at_home(const Lists& lists) {
  for (int cpu = 0; cpu < kCpus; cpu++) {
    Census census;
    census.add(lists[cpu]);
    EXPECT_ALL_ON(census, node_of_cpu(cpu));
  }
}

}  // namespace

CASE(objects_lie_on_the_node_of_their_thread) {
  Lists lists(kEach);
  on_all_cpus(allocate_here, &lists);
  on_all_cpus(write_here, &lists);
  expect_all_at_home(lists);
}

// A thread of node 0 is the first to write to them all: what was allocated on a node lies there nevertheless.
CASE(objects_lie_on_the_node_of_their_allocating_thread_not_of_their_first_writer) {
  Lists lists(kEach);
  on_all_cpus(allocate_here, &lists);
  pin(0);
  for (int cpu = 0; cpu < kCpus; cpu++) lists[cpu].write();
  expect_all_at_home(lists);
}

// The same where a node's heap has not outgrown its first unit, which is on base pages and not populated.
CASE(the_first_objects_of_a_node_lie_there_too) {
  Lists lists(8);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate(8, 32 * kKiB, 7); }, &lists);
  pin(0);
  for (int cpu = 0; cpu < kCpus; cpu++) lists[cpu].write();
  expect_all_at_home(lists);
}

CASE(a_thread_that_migrates_allocates_on_its_new_node_at_once) {
  Lists lists(2 * kEach);
  pin(0);
  lists[0].allocate(kEach, kLargest, 1);
  pin(2 * kCpusPerNode);
  lists[1].allocate(kEach, kLargest, 2);
  pin(0);
  lists[0].write();
  lists[1].write();
  Census before, after;
  before.add(lists[0]);
  after.add(lists[1]);
  EXPECT_ALL_ON(before, 0);
  EXPECT_ALL_ON(after, 2);
}

// Objects of node 0 freed on node 3: they are not handed out there, and node 0 gets them back.
CASE(foreign_frees_come_home) {
  constexpr std::size_t kObjects = 20000;
  constexpr int kRounds = 5;
  Lists lists(kObjects);
  const int remote = 3 * kCpusPerNode;
  struct Round {
    Lists* lists;
    int producer, consumer;
  } round = {&lists, 0, remote};
  std::uint64_t committed_first = 0;
  for (int i = 0; i < kRounds; i++) {
    on_cpu(0, [](int, void* p) { (*static_cast<Round*>(p)->lists)[0].allocate(kObjects, 4 * kKiB, 3); }, &round);
    Census produced;
    lists[0].write();
    produced.add(lists[0]);
    EXPECT_ALL_ON(produced, 0);
    if (i == 0) committed_first = heap_of(0).committed_bytes;
    on_cpu(remote, [](int cpu, void* p) {
      Lists& all = *static_cast<Round*>(p)->lists;
      all[0].free_all();
      all[cpu].allocate(kObjects, 4 * kKiB, 4);
    }, &round);
    Census consumed;
    lists[remote].write();
    consumed.add(lists[remote]);
    EXPECT_ALL_ON(consumed, 3);
    on_cpu(remote, [](int cpu, void* p) { (*static_cast<Round*>(p)->lists)[cpu].free_all(); }, &round);
  }
  // What is left of the last round may still lie in the lists of the remote CPU.
  const std::uint64_t home = heap_of(0).remote_frees;
  EXPECT(home > kObjects * (kRounds - 1) && home <= kObjects * kRounds, "%lu remote frees", home);
  EXPECT(heap_of(3).remote_frees == 0, "%lu", heap_of(3).remote_frees);
  EXPECT(heap_of(0).committed_bytes <= committed_first * 3 / 2, "%lu after %lu", heap_of(0).committed_bytes, committed_first);
}

// The following run under a policy that in_guest.py sets.

// NUMAHEAP_POLICY=bind:1 or preferred:1: from the very first object on, and whichever CPU asks.
CASE(with_node_1_asked_for_everything_lies_there) {
  constexpr std::size_t kFew = 1000;  // of all eight, they must fit into one node
  Lists lists(kFew);
  on_all_cpus([](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].allocate(kFew, kLargest, 6); }, &lists);
  on_all_cpus(write_here, &lists);
  for (int cpu = 0; cpu < kCpus; cpu++) {
    Census census;
    census.add(lists[cpu]);
    EXPECT_ALL_ON(census, 1);
  }
}

// numactl --cpunodebind=3 --membind=3: large objects, too.
CASE(with_a_binding_to_node_3_everything_lies_there) {
  Objects objects(kEach + 1);
  objects.allocate(kEach, kLargest, 5);
  objects.list[objects.count++] = {static_cast<unsigned char*>(malloc(32 * kMiB)), 32 * kMiB};
  REQUIRE(objects.list[kEach].p != nullptr);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 3);
}

// numactl --interleave=all, NUMAHEAP_LARGE=interleave: large arrays are spread within 5 %. A node gets whole huge pages, so
// that only an array of many shows it.
CASE(with_interleaving_large_arrays_are_spread) {
  Objects array(1);
  array.list[array.count++] = {static_cast<unsigned char*>(malloc(256 * kMiB)), 256 * kMiB};
  REQUIRE(array.list[0].p != nullptr);
  array.write();
  Census census;
  census.add(array);
  for (int node = 0; node < kNodes; node++) {
    const long share = census.total / kNodes;
    EXPECT(census.on[node] * 100 >= share * 95 && census.on[node] * 100 <= share * 105, "node %d: %ld of %ld pages", node,
           census.on[node], census.total);
  }
}
