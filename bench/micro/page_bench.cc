// Does the page allocator's cost grow like its tree or like the heap? The same work in regions of 1 GiB, 64 GiB and
// 1 TiB, half full and fragmented; 1 TiB may cost at most twice what 1 GiB costs.
//
//   pair   Allocate and free at once: search and update alone.
//   churn  1024 live runs (64 of 512 pages: no more fit into 1 GiB) that lie spread over the whole region: free one of
//          them, allocate another of the same size, the lowest that fits. The metadata of these runs stays in the CPU's
//          caches, so this is the cost of the algorithm, and what the criterion is about.
//   cold   The same with up to 32768 runs, so that in a large region each free meets metadata that no cache holds: one
//          bit per page is 16 MiB for 1 TiB, and no allocator with a bit per page can avoid that miss.
//   flip   The yardstick for cold: flips one bit of an equally large bitmap and looks at its word, nothing else.
//
// The region is cut into runs of mixed lengths, free ones and as many pages taken; half of the taken pages are the
// objects to free. First fit moves objects downward, so going on and on would end in a compact heap: after each batch
// the state is put back, untimed. Times are those of one cycle, that is, of one free and one alloc. The table at the
// end takes the best of all repetitions.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/units.h"
#include "page/page_alloc.h"

namespace {

using nh::PageAlloc;
using nh::PageAllocLayout;
using nh::PageCount;
using nh::PageId;

// As many as the smallest region holds of each size, so that the regions differ in nothing but their size.
constexpr std::size_t churn_objects(std::int64_t pages) { return pages <= 16 ? 1024 : 64; }
constexpr std::size_t kColdObjects = 32768;

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  // 0 .. n - 1 (xorshift64*).
  std::size_t below(std::size_t n) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<std::size_t>((state_ * 0x2545f4914f6cdd1d) >> 11) % n;
  }
  std::size_t between(std::size_t lo, std::size_t hi) { return lo + below(hi - lo + 1); }

 private:
  std::uint64_t state_;
};

// A run of a used heap: mostly small spans, now and then a large object.
std::size_t mixed_run(Random& random) {
  const std::size_t kind = random.below(100);
  if (kind < 50) return random.between(1, 4);
  if (kind < 80) return random.between(5, 16);
  if (kind < 95) return random.between(17, 64);
  if (kind < 99) return random.between(65, 256);
  return random.between(512, 1024);
}

// One array of the allocator, with a copy of a past state.
struct Array {
  explicit Array(std::size_t size) : bytes(size), live(map(size)), saved(map(size)) {}
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() {
    munmap(live, bytes);
    munmap(saved, bytes);
  }
  static void* map(std::size_t size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("mmap");
      std::exit(1);
    }
    madvise(p, size, MADV_NOHUGEPAGE);  // as a heap has its metadata
    return p;
  }
  std::size_t bytes;
  void* live;
  void* saved;
};

// A half-full fragmented region with objects of one size all over it.
class Region {
 public:
  Region(std::size_t gib_, std::size_t object_pages_)
      : gib(gib_), object_pages(object_pages_), layout_(PageAllocLayout::covering(PageCount(pages()))),
        bitmaps_(layout_.bitmap_bytes) {
    void* summaries[nh::kTreeLevels];
    for (unsigned level = 0; level < nh::kTreeLevels; level++) {
      summaries_[level] = std::make_unique<Array>(layout_.summary_bytes[level]);
      summaries[level] = summaries_[level]->live;
    }
    alloc.init(PageCount(pages()), bitmaps_.live, summaries);
    alloc.grow(PageId(0), PageCount(pages()));
    fragment();
    save();
  }

  std::size_t pages() const { return gib * nh::GiB / nh::kPageSize; }
  void restore() {
    std::memcpy(bitmaps_.live, bitmaps_.saved, bitmaps_.bytes);
    for (auto& array : summaries_) std::memcpy(array->live, array->saved, array->bytes);
    alloc = saved_alloc_;
  }

