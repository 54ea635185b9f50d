// The layers between malloc and the heap, linked statically, so that no call through a library is in the figures.
//
//   cache_pair      mcache_alloc and mcache_free at once, inlined: what the class logic costs
//   slow_path       so many objects allocated, then freed, that every list runs empty and full; per object
//   central_spans   batches out of spans' bits (fetch) and back into them (flush), per batch
//   central_passing one whole batch fetched and flushed through the transfer cache, per batch
//   tiny            the tiny allocator's own pair
//
// The counter "objects" says how many objects a batch has.
#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdlib>
#include <vector>

#include "bench/micro/one_node_heap.h"
#include "cache/tiny.h"

namespace {

using bench::kHeap;
using bench::OneNodeHeap;
using nh::Batch;
using nh::CpuId;
using nh::HeapId;
using nh::SpanClass;

void* allocate(std::size_t size) {
  void* p;
  if (nh::mcache_alloc(size, &p)) [[likely]] return p;
  p = nh::g_caches.alloc(nh::class_for(size));
  if (p == nullptr) bench::die("out of memory");
  nh::mark_word(p) = 0;
  return p;
}

void release(void* p, SpanClass c) {
  switch (nh::mcache_free(p)) {
    case nh::FreeOutcome::kDone: return;
    case nh::FreeOutcome::kFull: return nh::g_caches.free(p, c, kHeap);
    case nh::FreeOutcome::kOdd: bench::die("free: not an object");
  }
}

void cache_pair(benchmark::State& state) {
  OneNodeHeap::get();
  const auto size = static_cast<std::size_t>(state.range(0));
  const SpanClass c = nh::class_for(size);
  for (auto _ : state) {
    void* p = allocate(size);
    benchmark::DoNotOptimize(p);
    release(p, c);
  }
}

void slow_path(benchmark::State& state) {
  OneNodeHeap::get();
  const auto size = static_cast<std::size_t>(state.range(0));
  const SpanClass c = nh::class_for(size);
  std::vector<void*> objects(16 * nh::MiB / size);
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(objects.size()))) {
    for (void*& p : objects) p = allocate(size);
    for (void* p : objects) release(p, c);
  }
}

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

Batch fetch(SpanClass c, unsigned wanted) {
  HeapId from = kHeap;
  const Batch batch = OneNodeHeap::get().set().fetch(&from, c, wanted, CpuId(0), nh::Help::kNobody);
  if (batch.head == nullptr) bench::die("out of memory");
  return batch;
}

// Several times as many batches as the transfer cache keeps, so that it plays hardly any part.
template <bool time_fetch>
void central_spans(benchmark::State& state) {
  const SpanClass c = nh::class_for(static_cast<std::size_t>(state.range(0)));
  const unsigned objects = nh::batch_objects(c);
  std::vector<Batch> batches(256);
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(batches.size()))) {
    const double start = cpu_seconds();
    for (Batch& b : batches) b = fetch(c, objects);
    const double middle = cpu_seconds();
    for (const Batch& b : batches) OneNodeHeap::get().set().flush(kHeap, c, b.head, b.count, kHeap);
    state.SetIterationTime(time_fetch ? middle - start : cpu_seconds() - middle);
  }
  state.counters["objects"] = objects;
}

void central_passing(benchmark::State& state) {
  const SpanClass c = nh::class_for(static_cast<std::size_t>(state.range(0)));
  const unsigned objects = nh::batch_objects(c);
  for (auto _ : state) {
    const Batch b = fetch(c, objects);
    OneNodeHeap::get().set().flush(kHeap, c, b.head, b.count, kHeap);
  }
  state.counters["objects"] = objects;
}

void tiny(benchmark::State& state) {
  OneNodeHeap& heap = OneNodeHeap::get();
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) {
    void* p = nh::tiny_alloc(nh::g_caches, size);
    if (p == nullptr || !nh::tiny_free(nh::g_caches, p, *heap.space().span_of(p))) bench::die("tiny object lost");
  }
}

BENCHMARK(cache_pair)->Arg(16)->Arg(64)->Arg(128)->Arg(256)->Arg(1024)->Arg(32768);
BENCHMARK(cache_pair)->Arg(64)->Arg(256)->Threads(2);
BENCHMARK(slow_path)->Arg(16)->Arg(64)->Arg(256)->Arg(1024)->Arg(8192);
BENCHMARK(central_spans<true>)->Name("central_spans_fetch")->Arg(16)->Arg(64)->Arg(1024)->Arg(8192)->UseManualTime();
BENCHMARK(central_spans<false>)->Name("central_spans_flush")->Arg(16)->Arg(64)->Arg(1024)->Arg(8192)->UseManualTime();
BENCHMARK(central_passing)->Arg(16)->Arg(64)->Arg(1024)->Arg(8192);
BENCHMARK(tiny)->Arg(1)->Arg(4)->Arg(12);

}  // namespace

BENCHMARK_MAIN();
