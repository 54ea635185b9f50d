// What malloc and free cost through libnumaheap.so while its caches are warm, beside the yardstick of rseq_list.h.
//
//   bare_pair    pop and push on a bare per-CPU list, through a shared library: the yardstick
//   bare_inline  the same, inlined into the loop
//   malloc_pair  malloc(n) and free at once, as a loop with a temporary does
//   malloc_burst 1000 objects of a size allocated, then freed in the same order
//   new_pair     operator new and sized delete
//   tiny_pair    8-byte and smaller noscan objects, which are packed
//
// Rows of two threads show whether threads disturb each other: with a list per CPU they should not.
//
// After the rows comes the ratio malloc_pair(64) : bare_pair on one and two threads. It is taken from many short runs
// of both in turn, timed by each thread's CPU clock, so that a busy machine disturbs both alike; the best runs of each
// are compared, the medians are shown. --max-ratio=4 turns a larger ratio into exit status 1; --ratio-only leaves the
// rows out.
#include <benchmark/benchmark.h>
#include <numaheap/numaheap.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/micro/rseq_list.h"
#include "os/rseq.h"

namespace {

bench::BareList* g_lists;

// Every CPU's list gets a few objects, once.
void fill_lists() {
  const auto cpus = static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_CONF));
  g_lists = new bench::BareList[cpus]();
  for (std::size_t cpu = 0; cpu < cpus; cpu++) {
    for (int i = 0; i < 16; i++) {
      auto* object = static_cast<void**>(std::aligned_alloc(64, 64));
      *object = g_lists[cpu].head;
      g_lists[cpu].head = object;
    }
  }
}

// A thread that moves between the two halves takes an object from one CPU to another; where a list runs dry it brings
// one of its own.
[[gnu::always_inline]] inline void bare_pair_once() {
  void* object = bench::library_pop();
  if (object == nullptr) [[unlikely]] object = std::malloc(64);
  bench::library_push(object);
}

[[gnu::always_inline]] inline void malloc_pair_once(std::size_t size) {
  void* p = std::malloc(size);
  benchmark::DoNotOptimize(p);
  std::free(p);
}

void bare_pair(benchmark::State& state) {
  for (auto _ : state) bare_pair_once();
}

void bare_inline(benchmark::State& state) {
  for (auto _ : state) {
    void* object;
    if (!bench::bare_pop(g_lists, &object)) [[unlikely]] object = std::malloc(64);
    bench::bare_push(g_lists, object);
  }
}

void malloc_pair(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) malloc_pair_once(size);
}

void malloc_burst(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  std::array<void*, 1000> objects;
  while (state.KeepRunningBatch(objects.size())) {
    for (void*& p : objects) p = std::malloc(size);
    for (void* p : objects) std::free(p);
  }
}

void new_pair(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) {
    void* p = ::operator new(size);
    benchmark::DoNotOptimize(p);
    ::operator delete(p, size);
  }
}

void tiny_pair(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) {
    void* p = numaheap_malloc_noscan(size);
    benchmark::DoNotOptimize(p);
    std::free(p);
  }
}

BENCHMARK(bare_pair)->Threads(1)->Threads(2);
BENCHMARK(bare_inline);
BENCHMARK(malloc_pair)->Arg(8)->Arg(64)->Arg(128)->Arg(256)->Arg(1024)->Arg(4096)->Arg(32768);
BENCHMARK(malloc_pair)->Arg(64)->Arg(1024)->Threads(2);
BENCHMARK(malloc_burst)->Arg(16)->Arg(64)->Arg(256)->Arg(1024)->Arg(8192);
BENCHMARK(new_pair)->Arg(64)->Arg(1024);
BENCHMARK(tiny_pair)->Arg(1)->Arg(4)->Arg(8)->Arg(12);

// ---- the ratio -----------------------------------------------------------------------------------------------------

double cpu_ns() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

constexpr int kPairsPerRun = 20000;  // 50 to 100 us: most runs see no interrupt
constexpr int kRuns = 2000;

template <typename Pair>
[[gnu::noinline]] double run(Pair pair) {
  const double start = cpu_ns();
  for (int i = 0; i < kPairsPerRun; i++) pair();
  return (cpu_ns() - start) / kPairsPerRun;
}

struct Sample {
  std::vector<double> bare;
  std::vector<double> malloc;
};

double median(std::vector<double>& v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// Best of malloc_pair(64) : best of bare_pair, each thread's runs counted.
double print_ratio(unsigned threads) {
  std::vector<Sample> samples(threads);
  std::atomic<unsigned> ready{0};
  auto work = [&](Sample& s) {
    s.bare.reserve(kRuns);
    s.malloc.reserve(kRuns);
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    for (int i = 0; i < kRuns; i++) {
      s.bare.push_back(run([] { bare_pair_once(); }));
      s.malloc.push_back(run([] { malloc_pair_once(64); }));
    }
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; i++) others.emplace_back(work, std::ref(samples[i]));
  work(samples[0]);
  for (std::thread& t : others) t.join();

  Sample all;
  for (const Sample& s : samples) {
    all.bare.insert(all.bare.end(), s.bare.begin(), s.bare.end());
    all.malloc.insert(all.malloc.end(), s.malloc.begin(), s.malloc.end());
  }
  const double bare = *std::min_element(all.bare.begin(), all.bare.end());
  const double pair = *std::min_element(all.malloc.begin(), all.malloc.end());
  std::printf("ratio, %u thread%s: malloc+free(64) %.2f ns : bare pop+push %.2f ns = %.2f   (medians %.2f : %.2f)\n",
              threads, threads == 1 ? "" : "s", pair, bare, pair / bare, median(all.malloc), median(all.bare));
  return pair / bare;
}

// What ctest takes for "not possible here".
constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  double max_ratio = 0;
  bool rows = true;
  int kept = 1;
  for (int i = 1; i < argc; i++) {
    const std::string_view argument = argv[i];
    constexpr std::string_view kMaxRatio = "--max-ratio=";
    if (argument == "--ratio-only") {
      rows = false;
    } else if (argument.substr(0, kMaxRatio.size()) == kMaxRatio) {
      max_ratio = std::atof(argv[i] + kMaxRatio.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  fill_lists();
  if (!bench::library_init(g_lists) || nh::rseq_init() != nh::RseqMode::kGlibc ||
      std::strcmp(numaheap_cache_mode(), "rseq") != 0) {
    std::printf("skipped: needs libc's restartable sequences; the library's caches work as \"%s\"\n",
                numaheap_cache_mode());
    return kSkipped;
  }
  if (rows) benchmark::RunSpecifiedBenchmarks();
  const double one = print_ratio(1);
  const double two = print_ratio(2);
  return max_ratio != 0 && std::max(one, two) > max_ratio ? 1 : 0;
}