  const std::size_t gib;
  const std::size_t object_pages;
  PageAlloc alloc;
  std::vector<std::size_t> objects;  // first pages, in random order

 private:
  void fragment() {
    Random random(gib * 1000 + object_pages);
    if (!alloc.alloc(PageCount(pages())).ok) std::abort();
    std::size_t freed = 0;
    std::size_t taken = 0;
    std::size_t in_objects = 0;
    for (std::size_t at = 0; at < pages();) {
      const std::size_t hole = std::min(mixed_run(random), pages() - at);
      alloc.free(PageId(at), PageCount(hole));
      freed += hole;
      at += hole;
      while (taken < freed && at < pages()) {
        const bool object = in_objects * 2 <= taken;
        const std::size_t run = std::min(object ? object_pages : mixed_run(random), pages() - at);
        if (object && run == object_pages) {
          objects.push_back(at);
          in_objects += run;
        }
        taken += run;
        at += run;
      }
    }
    for (std::size_t i = objects.size(); i > 1; i--) std::swap(objects[i - 1], objects[random.below(i)]);
  }
  void save() {
    std::memcpy(bitmaps_.saved, bitmaps_.live, bitmaps_.bytes);
    for (auto& array : summaries_) std::memcpy(array->saved, array->live, array->bytes);
    saved_alloc_ = alloc;
  }

  PageAllocLayout layout_;
  Array bitmaps_;
  std::unique_ptr<Array> summaries_[nh::kTreeLevels];
  PageAlloc saved_alloc_;
};

// The region of the current row; one at a time, since the largest holds 80 MiB.
Region& region(std::size_t gib, std::size_t object_pages) {
  static std::unique_ptr<Region> current;
  if (!current || current->gib != gib || current->object_pages != object_pages) {
    current.reset();
    current = std::make_unique<Region>(gib, object_pages);
  } else {
    current->restore();
  }
  return *current;
}

// Nanoseconds for one cycle of (workload, pages) in a region of so many GiB.
using Row = std::pair<std::string, std::int64_t>;
std::map<std::pair<Row, std::int64_t>, double> best_ns;

// CPU time, so that other work on the machine disturbs less.
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void note(benchmark::State& state, const char* workload, double seconds, std::size_t cycles) {
  const double ns = seconds * 1e9 / static_cast<double>(cycles);
  const Row row = {workload, state.range(0)};
  const auto [at, fresh] = best_ns.try_emplace({row, state.range(1)}, ns);
  if (!fresh) at->second = std::min(at->second, ns);
}

// Calls batch(region, objects, n) until the time is up; it returns the CPU time that counts. Each call stands for
// as many iterations of the benchmark as there are objects.
template <typename Batch>
void run_batches(benchmark::State& state, const char* workload, std::size_t objects, Batch batch) {
  const PageCount n(static_cast<std::size_t>(state.range(0)));
  Region& r = region(static_cast<std::size_t>(state.range(1)), n.value);
  objects = std::min(objects, r.objects.size());
  if (objects == 0) std::abort();
  batch(r, objects, n);  // warm-up
  double seconds = 0;
  std::size_t cycles = 0;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(objects))) {
    const double took = batch(r, objects, n);
    state.SetIterationTime(took);
    seconds += took;
    cycles += objects;
  }
  if (!r.alloc.check()) std::abort();
  state.counters["free_%"] =
      100.0 * static_cast<double>(r.alloc.free_pages().value) / static_cast<double>(r.pages());
  note(state, workload, seconds, cycles);
}

void pair(benchmark::State& state) {
  run_batches(state, "pair", churn_objects(state.range(0)), [](Region& r, std::size_t objects, PageCount n) {
    const double start = cpu_seconds();
    for (std::size_t i = 0; i < objects; i++) r.alloc.free(r.alloc.alloc(n).first, n);
    return cpu_seconds() - start;
  });
}

