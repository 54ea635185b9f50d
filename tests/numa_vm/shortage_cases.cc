// Nodes that run out: of huge pages, of memory. And fork on several nodes.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

#include "placement.h"

namespace {

// Objects of 48 to 64 KiB: no two share a page of 4 KiB, and a few hundred fill a huge page or two.
constexpr std::size_t kMedium = 64 * kKiB;

struct Fill {
  Objects* objects;
  std::size_t count;
};
void fill_node(int, void* p) {
  const Fill& fill = *static_cast<Fill*>(p);
  for (std::size_t i = 0; i < fill.count; i++) {
    auto* object = static_cast<unsigned char*>(malloc(kMedium));
    REQUIRE(object != nullptr, "object %zu", i);
    fill.objects->list[fill.objects->count++] = {object, kMedium};
  }
  fill.objects->write();
}

}  // namespace

// run.sh gives pages to the pools of nodes 0, 2 and 3 and none to that of node 1.
CASE(a_node_without_huge_pages_keeps_its_objects) {
  REQUIRE(pool_pages(1, "nr_hugepages") == 0 && pool_pages(0, "free_hugepages") >= 16, "not the machine of run.sh");
  for (const int node : {1, 0}) {
    Objects objects(400);
    Fill fill = {&objects, 400};
    on_cpu(node * kCpusPerNode, fill_node, &fill);
    Census census;
    census.add(objects);
    EXPECT_ALL_ON(census, node);
    const numaheap_heap_stats stats = heap_of(node);
    EXPECT(node == 1 ? stats.hugetlb_bytes == 0 : stats.hugetlb_bytes >= 16 * kMiB, "node %d: %lu", node, stats.hugetlb_bytes);
    EXPECT(node == 0 || stats.thp_bytes >= 16 * kMiB, "%lu", stats.thp_bytes);
  }
  EXPECT(pool_pages(0, "nr_hugepages") - pool_pages(0, "free_hugepages") >= 8);
}

// Node 3 has four huge pages: they are used, and what does not fit lies on the node all the same.
CASE(a_pool_that_runs_dry_sends_nothing_to_other_nodes) {
  const long pages = pool_pages(3, "free_hugepages");
  REQUIRE(pages == 4, "not the machine of run.sh");
  const long others = pool_pages(0, "free_hugepages") + pool_pages(2, "free_hugepages");
  Objects objects(800);
  Fill fill = {&objects, 800};
  on_cpu(3 * kCpusPerNode, fill_node, &fill);
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 3);
  EXPECT(heap_of(3).hugetlb_bytes == 4 * kHuge, "%lu", heap_of(3).hugetlb_bytes);
  EXPECT(pool_pages(3, "free_hugepages") == 0);
  EXPECT(pool_pages(0, "free_hugepages") + pool_pages(2, "free_hugepages") == others);
}

// Node 2 has no memory left: its nearest neighbour serves, which is node 3, and nobody is killed.
CASE(a_full_node_spills_to_the_nearest_one) {
  constexpr std::size_t kObjects = 1300 * kMiB / kMedium;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Objects objects(kObjects);
    Fill fill = {&objects, kObjects};
    on_cpu(2 * kCpusPerNode, fill_node, &fill);
    Census census;
    census.add(objects);
    EXPECT(census.absent == 0 && census.on[2] * 3 > census.total && census.on[3] > 0 &&
               census.on[0] + census.on[1] == 0,
           "of %ld pages %ld, %ld, %ld, %ld on nodes 0 to 3, %ld absent", census.total, census.on[0], census.on[1],
           census.on[2], census.on[3], census.absent);
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

// Memory of all nodes, on all kinds of pages: parent and child both write all of it and keep their own contents.
CASE(fork_keeps_the_memory_of_all_nodes) {
  Objects objects(4 * 200 + 1);
  for (int node = 0; node < kNodes; node++) {
    Objects here(200);
    Fill fill = {&here, 200};
    on_cpu(node * kCpusPerNode, fill_node, &fill);
    for (std::size_t i = 0; i < here.count; i++) objects.list[objects.count++] = here.list[i];
  }
  pin(0);
  objects.list[objects.count++] = {static_cast<unsigned char*>(malloc(16 * kMiB)), 16 * kMiB};
  REQUIRE(objects.list[objects.count - 1].p != nullptr);
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
    Objects fresh(200);
    Fill fill = {&fresh, 200};
    pin(2 * kCpusPerNode);
    fill_node(0, &fill);
    Census census;
    census.add(fresh);
    EXPECT_ALL_ON(census, 2);
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}
