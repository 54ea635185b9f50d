// A cpuset that changes while the process runs: a batch system or a container engine takes a node away and gives it back.
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "placement.h"

namespace {

constexpr std::size_t kEach = 2000;
constexpr std::size_t kLargest = 64 * kKiB;

// The control group of this process, cgroup v2: "0::/name".
void allow_memory_of(const char* nodes) {
  char line[256] = "";
  int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0 && read(fd, line, sizeof line - 1) > 4);
  close(fd);
  line[strcspn(line, "\n")] = '\0';
  char path[400];
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpuset.mems", line + 3);
  fd = open(path, O_WRONLY | O_CLOEXEC);
  REQUIRE(fd >= 0, "%s", path);
  const auto bytes = static_cast<ssize_t>(strlen(nodes));
  REQUIRE(write(fd, nodes, strlen(nodes)) == bytes, "%s to %s", nodes, path);
  close(fd);
}

Census where(const Objects& objects) {
  objects.write();
  Census census;
  census.add(objects);
  return census;
}

}  // namespace

CASE(with_a_cpuset_that_changes_a_node_goes_and_comes_back) {
  pin(machine().first_cpu(3));
  Objects before(kEach), meanwhile(kEach), afterwards(kEach);
  before.allocate(kEach, kLargest, 3);
  EXPECT_ALL_ON(where(before), 3);

  allow_memory_of("0-2");
  meanwhile.allocate(kEach, kLargest, 4);
  const Census elsewhere = where(meanwhile);
  EXPECT(elsewhere.absent == 0 && elsewhere.on[2] * 10 >= elsewhere.total * 8, "node 2 is the nearest to 3: %s",
         elsewhere.text());
  using StatsJson = int (*)(char*, std::size_t);
  const auto stats_json = reinterpret_cast<StatsJson>(dlsym(RTLD_DEFAULT, "numaheap_stats_json"));
  static char stats[1 << 16];
  REQUIRE(stats_json != nullptr && stats_json(stats, sizeof stats) >= 0);
  EXPECT(strstr(stats, "\"node_gone\"") != nullptr, "%s", stats);

  // What lies elsewhere goes home first; it would be handed out again.
  meanwhile.free_all();
  malloc_trim(0);
  allow_memory_of("0-3");
  afterwards.allocate(kEach, kLargest, 5);
  const Census back = where(afterwards);
  EXPECT(back.absent == 0 && back.on[3] * 10 >= back.total * 8, "%s", back.text());
  before.free_all();
  afterwards.free_all();
}
