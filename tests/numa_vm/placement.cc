#include "placement.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

constexpr std::size_t kPage = 4 * kKiB;

void* outside_the_heap(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return memory;
}

// The text of a file, up to `capacity` - 1 bytes; false where there is none. Without stdio, which would allocate.
bool read_text(char* text, std::size_t capacity, const char* format, ...) {
  char path[128];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::size_t length = 0;
  for (ssize_t n; length < capacity - 1 && (n = read(fd, text + length, capacity - 1 - length)) > 0;) {
    length += static_cast<std::size_t>(n);
  }
  close(fd);
  text[length] = '\0';
  return length > 0;
}

Machine read_machine() {
  Machine m;
  char text[1024];
  while (m.nodes < kMaxNodes && read_text(text, sizeof text, "/sys/devices/system/node/node%d/distance", m.nodes)) {
    char* next = text;
    for (int& distance : m.distance[m.nodes]) distance = static_cast<int>(strtol(next, &next, 10));
    REQUIRE(read_text(text, sizeof text, "/sys/devices/system/node/node%d/meminfo", m.nodes));
    const char* total = strstr(text, "MemTotal:");
    REQUIRE(total != nullptr);
    m.memory[m.nodes] = strtoul(total + strlen("MemTotal:"), nullptr, 10) * kKiB;
    REQUIRE(read_text(text, sizeof text, "/sys/devices/system/node/node%d/cpulist", m.nodes));
    // "4-5", "3", or nothing: numa-vm gives every node consecutive CPUs.
    int first = 0, last = 0;
    const int fields = sscanf(text, "%d-%d", &first, &last);
    if (fields == 1) last = first;
    for (int cpu = first; fields >= 1 && cpu <= last; cpu++) {
      REQUIRE(cpu < kMaxCpus);
      m.node_of[cpu] = m.nodes;
      m.cpus++;
    }
    m.nodes++;
  }
  REQUIRE(m.nodes > 0 && m.cpus > 0);
  return m;
}

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

const Machine& machine() {
  static const Machine m = read_machine();
  return m;
}

int Machine::first_cpu(int node) const {
  for (int cpu = 0; cpu < cpus; cpu++) {
    if (node_of[cpu] == node) return cpu;
  }
  return -1;
}

int Machine::nearest(int from, int but) const {
  int best = -1;
  for (int node = 0; node < nodes; node++) {
    if (node == from || node == but || memory[node] == 0) continue;
    const bool nearer = best < 0 || distance[from][node] < distance[from][best];
    const bool as_near = best >= 0 && distance[from][node] == distance[from][best];
    if (nearer || (as_near && first_cpu(best) < 0 && first_cpu(node) >= 0)) best = node;
  }
  return best;
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  REQUIRE(sched_setaffinity(0, sizeof set, &set) == 0, "cpu %d", cpu);
  unsigned here = 0, node = 0;
  REQUIRE(syscall(SYS_getcpu, &here, &node, nullptr) == 0);
  REQUIRE(static_cast<int>(here) == cpu && static_cast<int>(node) == machine().node_of[cpu], "cpu %u of node %u", here, node);
}

void on_cpus(const int* cpus, int count, void (*body)(int, void*), void* argument) {
  pthread_t threads[kMaxCpus];
  Start starts[kMaxCpus];
  REQUIRE(count <= kMaxCpus);
  for (int i = 0; i < count; i++) {
    starts[i] = {cpus[i], body, argument};
    REQUIRE(pthread_create(&threads[i], nullptr, run_pinned, &starts[i]) == 0);
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], nullptr);
}

void on_all_cpus(void (*body)(int, void*), void* argument) {
  int cpus[kMaxCpus];
  for (int i = 0; i < machine().cpus; i++) cpus[i] = i;
  on_cpus(cpus, machine().cpus, body, argument);
}

void on_cpu(int cpu, void (*body)(int, void*), void* argument) { on_cpus(&cpu, 1, body, argument); }

void on_node(int node, void (*body)(int, void*), void* argument) {
  REQUIRE(machine().first_cpu(node) >= 0, "node %d has no CPU", node);
  on_cpu(machine().first_cpu(node), body, argument);
}

// ---- objects -----------------------------------------------------------------------------------------------------------

Objects::Objects(std::size_t most)
    : list(static_cast<Object*>(outside_the_heap(most * sizeof(Object)))), capacity(most) {}

Objects::~Objects() { munmap(list, capacity * sizeof(Object)); }

