// A short workload for `scripts/run`: on every NUMA node one thread, pinned to one of its CPUs, that
//   fills a large array for the first time (page faults, zeroing),
//   updates it at random places (translation of addresses: what huge pages are for),
//   frees and allocates small objects of mixed sizes (the fast path of malloc).
// Prints "name unit better value" lines, better being higher, lower or none. Pages and faults are the kernel's figures.
// With --hold it stops when all is measured and nothing is freed yet, says "holding" and waits for the end of its input, so
// that one can look into it.
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kArrayBytes = std::size_t{384} << 20;  // over all threads
constexpr std::size_t kUpdates = 24'000'000;                 // per thread
constexpr std::size_t kPairs = 12'000'000;                   // per thread
constexpr std::size_t kLiveObjects = 4096;                   // per thread, 1 MiB or so
constexpr std::size_t kPage = 4096;

struct Result {
  double fill_seconds = 0;
  double update_seconds = 0;
  double pair_seconds = 0;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::uint64_t next_random(std::uint64_t& state) {  // xorshift64
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// The first CPU of every node on which this process may run; the running CPU where the kernel shows no nodes.
std::vector<int> one_cpu_per_node() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  std::vector<int> cpus;
  for (int node = 0; node < 1024; node++) {
    char path[64];
    std::snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    std::FILE* file = std::fopen(path, "r");
    if (file == nullptr) continue;
    int first = 0, last = 0, chosen = -1;
    while (chosen < 0 && std::fscanf(file, "%d", &first) == 1) {
      last = first;
      if (std::fscanf(file, "-%d", &last) < 0) last = first;
      for (int cpu = first; cpu <= last && chosen < 0; cpu++) {
        if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed)) chosen = cpu;
      }
      if (std::fgetc(file) != ',') break;
    }
    std::fclose(file);
    if (chosen >= 0) cpus.push_back(chosen);
  }
  if (cpus.empty()) cpus.push_back(sched_getcpu());
  return cpus;
}

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) std::perror("sched_setaffinity");
}

[[noreturn]] void out_of_memory() {
  std::fputs("demo: malloc returned null\n", stderr);
  std::exit(1);
}

// A field of smaps_rollup in bytes.
std::size_t smaps(const char* field) {
  std::FILE* file = std::fopen("/proc/self/smaps_rollup", "r");
  if (file == nullptr) return 0;
  char line[256];
  std::size_t kib = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    const std::size_t length = std::strlen(field);
    if (std::strncmp(line, field, length) == 0) kib = std::strtoull(line + length, nullptr, 10);
  }
  std::fclose(file);
  return kib * 1024;
}

// Many a host takes the free memory of a virtual machine back, in pieces of 2 MiB and more, and needs milliseconds to give
// one again. That is no allocator's doing: the machine gets it back before the clock starts.
void warm_machine(std::size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return;
  madvise(p, bytes, MADV_HUGEPAGE);
  for (std::size_t at = 0; at < bytes; at += kPage) static_cast<volatile char*>(p)[at] = 1;
  munmap(p, bytes);
}

double fill(std::uint64_t* words, std::size_t count) {
  const double start = now();
  for (std::size_t i = 0; i < count; i += kPage / sizeof(std::uint64_t)) std::memset(words + i, 1, kPage);
  return now() - start;
}

double update(std::uint64_t* words, std::size_t count, std::uint64_t random) {
  const double start = now();
  for (std::size_t i = 0; i < kUpdates; i++) {
    // The upper half of the product: a place in [0, count) without a division.
    const auto place = static_cast<std::size_t>((static_cast<unsigned __int128>(next_random(random)) * count) >> 64);
    words[place] ^= random;
  }
  return now() - start;
}

template <typename Hold>
double pairs(std::uint64_t random, Hold&& hold) {
  std::vector<void*> live(kLiveObjects, nullptr);
  const auto round = [&](std::size_t steps) {
    for (std::size_t i = 0; i < steps; i++) {
      const std::uint64_t r = next_random(random);
      void*& slot = live[r % kLiveObjects];
      std::free(slot);
      slot = std::malloc(16 + (r >> 32) % 497);
      if (slot == nullptr) out_of_memory();
      *static_cast<char*>(slot) = 1;
    }
  };
  round(kPairs / 10);  // warm
  const double start = now();
  round(kPairs);
  const double seconds = now() - start;
  hold();
  for (void* p : live) std::free(p);
  return seconds;
}

void hold() {
  // Where the kernel lets only parents look into a process (Yama), anybody may look into this one.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  std::puts("holding");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool holds = argc > 1 && std::strcmp(argv[1], "--hold") == 0;
  const std::vector<int> cpus = one_cpu_per_node();
  const auto threads = static_cast<std::ptrdiff_t>(cpus.size());
  const std::size_t bytes = kArrayBytes / cpus.size() / kPage * kPage;
  std::vector<Result> results(cpus.size());
  std::barrier phase(threads);
  std::size_t hugetlb = 0, thp = 0;

  const auto work = [&](std::size_t index) {
    pin_to(cpus[index]);
    Result& result = results[index];
    const std::uint64_t seed = 0x9e3779b97f4a7c15u * (index + 1);
    auto* words = static_cast<std::uint64_t*>(std::malloc(bytes));
    if (words == nullptr) out_of_memory();
    warm_machine(bytes);
    phase.arrive_and_wait();
    result.fill_seconds = fill(words, bytes / sizeof *words);
    phase.arrive_and_wait();
    result.update_seconds = update(words, bytes / sizeof *words, seed);
    phase.arrive_and_wait();
    if (index == 0) {
      hugetlb = smaps("Private_Hugetlb:") + smaps("Shared_Hugetlb:");
      thp = smaps("AnonHugePages:");
    }
    phase.arrive_and_wait();
    result.pair_seconds = pairs(seed, [&] {
      if (!holds) return;
      phase.arrive_and_wait();
      if (index == 0) hold();
      phase.arrive_and_wait();
    });
    phase.arrive_and_wait();
    std::free(words);
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < cpus.size(); i++) others.emplace_back(work, i);
  work(0);
  for (std::thread& thread : others) thread.join();

  // The slowest thread counts: a parallel program waits for it.
  Result slowest;
  for (const Result& result : results) {
    slowest.fill_seconds = std::max(slowest.fill_seconds, result.fill_seconds);
    slowest.update_seconds = std::max(slowest.update_seconds, result.update_seconds);
    slowest.pair_seconds = std::max(slowest.pair_seconds, result.pair_seconds);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double mib = 1 << 20;
  std::printf("first_fill ms lower %.3f\n", slowest.fill_seconds * 1e3);
  std::printf("random_update ns lower %.3f\n", slowest.update_seconds * 1e9 / kUpdates);
  std::printf("malloc+free ns lower %.3f\n", slowest.pair_seconds * 1e9 / kPairs);
  std::printf("page_faults count lower %ld\n", usage.ru_minflt + usage.ru_majflt);
  std::printf("on_hugetlb_pages MiB none %.3f\n", static_cast<double>(hugetlb) / mib);
  std::printf("on_transparent_ones MiB none %.3f\n", static_cast<double>(thp) / mib);
  return 0;
}
