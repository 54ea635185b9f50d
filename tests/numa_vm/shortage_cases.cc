// Nodes that run out: of huge pages, of memory. And fork on several nodes.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

#include "placement.h"

namespace {

// No two objects of this size share a page of 4 KiB, and a few hundred fill a huge page or two.
constexpr std::size_t kMedium = 64 * kKiB;

struct Fill {
  Objects* objects;
  std::size_t count;
};
void fill_node(int, void* p) {
  const Fill& fill = *static_cast<Fill*>(p);
  REQUIRE(fill.objects->allocate_same(fill.count, kMedium) == fill.count, "object %zu", fill.objects->count);
  fill.objects->write();
}

void expect_success(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

}  // namespace

// The pools as in_guest.py sets them: none on node 1.
CASE(a_node_without_huge_pages_keeps_its_objects) {
  REQUIRE(pool_pages(1, "nr_hugepages") == 0 && pool_pages(0, "free_hugepages") >= 16, "not the pools of in_guest.py");
  for (const int node : {1, 0}) {
    Objects objects(400);
    Fill fill = {&objects, 400};
    on_node(node, fill_node, &fill);
    Census census;
    census.add(objects);
    EXPECT_ALL_ON(census, node);
    const numaheap_heap_stats stats = heap_of(node);
    EXPECT(node == 1 ? stats.hugetlb_bytes == 0 : stats.hugetlb_bytes >= 16 * kMiB, "node %d: %lu", node, stats.hugetlb_bytes);
    EXPECT(node == 0 || stats.thp_bytes >= 16 * kMiB, "%lu", stats.thp_bytes);
    EXPECT(bytes_on_huge_pages(objects.list[399].p, kMedium) > 0, "node %d is on base pages", node);
  }
  EXPECT(pool_pages(0, "nr_hugepages") - pool_pages(0, "free_hugepages") >= 8);
}

// Node 3 has four huge pages: they are used, and what does not fit lies on the node all the same.
CASE(a_pool_that_runs_dry_sends_nothing_to_other_nodes) {
  const long pages = pool_pages(3, "free_hugepages");
  REQUIRE(pages == 4, "not the pools of in_guest.py");
  const long others = pool_pages(0, "free_hugepages") + pool_pages(2, "free_hugepages");
  Objects objects(800);
  Fill fill = {&objects, 800};
  on_node(3, fill_node, &fill);
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 3);
  EXPECT(heap_of(3).hugetlb_bytes == 4 * kHuge, "%lu", heap_of(3).hugetlb_bytes);
  EXPECT(pool_pages(3, "free_hugepages") == 0);
  EXPECT(pool_pages(0, "free_hugepages") + pool_pages(2, "free_hugepages") == others);
}

namespace {

// A node has no memory left: its nearest neighbour serves, and nobody is killed.
void expect_spill(int full, int nearest) {
  const std::size_t wanted = machine().memory[full] * 5 / 4 / kMedium;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Objects objects(wanted);
    Fill fill = {&objects, wanted};
    on_node(full, fill_node, &fill);
    Census census;
    census.add(objects);
    EXPECT(census.absent == 0 && census.on[full] * 3 > census.total && census.on[nearest] > 0 &&
               census.on[full] + census.on[nearest] == census.total,
           "node %d is full, %d is next: %s", full, nearest, census.text());
    EXPECT(heap_of(nearest).foreign_serves > 0);
    _exit(failures() == 0 ? 0 : 1);
  }
  expect_success(child);
}

}  // namespace

// The last node, so that the nearest is not node 0 by habit.
CASE(a_full_node_spills_to_the_nearest_one) {
  int last = machine().nodes - 1;
  while (machine().memory[last] == 0 || machine().first_cpu(last) < 0) last--;
  expect_spill(last, machine().nearest(last));
}

// The memory-only node is nearer to node 0 than the other ordinary one, and nothing is known of it.
CASE(a_memory_only_node_waits_for_the_ordinary_ones) {
  REQUIRE(machine().first_cpu(machine().nearest(0)) < 0, "not the machine of numa_vm_test");
  expect_spill(0, 1);
}

// Two nodes are full: the second nearest serves, by the kernel's distances.
CASE(two_full_nodes_spill_to_the_second_nearest) {
  const int full = 1;
  const int nearest = machine().nearest(full);
  const int second = machine().nearest(full, nearest);
  REQUIRE(second >= 0);
  // More than two nodes have to give, less than three: the kernel keeps a part of each.
  const std::size_t wanted = (machine().memory[full] + machine().memory[nearest]) / kMedium;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Objects objects(wanted);
    Fill fill = {&objects, wanted};
    on_node(full, fill_node, &fill);
    Census census;
    census.add(objects);
    EXPECT(census.absent == 0 && census.on[full] * 4 > census.total && census.on[nearest] * 4 > census.total &&
               census.on[second] > 0 && census.on[full] + census.on[nearest] + census.on[second] == census.total,
           "nodes %d and %d are full, %d is next: %s", full, nearest, second, census.text());
    _exit(failures() == 0 ? 0 : 1);
  }
  expect_success(child);
}

// Memory of all nodes, on all kinds of pages: parent and child both write all of it and keep their own contents.
CASE(fork_keeps_the_memory_of_all_nodes) {
  constexpr std::size_t kPerNode = 200;
  Objects objects(kMaxNodes * kPerNode + 1);
  for (int node = 0; node < machine().nodes; node++) {
    Fill fill = {&objects, kPerNode};
    on_node(node, fill_node, &fill);
  }
  pin(0);
  objects.take(malloc(16 * kMiB), 16 * kMiB);
  objects.fill(1);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const std::uint64_t seed = child == 0 ? 5000 : 9000;
  EXPECT(objects.intact(1));
  objects.fill(seed);
  EXPECT(objects.intact(seed));
  objects.free_all();
  if (child == 0) {
    // The child's heaps are per node, too.
    for (const int node : {2, 1}) {
      Objects fresh(kPerNode);
      Fill fill = {&fresh, kPerNode};
      pin(machine().first_cpu(node));
      fill_node(0, &fill);
      Census census;
      census.add(fresh);
      EXPECT_ALL_ON(census, node);
    }
    _exit(failures() == 0 ? 0 : 1);
  }
  expect_success(child);
}