void Objects::take(void* p, std::size_t bytes) {
  REQUIRE(p != nullptr, "%zu bytes, object %zu", bytes, count);
  REQUIRE(count < capacity);
  list[count++] = {static_cast<unsigned char*>(p), bytes};
}

void Objects::allocate_sized(std::size_t n, std::size_t largest, std::uint64_t seed, bool fewer_large) {
  unsigned powers = 0;
  while ((std::size_t{16} << powers) < largest) powers++;
  for (std::size_t i = 0; i < n; i++) {
    const std::uint64_t random = next_random(&seed);
    unsigned power = static_cast<unsigned>(random % powers);
    // The number of trailing zeros of a random number is k with a chance of 1 in 2^(k+1).
    if (fewer_large) {
      power = static_cast<unsigned>(__builtin_ctzll(random | std::uint64_t{1} << 63));
      if (power >= powers) power = powers - 1;
    }
    const std::size_t low = std::size_t{16} << power;
    const std::size_t bytes = low + next_random(&seed) % low + 1;
    take(malloc(bytes), bytes);
  }
}

void Objects::allocate(std::size_t n, std::size_t largest, std::uint64_t seed) {
  allocate_sized(n, largest, seed, false);
}

void Objects::allocate_many(std::size_t n, std::size_t largest, std::uint64_t seed) {
  allocate_sized(n, largest, seed, true);
}

std::size_t Objects::allocate_same(std::size_t n, std::size_t bytes) {
  for (std::size_t i = 0; i < n; i++) {
    void* p = malloc(bytes);
    if (p == nullptr) return i;
    take(p, bytes);
  }
  return n;
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

Lists::Lists(std::size_t most) {
  for (auto& objects : of) objects = new Objects(most);
}

Lists::~Lists() {
  for (auto* objects : of) delete objects;
}

// ---- the kernel's word -------------------------------------------------------------------------------------------------

PageSet::PageSet()
    : pages_(static_cast<std::uintptr_t*>(outside_the_heap(kMost * sizeof *pages_))),
      slots_(static_cast<std::uint32_t*>(outside_the_heap(2 * kMost * sizeof *slots_))) {}

PageSet::~PageSet() {
  munmap(pages_, kMost * sizeof *pages_);
  munmap(slots_, 2 * kMost * sizeof *slots_);
}

void PageSet::add(const void* p, std::size_t bytes) {
  const auto end = reinterpret_cast<std::uintptr_t>(p) + bytes;
  for (auto at = reinterpret_cast<std::uintptr_t>(p) / kPage * kPage; at < end; at += kPage) {
    std::size_t slot = (at / kPage * 0x9e3779b97f4a7c15u) >> 43;  // 21 bits
    static_assert(2 * kMost == std::size_t{1} << 21);
    while (slots_[slot] != 0 && pages_[slots_[slot] - 1] != at) slot = (slot + 1) % (2 * kMost);
    if (slots_[slot] != 0) continue;
    REQUIRE(size_ < kMost);
    pages_[size_++] = at;
    slots_[slot] = static_cast<std::uint32_t>(size_);
  }
}

std::uint64_t frame_of(const void* p) {
  static const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  std::uint64_t entry = 0;
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(p) / kPage * sizeof entry);
  REQUIRE(pread(fd, &entry, sizeof entry, at) == sizeof entry);
  const bool present = entry >> 63 != 0;
  return present ? entry & ((std::uint64_t{1} << 55) - 1) : 0;
}

namespace {

// Where the kernel's zones of a node lie, in page frames.
struct Zone {
  int node;
  std::uint64_t first, count;
};

// What was only read shares the zero page, which lies anywhere.
bool is_zero_page(std::uint64_t frame) {
  static const int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  constexpr int kZeroPage = 24;  // KPF_ZERO_PAGE
  std::uint64_t flags = 0;
  REQUIRE(pread(fd, &flags, sizeof flags, static_cast<off_t>(frame * sizeof flags)) == sizeof flags);
  return (flags >> kZeroPage & 1) != 0;
}

// NUMA balancing takes pages away for a moment, to see who comes for them: move_pages finds nothing there then. The frame is
// still known. -1: there is none.
int node_of_frame(std::uint64_t frame) {
  static Zone zones[4 * kMaxNodes];
  static int known = 0;
  if (known == 0) {
    constexpr std::size_t kMost = 256 * kKiB;
    auto* text = static_cast<char*>(outside_the_heap(kMost));
    REQUIRE(read_text(text, kMost, "/proc/zoneinfo"));
    Zone zone = {-1, 0, 0};
    for (const char* line = text; line != nullptr && known < 4 * kMaxNodes; line = strchr(line, '\n')) {
      line += *line == '\n';
      sscanf(line, "Node %d, zone", &zone.node);
      sscanf(line, " spanned %lu", &zone.count);
      if (sscanf(line, " start_pfn: %lu", &zone.first) == 1 && zone.count != 0) zones[known++] = zone;
    }
    munmap(text, kMost);
    REQUIRE(known != 0);
  }
  for (int i = 0; frame != 0 && i < known; i++) {
    if (frame - zones[i].first < zones[i].count) return is_zero_page(frame) ? -1 : zones[i].node;
  }
  return -1;
}

// Asks for pages in batches and adds what it hears to a census.
class Question {
 public:
  explicit Question(Census& census) : census_(census) {}
  ~Question() { ask(); }
  void about(void* page) {
    page_[count_++] = page;
    if (count_ == kBatch) ask();
  }

