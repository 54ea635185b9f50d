// Ordinary, fast, slow and device memory in one machine (kinds_of_memory of numa_vm_test).
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "placed.h"
#include "placement.h"

namespace {

constexpr std::size_t kMedium = 64 * kKiB;

// Objects that a thread of a node allocates and writes to.
void fill(int node, Objects& objects, std::size_t count) {
  struct Wanted {
    Objects* objects;
    std::size_t count;
  } wanted = {&objects, count};
  on_node(node, [](int, void* p) {
    const Wanted& w = *static_cast<Wanted*>(p);
    REQUIRE(w.objects->allocate_same(w.count, kMedium) == w.count, "object %zu", w.objects->count);
    w.objects->write();
  }, &wanted);
}

// The bytes of anonymous memory of this process on a node.
std::size_t anonymous_on(int node) {
  const std::string mark = " N" + std::to_string(node) + "=";
  std::ifstream maps("/proc/self/numa_maps");
  std::size_t pages = 0;
  for (std::string line; std::getline(maps, line);) {
    const std::size_t at = line.find(mark);
    if (at != line.npos && line.find(" anon=") != line.npos) pages += std::stoul(line.substr(at + mark.size()));
  }
  return pages * 4 * kKiB;
}

}  // namespace

// Nodes 0 and 1 are ordinary, 2 fast, 3 slow and nearest to 0, 4 a device's.
CASE(with_a_device_slow_memory_helps_last_and_others_not_at_all) {
  const std::size_t wanted = (machine().memory[0] + machine().memory[1]) * 17 / 16 / kMedium;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Objects objects(wanted);
    fill(0, objects, wanted);
    Census census;
    census.add(objects);
    EXPECT(census.absent == 0 && census.on[0] * 4 > census.total && census.on[1] * 4 > census.total && census.on[3] > 0 &&
               census.on[0] + census.on[1] + census.on[3] == census.total,
           "%s", census.text());
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
}

CASE(with_a_device_nothing_is_on_it_before_it_is_named) {
  Objects objects(2 * 400 + 1);
  for (const int node : {0, 1}) {
    fill(node, objects, 400);
  }
  objects.take(malloc(64 * kMiB), 64 * kMiB);
  objects.write();
  EXPECT(anonymous_on(4) == 0, "%zu bytes", anonymous_on(4));
  EXPECT(anonymous_on(2) <= 256 * kKiB, "%zu bytes: its heap's own data", anonymous_on(2));
  for (unsigned i = 0; i < api().node_count(); i++) EXPECT(api().node_id(i) != 4, "it is listed");
  void* const named = api().on_node_strict(8 * kMiB, 4);
  REQUIRE(named != nullptr);
  memset(named, 1, 8 * kMiB);
  EXPECT(api().node_of(named) == 4 && anonymous_on(4) >= 8 * kMiB, "node %d", api().node_of(named));
  free(named);
}

// Node 0 has CPUs, and its memory is left out.
CASE(with_nodes_left_out_their_cpus_use_the_nearest_other) {
  Objects objects(400);
  fill(0, objects, 400);
  Census census;
  census.add(objects);
  // First touch by a CPU of the node that is left out.
  Objects array(1);
  array.take(malloc(24 * kMiB), 24 * kMiB);
  on_node(0, [](int, void* p) { static_cast<Objects*>(p)->write(); }, &array);
  census.add(array);
  EXPECT_ALL_ON(census, 1);
  EXPECT(api().on_node(100, 0) == nullptr && errno == EINVAL);
  EXPECT(api().node_count() == 3, "%u", api().node_count());
}

// Fast memory serves those who bind themselves to it.
CASE(with_a_binding_to_node_2_everything_lies_there) {
  Objects objects(400);
  fill(1, objects, 400);
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 2);
}
