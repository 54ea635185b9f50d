// Memory that goes back, node by node. in_guest.py sets pools, delay and limit.
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "placement.h"

namespace {

constexpr std::size_t kMedium = 64 * kKiB;
constexpr std::size_t kCount = 800;  // 50 MiB

void allocate_here(int, void* objects) {
  REQUIRE(static_cast<Objects*>(objects)->allocate_same(kCount, kMedium) == kCount);
}
void free_here(int, void* objects) { static_cast<Objects*>(objects)->free_all(); }

// Whether there is a scavenger thread that may run on the CPUs of this node and on no others.
bool scavenger_stays_on(int node) {
  DIR* tasks = opendir("/proc/self/task");
  REQUIRE(tasks != nullptr);
  bool found = false;
  while (const dirent* entry = readdir(tasks)) {
    char path[300], name[32] = {};
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    const bool readable = read(fd, name, sizeof name - 1) > 0;
    close(fd);
    if (!readable || strncmp(name, "numaheap-scav", 13) != 0) continue;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(atoi(entry->d_name), sizeof cpus, &cpus) != 0) continue;
    bool only_here = CPU_COUNT(&cpus) > 0;
    for (int cpu = 0; cpu < machine().cpus; cpu++) only_here &= !CPU_ISSET(cpu, &cpus) || machine().node_of[cpu] == node;
    found |= only_here;
  }
  closedir(tasks);
  return found;
}

// Waits for something that happens in the background. The program goes on meanwhile, as programs do, with more objects than
// a CPU's lists hold: frees that leave those are what starts the scavenger.
template <typename Condition>
bool comes_true(int node, Condition&& condition) {
  for (int i = 0; i < 100; i++) {
    if (condition()) return true;
    Objects passing(3000);
    on_node(node, [](int, void* objects) {
      REQUIRE(static_cast<Objects*>(objects)->allocate_same(3000, kKiB) == 3000);
      free_here(0, objects);
    }, &passing);
    usleep(100'000);
  }
  return condition();
}

}  // namespace

// Huge pages in the pools of nodes 0 and 1, a short delay. What node 1 no longer needs goes back to its pool; node 0, whose
// objects live, keeps every page where it is.
CASE(with_pools_a_scavenge_on_one_node_leaves_the_others_alone) {
  Objects staying(kCount), leaving(kCount);
  on_node(0, allocate_here, &staying);
  staying.fill(3);
  on_node(1, allocate_here, &leaving);
  leaving.write();
  const long pool_0 = pool_pages(0, "free_hugepages"), pool_1 = pool_pages(1, "free_hugepages");
  const long used = pool_pages(1, "nr_hugepages") - pool_1;
  REQUIRE(used >= 20, "node 1 is not on huge pages of its pool");
  std::uint64_t frames[kCount];
  for (std::size_t i = 0; i < kCount; i++) frames[i] = frame_of(staying.list[i].p);
  Census before;
  before.add(staying);
  EXPECT_ALL_ON(before, 0);

  Objects gone(kCount);
  for (std::size_t i = 0; i < kCount; i++) gone.take(leaving.list[i].p, kMedium);
  on_node(1, free_here, &leaving);
  EXPECT(comes_true(1, [&] { return pool_pages(1, "free_hugepages") >= pool_1 + used * 3 / 4; }),
         "%ld free before, %ld after, %ld were used", pool_1, pool_pages(1, "free_hugepages"), used);
  Census left;
  left.add(gone);
  EXPECT(left.absent * 10 > left.total * 7, "%s", left.text());
  EXPECT(scavenger_stays_on(1));

  EXPECT(pool_pages(0, "free_hugepages") == pool_0, "%ld after %ld", pool_pages(0, "free_hugepages"), pool_0);
  for (std::size_t i = 0; i < kCount; i++) EXPECT(frame_of(staying.list[i].p) == frames[i], "object %zu moved", i);
  EXPECT(staying.intact(3));
}

// NUMAHEAP_LIMIT=96M and a delay of ten minutes: 60 MiB free on node 1 go back early once node 2 needs 80 MiB.
CASE(with_a_limit_one_node_makes_room_for_another) {
  Objects first(2 * kCount), second(2 * kCount);
  on_node(1, [](int, void* p) { REQUIRE(static_cast<Objects*>(p)->allocate_same(960, kMedium) == 960); }, &first);
  first.write();
  Objects gone(960);
  for (std::size_t i = 0; i < first.count; i++) gone.take(first.list[i].p, kMedium);
  on_node(1, free_here, &first);
  Census kept;
  kept.add(gone);
  EXPECT(kept.on[1] == kept.total, "far from the limit, and gone already: %s", kept.text());

  on_node(2, [](int, void* p) { REQUIRE(static_cast<Objects*>(p)->allocate_same(1280, kMedium) == 1280); }, &second);
  second.fill(4);
  const auto is_gone = [&] {
    Census left;
    left.add(gone);
    return left.absent * 10 > left.total * 9;
  };
  Census left;
  EXPECT(comes_true(2, is_gone), "%s", (left.add(gone), left.text()));
  Census there;
  there.add(second);
  EXPECT_ALL_ON(there, 2);
  EXPECT(second.intact(4));
}
