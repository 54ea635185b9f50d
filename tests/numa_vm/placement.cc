#include "placement.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t kPage = 4 * kKiB;

struct Start {
  int cpu;
  void (*body)(int, void*);
  void* argument;
};

void* run_pinned(void* p) {
  const Start& start = *static_cast<Start*>(p);
  pin(start.cpu);
  start.body(start.cpu, start.argument);
  return nullptr;
}

}  // namespace

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  REQUIRE(sched_setaffinity(0, sizeof set, &set) == 0, "cpu %d", cpu);
  unsigned here = 0, node = 0;
  REQUIRE(syscall(SYS_getcpu, &here, &node, nullptr) == 0);
  REQUIRE(static_cast<int>(here) == cpu && static_cast<int>(node) == node_of_cpu(cpu), "cpu %u of node %u", here, node);
}

void on_cpus(const int* cpus, int count, void (*body)(int, void*), void* argument) {
  pthread_t threads[kCpus];
  Start starts[kCpus];
  REQUIRE(count <= kCpus);
  for (int i = 0; i < count; i++) {
    starts[i] = {cpus[i], body, argument};
    REQUIRE(pthread_create(&threads[i], nullptr, run_pinned, &starts[i]) == 0);
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], nullptr);
}

void on_all_cpus(void (*body)(int, void*), void* argument) {
  int cpus[kCpus];
  for (int i = 0; i < kCpus; i++) cpus[i] = i;
  on_cpus(cpus, kCpus, body, argument);
}

void on_cpu(int cpu, void (*body)(int, void*), void* argument) { on_cpus(&cpu, 1, body, argument); }

Objects::Objects(std::size_t most) : capacity(most) {
  void* memory = mmap(nullptr, most * sizeof(Object), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  list = static_cast<Object*>(memory);
}

Objects::~Objects() { munmap(list, capacity * sizeof(Object)); }

void Objects::allocate(std::size_t n, std::size_t largest, std::uint64_t seed) {
  REQUIRE(count + n <= capacity);
  unsigned powers = 0;
  while ((std::size_t{16} << powers) < largest) powers++;
  for (std::size_t i = 0; i < n; i++) {
    const std::size_t low = std::size_t{16} << next_random(&seed) % powers;
    const std::size_t bytes = low + next_random(&seed) % low + 1;
    auto* p = static_cast<unsigned char*>(malloc(bytes));
    REQUIRE(p != nullptr, "%zu bytes, object %zu", bytes, count);
    list[count++] = {p, bytes};
  }
}

void Objects::write() const {
  for (std::size_t i = 0; i < count; i++) {
    for (std::size_t at = 0; at < list[i].bytes; at += kPage) list[i].p[at] = 1;
    list[i].p[list[i].bytes - 1] = 1;
  }
}

void Objects::fill(std::uint64_t seed) const {
  for (std::size_t i = 0; i < count; i++) fill_pattern(list[i].p, list[i].bytes, seed + i);
}

bool Objects::intact(std::uint64_t seed) const {
  for (std::size_t i = 0; i < count; i++) {
    if (verify_pattern(list[i].p, list[i].bytes, seed + i) != list[i].bytes) return false;
  }
  return true;
}

void Objects::free_all() {
  for (std::size_t i = 0; i < count; i++) free(list[i].p);
  count = 0;
}

void Census::add(const void* p, std::size_t bytes) {
  constexpr std::size_t kBatch = 256;
  void* addresses[kBatch];
  int nodes[kBatch];
  const auto first = reinterpret_cast<std::uintptr_t>(p) / kPage * kPage;
  const auto end = reinterpret_cast<std::uintptr_t>(p) + bytes;
  for (std::uintptr_t at = first; at < end;) {
    std::size_t n = 0;
    for (; n < kBatch && at < end; at += kPage) addresses[n++] = reinterpret_cast<void*>(at);
    REQUIRE(syscall(SYS_move_pages, 0, n, addresses, nullptr, nodes, 0) == 0, "move_pages");
    for (std::size_t i = 0; i < n; i++) {
      total++;
      if (nodes[i] >= 0 && nodes[i] < kNodes) {
        on[nodes[i]]++;
      } else {
        absent++;
      }
    }
  }
}

numaheap_heap_stats heap_of(int node) {
  using Get = int (*)(unsigned, numaheap_heap_stats*, std::size_t);
  static const auto get = reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "numaheap_get_heap_stats"));
  REQUIRE(get != nullptr, "not on numaheap");
  const int kind = node < 0 ? NUMAHEAP_HEAP_FIRST_TOUCH : NUMAHEAP_HEAP_NODE;
  numaheap_heap_stats stats;
  for (unsigned i = 0; get(i, &stats, sizeof stats) == 0; i++) {
    if (stats.kind == kind && stats.node == node) return stats;
  }
  REQUIRE(false, "no heap of node %d", node);
  return stats;
}

long pool_pages(int node, const char* counter) {
  char path[128];
  char text[32] = {};
  snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/%s", node, counter);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0, "%s", path);
  REQUIRE(read(fd, text, sizeof text - 1) > 0, "%s", path);
  close(fd);
  return strtol(text, nullptr, 10);
}
