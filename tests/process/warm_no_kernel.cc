// Once warm, malloc and free stay out of the kernel: two threads, sizes from 16 B to 1 MiB, ten million operations,
// no page fault and no system call that changes memory.
//
// Each slot keeps to a band of sizes of its own, so that what is live never exceeds what the warm-up has filled: a
// wandering working set would need new memory rightly. getpgid(-4242) marks begin and end of the measured part for
// warm_strace.py, which counts from outside.
#include <malloc.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <cmath>
#include <initializer_list>
#include <thread>

#include "harness/case.h"

namespace {

constexpr int kThreads = 2;
constexpr size_t kSlots = 256;
constexpr long kMarker = -4242;

struct Barrier {
  std::atomic<int> arrived{0};
  void wait(int round) {
    arrived++;
    while (arrived < kThreads * round) sched_yield();
  }
} g_barrier;

// Sizes grow from 16 B to 1 MiB evenly in their logarithm: slot 0 holds the smallest, slot 255 the largest.
size_t largest_size(size_t slot) {
  return static_cast<size_t>(16 * std::pow(65536.0, static_cast<double>(slot) / (kSlots - 1)));
}

struct Slot {
  char* p = nullptr;
  size_t largest = 0;
};

void operate(Slot* slots, uint64_t* random, long operations) {
  for (long done = 0; done < operations;) {
    const uint64_t r = next_random(random);
    Slot& slot = slots[r % kSlots];
    if (slot.p != nullptr) {
      free(slot.p);
      slot.p = nullptr;
    } else {
      // At most an eighth below the largest: most of the time one size class, at times the next smaller one.
      const size_t n = slot.largest - (r >> 40) % (slot.largest / 8 + 1);
      slot.p = static_cast<char*>(malloc(n));
      slot.p[0] = static_cast<char>(r);
      slot.p[n - 1] = static_cast<char>(r >> 8);
    }
    done++;
  }
}

// Both threads together fill everything to the brim, twice as much as will be live, and give it back. Every byte is
// written, up to the end of the last page: what no block covers yet is where a later one may lie.
void fill_and_empty(Slot* slots) {
  static thread_local char* extra[kSlots];
  for (size_t i = 0; i < kSlots; i++) {
    slots[i].largest = largest_size(i);
    for (char** p : {&slots[i].p, &extra[i]}) {
      *p = static_cast<char*>(malloc(slots[i].largest));
      memset(*p, 1, malloc_usable_size(*p));
    }
  }
  g_barrier.wait(1);
  for (size_t i = 0; i < kSlots; i++) {
    free(slots[i].p);
    free(extra[i]);
    slots[i].p = nullptr;
  }
}

struct Counts {
  long faults = 0;
  uint64_t syscalls = 0;
};

Counts counts_now() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return {usage.ru_minflt + usage.ru_majflt, nh_memory_syscalls != nullptr ? nh_memory_syscalls() : 0};
}

Counts g_begin, g_end;

// One CPU for each thread: a CPU that a thread first reaches while we count has a cold cache, rightly.
void stay_on_cpu(int id) {
  cpu_set_t allowed, mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) == 0) return;
  int skip = id % CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &allowed) && skip-- == 0) CPU_SET(cpu, &mine);
  }
  sched_setaffinity(0, sizeof mine, &mine);
}

void thread_main(int id, long warm, long measured) {
  stay_on_cpu(id);
  static Slot all_slots[kThreads][kSlots];
  Slot* slots = all_slots[id];
  fill_and_empty(slots);
  uint64_t random = static_cast<uint64_t>(id) + 1;
  operate(slots, &random, warm);
  counts_now();  // its own first call may fault in code
  g_barrier.wait(2);
  if (id == 0) {
    syscall(SYS_getpgid, kMarker);
    g_begin = counts_now();
  }
  g_barrier.wait(3);
  operate(slots, &random, measured);
  g_barrier.wait(4);
  if (id == 0) {
    g_end = counts_now();
    syscall(SYS_getpgid, kMarker);
  }
  g_barrier.wait(5);
  for (size_t i = 0; i < kSlots; i++) free(slots[i].p);
}

void run(long measured) {
  std::thread other(thread_main, 1, scaled(2000000, 500000), measured / kThreads);
  thread_main(0, scaled(2000000, 500000), measured / kThreads);
  other.join();
}

}  // namespace

CASE(ten_million_operations) {
  if (getenv("NH_TEST_LIBRARY") != nullptr) REQUIRE(nh_memory_syscalls != nullptr, "numaheap_memory_syscalls is missing");
  run(scaled(10000000, 2000000));
  EXPECT(g_end.faults == g_begin.faults, "%ld page faults", g_end.faults - g_begin.faults);
  EXPECT(g_end.syscalls == g_begin.syscalls, "%ld memory system calls", static_cast<long>(g_end.syscalls - g_begin.syscalls));
}

// A loop on one large block, as a time step of a solver has it: no call either, once the block's pages are there.
CASE(one_large_block_in_a_loop) {
  constexpr size_t kSize = size_t{12} << 20;
  stay_on_cpu(0);  // a CPU that sees its first thread gets its cache then
  const auto step = [] {
    auto* p = static_cast<char*>(malloc(kSize));
    for (size_t at = 0; at < kSize; at += 4096) p[at] = 1;
    free(p);
  };
  for (int i = 0; i < 20; i++) step();
  counts_now();  // its own first call may fault in code
  const Counts begin = counts_now();
  for (int i = 0; i < 1000; i++) step();
  const Counts end = counts_now();
  EXPECT(end.faults == begin.faults, "%ld page faults", end.faults - begin.faults);
  EXPECT(end.syscalls == begin.syscalls, "%ld memory system calls", static_cast<long>(end.syscalls - begin.syscalls));
}

// The same by a thread that the kernel moves about: what it left on the other CPU serves before new memory does.
CASE(one_large_block_on_changing_cpus) {
  constexpr size_t kSize = size_t{12} << 20;
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  const auto steps = [&all](int id) {
    sched_setaffinity(0, sizeof all, &all);
    stay_on_cpu(id);
    for (int i = 0; i < 5; i++) {
      auto* p = static_cast<char*>(malloc(kSize));
      for (size_t at = 0; at < kSize; at += 4096) p[at] = 1;
      free(p);
    }
  };
  steps(0);
  const long before = resident_kib();
  for (int i = 1; i < 50; i++) steps(i % 2);
  const long more = resident_kib() - before;
  EXPECT(more < static_cast<long>(kSize / 1024 / 2), "%ld KiB more after moving about", more);
}

// Large blocks of every size that a CPU keeps, and some between them.
CASE(large_blocks_of_every_size_in_a_loop) {
  stay_on_cpu(0);
  counts_now();  // its own first call may fault in code
  for (size_t n = 33000; n <= size_t{8} << 20; n += n / 9) {
    const auto step = [n](size_t alignment) {
      auto* p = static_cast<char*>(alignment == 0 ? malloc(n) : aligned_alloc(alignment, n));
      for (size_t at = 0; at < n; at += 4096) p[at] = 1;
      p[n - 1] = 1;
      free(p);
    };
    for (int i = 0; i < 20; i++) step(0);
    const Counts begin = counts_now();
    for (int i = 0; i < 50; i++) step(i % 2 * 64);
    const Counts end = counts_now();
    EXPECT(end.faults == begin.faults, "%zu: %ld page faults", n, end.faults - begin.faults);
    EXPECT(end.syscalls == begin.syscalls, "%zu: %ld memory system calls", n, static_cast<long>(end.syscalls - begin.syscalls));
  }
}
