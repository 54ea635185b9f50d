// What environment.py runs in unusual surroundings: programs that use the heap in all its sizes and verify every byte.
//
// "ready" on stdout and one line from stdin hand over to environment.py in between, which then changes the machine.
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <thread>
#include <vector>

#include "owned_blocks.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// The library's statistics as text; empty on another malloc.
const char* statistics() {
  static char json[1 << 18];
  json[0] = '\0';
  if (nh_stats_json == nullptr) return json;
  const int length = nh_stats_json(json, sizeof json);
  REQUIRE(length > 0 && static_cast<size_t>(length) < sizeof json, "%d bytes of statistics", length);
  return json;
}

long long statistic(const char* key) {
  const long long value = json_sum(statistics(), key);
  REQUIRE(value >= 0, "no \"%s\" in the statistics: %.300s", key, statistics());
  return value;
}

void hand_over() {
  char line[16];
  REQUIRE(write(STDOUT_FILENO, "ready\n", 6) == 6);
  REQUIRE(read(STDIN_FILENO, line, sizeof line) > 0, "environment.py went away");
}

// A heap of about `total` bytes in blocks of all sizes, large ones included; all written.
class Heap {
 public:
  explicit Heap(uint64_t seed) : random_(seed) {}
  ~Heap() {
    for (OwnedBlock& block : blocks_) free(block.p);
  }
  void grow(size_t total) {
    for (size_t sum = 0; sum < total;) {
      OwnedBlock block;
      const uint64_t r = next_random(&random_);
      // A quarter of the bytes in blocks of 5 MiB, a quarter around 300 KiB, the rest small.
      block.n = r % 4096 == 0 ? 5 * kMiB + r % 10000 : r % 256 == 1 ? 200000 + (r >> 32) % 200000 : 1 + (r >> 32) % 2048;
      block.p = malloc(block.n);
      REQUIRE(block.p != nullptr, "malloc(%zu) after %zu MiB", block.n, sum / kMiB);
      block.tag = r;
      fill_pattern(block.p, block.n, block.tag);
      blocks_.push_back(block);
      sum += block.n;
    }
  }
  void verify() const {
    for (const OwnedBlock& block : blocks_) {
      const size_t good = verify_pattern(block.p, block.n, block.tag);
      EXPECT(good == block.n, "%p of %zu bytes: byte %zu is wrong", block.p, block.n, good);
    }
  }
  void rewrite(uint64_t salt) {
    for (OwnedBlock& block : blocks_) {
      block.tag ^= salt;
      fill_pattern(block.p, block.n, block.tag);
    }
  }
  void free_every_second() {
    for (size_t i = 0; i < blocks_.size(); i += 2) {
      free(blocks_[i].p);
      blocks_[i] = blocks_.back();
      blocks_.pop_back();
    }
  }

 private:
  uint64_t random_;
  std::vector<OwnedBlock> blocks_;
};

void work_out(size_t total) {
  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= 2; id++) {
    threads.emplace_back([id, total] {
      Heap heap(id);
      heap.grow(total / 2);
      heap.verify();
      heap.free_every_second();
      heap.grow(total / 4);
      heap.rewrite(id);
      heap.verify();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

CASE(workout) { work_out(160 * kMiB); }

// The heap stays small, and so does what it takes: no huge page for a few kilobytes.
CASE(small_process) {
  for (int i = 0; i < 100; i++) free(malloc(static_cast<size_t>(i) * 10));
  EXPECT(status_kib("HugetlbPages") == 0, "%ld KiB of huge pages", status_kib("HugetlbPages"));
  EXPECT(status_kib("VmRSS") < 8 * 1024, "%ld KiB resident", status_kib("VmRSS"));
}

CASE(on_huge_pages) {
  Heap heap(1);
  heap.grow(60 * kMiB);
  heap.verify();
  EXPECT(status_kib("HugetlbPages") >= 32 * 1024, "only %ld KiB of huge pages", status_kib("HugetlbPages"));
  EXPECT(statistic("hugetlb_bytes") >= static_cast<long long>(32 * kMiB), "%lld", statistic("hugetlb_bytes"));
}

// The pool holds only part of what is needed: that part is used, and the rest of the heap lies elsewhere.
CASE(part_on_huge_pages) {
  Heap heap(1);
  heap.grow(100 * kMiB);
  heap.verify();
  heap.rewrite(7);
  heap.verify();
  EXPECT(statistic("hugetlb_bytes") > 0);
  EXPECT(statistic("hugetlb_bytes") < static_cast<long long>(60 * kMiB), "%lld", statistic("hugetlb_bytes"));
  EXPECT(statistic("thp_bytes") + statistic("base_bytes") > static_cast<long long>(30 * kMiB));
}

CASE(no_huge_pages) {
  Heap heap(1);
  heap.grow(60 * kMiB);
  heap.verify();
  EXPECT(status_kib("HugetlbPages") == 0);
  EXPECT(statistic("hugetlb_bytes") == 0);
}

// What is free goes back to the pool, for the other ranks of a job.
CASE(trim_fills_the_pool_again) {
  {
    Heap heap(1);
    heap.grow(60 * kMiB);
  }
  EXPECT(status_kib("HugetlbPages") > 0);
  malloc_trim(0);
  EXPECT(status_kib("HugetlbPages") <= 8 * 1024, "%ld KiB of huge pages are still held", status_kib("HugetlbPages"));
}

CASE(pool_runs_dry_in_mid_run) {
  Heap heap(1);
  heap.grow(30 * kMiB);
  hand_over();  // environment.py takes what is left of the pool
  heap.verify();
  heap.grow(60 * kMiB);
  heap.rewrite(3);
  heap.verify();
  EXPECT(statistic("hugetlb_bytes") > 0);
  // Freed huge pages that came back to the heap's own hands must stay usable.
  heap.free_every_second();
  heap.grow(40 * kMiB);
  heap.verify();
}

CASE(mlockall_after_start) {
  free(malloc(100));
  const double start = seconds_now();
  REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
  EXPECT(seconds_now() - start < 20, "mlockall took %.1f s", seconds_now() - start);
  EXPECT(resident_kib() < 256 * 1024, "%ld KiB resident after mlockall", resident_kib());
  work_out(60 * kMiB);
  EXPECT(resident_kib() < 1024 * 1024, "%ld KiB resident after the work", resident_kib());
}

CASE(mlockall_with_a_full_heap) {
  Heap heap(1);
  heap.grow(60 * kMiB);
  REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
  EXPECT(resident_kib() < 700 * 1024, "%ld KiB resident after mlockall", resident_kib());
  heap.verify();
  heap.grow(30 * kMiB);
  heap.verify();
  munlockall();
}

// Address space is limited: refused allocations are errors, not ends.
CASE(address_space_ends) {
  std::vector<void*> blocks;
  blocks.reserve(100000);
  for (;;) {
    void* p = malloc(kMiB * 16);
    if (p == nullptr) break;
    blocks.push_back(p);
    REQUIRE(blocks.size() < 100000, "no end");
  }
  EXPECT(blocks.size() >= 16, "only %zu blocks of 16 MiB under a limit of 4 GB", blocks.size());
  for (void* p : blocks) free(p);
  work_out(60 * kMiB);
}
