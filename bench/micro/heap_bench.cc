// The heap of one node: spans, lookups, and what a huge page costs until it may be used.
//
//   span_pair   alloc_span and free_span: pages come from the CPU's page cache
//   large_pair  alloc_large and free_span of warm memory
//   span_of     pointer -> span, random objects of a warm page map, and of one that is larger than the caches
//   commit      2 MiB made usable, touched in every base page, and given back: on a page of the hugetlb pool, as a
//               transparent huge page, as base pages. The kernel clears the memory, so this is microseconds. hugetlb
//               only where the pool has a free page.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "bench/micro/one_node_heap.h"
#include "heap/backing.h"

namespace {

using bench::OneNodeHeap;
using nh::CpuId;
using nh::MSpan;

void span_pair(benchmark::State& state) {
  nh::MHeap& heap = OneNodeHeap::get().heap();
  const nh::SpanClass c = nh::class_for(static_cast<std::size_t>(state.range(0)));
  state.counters["pages"] = nh::size_class(c).pages;
  for (auto _ : state) {
    MSpan* span = heap.alloc_span(c, CpuId(0));
    if (span == nullptr) bench::die("out of memory");
    heap.free_span(span);
  }
}

void large_pair(benchmark::State& state) {
  nh::MHeap& heap = OneNodeHeap::get().heap();
  const std::size_t bytes = static_cast<std::size_t>(state.range(0)) * nh::KiB;
  for (auto _ : state) {
    MSpan* span = heap.alloc_large(bytes, nh::kPageSize, false);
    if (span == nullptr) bench::die("out of memory");
    heap.free_span(span);
  }
}

void span_of(benchmark::State& state) {
  OneNodeHeap& one = OneNodeHeap::get();
  std::vector<MSpan*> spans(static_cast<std::size_t>(state.range(0)));
  for (MSpan*& span : spans) {
    span = one.heap().alloc_span(nh::class_for(8192), CpuId(0));
    if (span == nullptr) bench::die("out of memory");
  }
  std::uint64_t random = 1;
  for (auto _ : state) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    MSpan* span = spans[(random >> 33) % spans.size()];
    // A page inside, so that the index within the span counts, too.
    const void* p = reinterpret_cast<const void*>(span->start_addr + ((random >> 30) & 3) * nh::kPageSize + 64);
    if (one.space().span_of(p) != span) bench::die("span_of: wrong span");
  }
  for (MSpan* span : spans) one.heap().free_span(span);
}

// One unit of address space of our own, mapped once, then proven and released again and again. It is backed by what was
// mapped there: the request of the later rounds asks for nothing.
void commit(benchmark::State& state, nh::HugePagesOption kind, nh::Backing expected) {
  const nh::OsOps& os = nh::linux_os();
  const std::uintptr_t base = os.find_window(nh::kArenaSize, 0, 0);
  if (base == 0) bench::die("no address space for a unit");
  auto* const memory = reinterpret_cast<volatile char*>(base);
  nh::Backer::Config config;
  config.huge_pages = kind;
  config.nodes = nh::NodeSet::of(nh::NodeId(0));
  nh::Backer backer;
  backer.init(os, config);
  nh::Unit unit{};
  const nh::Backer::Run run{&unit, base, 1};
  nh::Backer::Request request;
  request.bytes = nh::kHugeSize;
  if (backer.decide(&request, true) != 0 || backer.back(run, 1, &request) != 0) bench::die("commit: refused");
  backer.release(run);
  request.hugetlb = request.thp = false;
  for (auto _ : state) {
    if (backer.back(run, 1, &request) != 0) bench::die("commit: no memory");
    if (unit.backing() != expected) {
      state.SkipWithError("another kind of memory than asked for");
      break;
    }
    for (std::size_t at = 0; at < nh::kHugeSize; at += nh::kOsPageSize) memory[at] = 1;
    backer.release(run);
    if (unit.backed()) bench::die("commit: not released");
  }
  os.unmap(reinterpret_cast<void*>(base), nh::kHugeSize);
}

BENCHMARK(span_pair)->ArgName("bytes")->Arg(64)->Arg(8192)->Arg(32768);
BENCHMARK(large_pair)->ArgName("KiB")->Arg(40)->Arg(1024)->Arg(2048);
BENCHMARK(span_of)->ArgName("spans")->Arg(256)->Arg(1 << 17);

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  nh::HugePool pool;
  if (nh::linux_os().huge_pool(nh::kHugeSize, nh::NodeId(), &pool) && pool.free > pool.reserved) {
    benchmark::RegisterBenchmark("commit/hugetlb", commit, nh::HugePagesOption::k2M, nh::Backing::kHuge2M);
  } else {
    std::printf("no free 2 MiB page in the hugetlb pool: commit/hugetlb is left out (scripts/reserve 1)\n");
  }
  if (nh::linux_os().thp_mode() > 0) {
    benchmark::RegisterBenchmark("commit/thp", commit, nh::HugePagesOption::kThp, nh::Backing::kThp);
  } else {
    std::printf("transparent huge pages are off: commit/thp is left out\n");
  }
  benchmark::RegisterBenchmark("commit/base", commit, nh::HugePagesOption::kOff, nh::Backing::kBase);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
