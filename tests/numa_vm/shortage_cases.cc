// Nodes that run out: of huge pages, of memory. And fork on several nodes.
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <initializer_list>

#include "placed.h"
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

namespace {

// How many read system calls this process has made.
long reads_made() {
  char text[512];
  const int fd = open("/proc/self/io", O_RDONLY);
  REQUIRE(fd >= 0);
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  REQUIRE(n > 0);
  text[n] = '\0';
  const char* const found = strstr(text, "syscr: ");
  REQUIRE(found != nullptr);
  return strtol(found + 7, nullptr, 10);
}

std::uint64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000 + static_cast<std::uint64_t>(t.tv_nsec) / 1'000'000;
}

void expect_little_cost_on_a_full_node() {
  constexpr std::size_t kCount = 100'000, kSize = 1000;
  const int full = machine().nodes - 1, nearest = machine().nearest(full);
  pin(machine().first_cpu(full));
  Objects filling(machine().memory[full] / kMedium), objects(kCount);
  while (heap_of(nearest).foreign_serves == 0) {
    REQUIRE(filling.allocate_same(64, kMedium) == 64);
    filling.write();
  }
  // Those of this size, too, whose list has room for a batch afterwards.
  while (heap_of(nearest).foreign_serves < 100) REQUIRE(malloc(kSize) != nullptr);
  const long reads = reads_made();
  const std::uint64_t calls = nh_memory_syscalls(), serves = heap_of(nearest).foreign_serves;
  const std::uint64_t start = now_ms();
  REQUIRE(objects.allocate_same(kCount, kSize) == kCount);
  objects.write();
  const auto ms = static_cast<long>(now_ms() - start);
  // What the machine has left is read some hundred times a second; new memory on the neighbour is mapped, bound and proven.
  EXPECT(reads_made() - reads <= 20 * (ms / 10 + 2), "%ld reads in %ld ms", reads_made() - reads, ms);
  const std::uint64_t units = kCount * kSize / kHuge;
  EXPECT(nh_memory_syscalls() - calls <= 10 * units, "%lu", nh_memory_syscalls() - calls);
  EXPECT(heap_of(nearest).foreign_serves - serves <= kCount / 4, "%lu", heap_of(nearest).foreign_serves - serves);
  Census census;
  census.add(objects);
  EXPECT(census.on[full] + census.on[nearest] == census.total && census.on[nearest] * 2 > census.total, "%s", census.text());
}

}  // namespace

// A node that is full is remembered, and its neighbour serves in batches: not every object takes a look at the machine.
CASE(a_full_node_costs_little_more_than_one_with_room) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    expect_little_cost_on_a_full_node();
    _exit(failures() == 0 ? 0 : 1);
  }
  expect_success(child);
}

namespace {

std::size_t memory_of_all_nodes() {
  std::size_t sum = 0;
  for (int node = 0; node < machine().nodes; node++) sum += machine().memory[node];
  return sum;
}

// It fails as glibc's does, and nothing comes of it.
void expect_refusal(std::size_t bytes) {
  const long resident = resident_kib();
  errno = 0;
  void* p = malloc(bytes);
  EXPECT(p == nullptr && errno == ENOMEM, "%zu MiB: %p, errno %d", bytes / kMiB, p, errno);
  EXPECT(resident_kib() - resident < 1024, "%ld KiB more", resident_kib() - resident);
  free(p);
}

}  // namespace

CASE(more_than_the_nodes_are_made_of_is_refused) {
  expect_refusal(memory_of_all_nodes() + kMiB);
  expect_refusal(memory_of_all_nodes() * 20);
  // A program that touches little of it lives.
  auto* sparse = static_cast<unsigned char*>(malloc(memory_of_all_nodes() / 10 * 9));
  REQUIRE(sparse != nullptr);
  sparse[0] = 1;
  auto* grown = static_cast<unsigned char*>(realloc(sparse, memory_of_all_nodes() + kMiB));
  EXPECT(grown == nullptr && sparse[0] == 1);
  errno = 0;
  const std::size_t node = machine().memory[1];
  EXPECT(api().on_node_strict(node + kMiB, 1) == nullptr && errno == ENOMEM, "errno %d", errno);
  free(sparse);
}

// Under a binding the kernel would not refuse it, and its killer would come when it is written to.
CASE(with_a_binding_to_node_3_more_than_the_node_is_made_of_is_refused) {
  expect_refusal(machine().memory[3] + kMiB);
  auto* sparse = static_cast<unsigned char*>(malloc(machine().memory[3] / 4));
  REQUIRE(sparse != nullptr);
  sparse[0] = 1;
  free(sparse);
}

// Interleaved memory is proven, so that it has to be there.
CASE(with_large_objects_interleaved_more_than_there_is_is_refused) {
  expect_refusal(memory_of_all_nodes());
  auto* array = static_cast<unsigned char*>(malloc(memory_of_all_nodes() / 16));
  EXPECT(array != nullptr);
  free(array);
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