 private:
  static constexpr std::size_t kBatch = 1024;

  void ask() {
    int node[kBatch];
    if (count_ != 0) REQUIRE(syscall(SYS_move_pages, 0, count_, page_, nullptr, node, 0) == 0, "move_pages");
    for (std::size_t i = 0; i < count_; i++) {
      census_.total++;
      if (node[i] < 0) node[i] = node_of_frame(frame_of(page_[i]));
      node[i] >= 0 && node[i] < kMaxNodes ? census_.on[node[i]]++ : census_.absent++;
    }
    count_ = 0;
  }

  Census& census_;
  void* page_[kBatch];
  std::size_t count_ = 0;
};

}  // namespace

void Census::add(const PageSet& pages) {
  Question question(*this);
  pages.for_each([&](void* page) { question.about(page); });
}

void Census::add(const void* p, std::size_t bytes) {
  Question question(*this);
  const auto end = reinterpret_cast<std::uintptr_t>(p) + bytes;
  for (auto at = reinterpret_cast<std::uintptr_t>(p) / kPage * kPage; at < end; at += kPage) {
    question.about(reinterpret_cast<void*>(at));
  }
}

void Census::add(const Objects& objects) {
  PageSet pages;
  for (std::size_t i = 0; i < objects.count; i++) pages.add(objects.list[i].p, objects.list[i].bytes);
  add(pages);
}

const char* Census::text() const {
  static char buffer[256];
  int at = snprintf(buffer, sizeof buffer, "of %ld pages", total);
  for (int node = 0; node < machine().nodes; node++) at += snprintf(buffer + at, sizeof buffer - at, " %ld", on[node]);
  snprintf(buffer + at, sizeof buffer - at, " on the nodes, %ld absent", absent);
  return buffer;
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
  char text[32];
  REQUIRE(read_text(text, sizeof text, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/%s", node, counter));
  return strtol(text, nullptr, 10);
}

std::size_t bytes_on_huge_pages(const void* p, std::size_t bytes) {
  constexpr std::size_t kMost = 4 * kMiB;
  auto* text = static_cast<char*>(outside_the_heap(kMost));
  REQUIRE(read_text(text, kMost, "/proc/self/smaps"));
  const auto first = reinterpret_cast<std::uintptr_t>(p), last = first + bytes;
  std::size_t kib = 0;
  bool inside = false;
  for (char* line = text; *line != '\0';) {
    char* end = strchr(line, '\n');
    if (end == nullptr) break;
    *end = '\0';
    std::uintptr_t from = 0, to = 0;
    char* field = nullptr;
    if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
      inside = from < last && to > first;
    } else if (inside) {
      for (const char* key : {"AnonHugePages:", "Private_Hugetlb:", "Shared_Hugetlb:"}) {
        if ((field = strstr(line, key)) == line) kib += strtoul(line + strlen(key), nullptr, 10);
      }
    }
    line = end + 1;
  }
  munmap(text, kMost);
  return kib * kKiB;
}

HugeBytes huge_bytes() {
  char text[4096];
  REQUIRE(read_text(text, sizeof text, "/proc/self/smaps_rollup"));
  const auto bytes = [&](const char* key) -> std::size_t {
    const char* at = strstr(text, key);
    REQUIRE(at != nullptr, "%s", key);
    return strtoul(at + strlen(key), nullptr, 10) * kKiB;
  };
  return {bytes("Private_Hugetlb:") + bytes("Shared_Hugetlb:"), bytes("AnonHugePages:")};
}