void churn(benchmark::State& state) {
  std::vector<PageId> fresh(churn_objects(state.range(0)));
  run_batches(state, "churn", fresh.size(), [&fresh](Region& r, std::size_t objects, PageCount n) {
    const double start = cpu_seconds();
    for (std::size_t i = 0; i < objects; i++) {
      r.alloc.free(PageId(r.objects[i]), n);
      fresh[i] = r.alloc.alloc(n).first;
    }
    const double took = cpu_seconds() - start;
    // Back to where they were. An object may have gone to the place of another, so first all go, then all come.
    for (std::size_t i = 0; i < objects; i++) r.alloc.free(fresh[i], n);
    PageCount scavenged;
    for (std::size_t i = 0; i < objects; i++) {
      if (!r.alloc.extend(PageId(r.objects[i]), n, &scavenged)) std::abort();
    }
    return took;
  });
}

void cold(benchmark::State& state) {
  std::size_t next = 0;
  run_batches(state, "cold", kColdObjects, [&next](Region& r, std::size_t objects, PageCount n) {
    r.restore();
    const double start = cpu_seconds();
    for (std::size_t i = 0; i < objects; i++) {
      r.alloc.free(PageId(r.objects[next]), n);
      benchmark::DoNotOptimize(r.alloc.alloc(n));
      if (++next == r.objects.size()) next = 0;
    }
    return cpu_seconds() - start;
  });
}

void flip(benchmark::State& state) {
  Random random(1);
  std::vector<std::uint64_t> bitmap(static_cast<std::size_t>(state.range(1)) * nh::GiB / nh::kPageSize / 64);
  std::vector<std::size_t> at(kColdObjects);
  for (std::size_t& a : at) a = random.below(bitmap.size());
  double seconds = 0;
  std::size_t cycles = 0;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(at.size()))) {
    const double start = cpu_seconds();
    std::size_t turn = 0;  // the next place depends on what was found, as an allocator's next step does
    for (const std::size_t a : at) turn = (bitmap[a ^ (turn & 1)] ^= 2) & 1;
    benchmark::DoNotOptimize(turn);
    const double took = cpu_seconds() - start;
    state.SetIterationTime(took);
    seconds += took;
    cycles += at.size();
    for (std::size_t& a : at) a = random.below(bitmap.size());
  }
  note(state, "flip", seconds, cycles);
}

const std::vector<std::vector<std::int64_t>> kArguments = {{1, 16, 512}, {1, 64, 1024}};
BENCHMARK(pair)->ArgNames({"pages", "GiB"})->ArgsProduct(kArguments)->UseManualTime();
BENCHMARK(churn)->ArgNames({"pages", "GiB"})->ArgsProduct(kArguments)->UseManualTime();
BENCHMARK(cold)->ArgNames({"pages", "GiB"})->ArgsProduct(kArguments)->UseManualTime();
BENCHMARK(flip)->ArgNames({"pages", "GiB"})->ArgsProduct({{1}, {1, 64, 1024}})->UseManualTime();

// One row per workload and size, the regions side by side.
void print_table() {
  std::printf("\n%-8s %6s %10s %10s %10s %14s\n", "workload", "pages", "1 GiB ns", "64 GiB ns", "1 TiB ns",
              "1 TiB : 1 GiB");
  for (const auto& [key, small] : best_ns) {
    const auto& [row, gib] = key;
    const auto medium = best_ns.find({row, 64});
    const auto large = best_ns.find({row, 1024});
    if (gib != 1 || medium == best_ns.end() || large == best_ns.end()) continue;
    std::printf("%-8s %6lld %10.1f %10.1f %10.1f %14.2f\n", row.first.c_str(),
                static_cast<long long>(row.second), small, medium->second,
                large->second, large->second / small);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  print_table();
  return 0;
}
