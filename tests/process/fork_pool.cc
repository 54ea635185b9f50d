// A fork of a process whose heap lies on huge pages of a pool: what parent and child find in their memory. fork_pool.py
// sets the pool up, empties it at "ready" and goes through the modes; environment_fork.cc holds the everyday cases.
#include "fork_pool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// NH_TEST_MIB: how much.
CASE(everything_is_written_on_both_sides) {
  const char* text = getenv("NH_TEST_MIB");
  const size_t mib = text != nullptr ? strtoul(text, nullptr, 10) : 48;
  const std::vector<Array> heap = make_heap(mib);
  require_huge_pages((mib - mib / 8) * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const char* who = child == 0 ? "child" : "parent";
  const uint64_t salt = child == 0 ? 17 : 34;
  // From both ends, so that each side finds pages that the other has written already and pages that it has not.
  for (size_t i = 0; i < heap.size(); i++) {
    const Array& a = heap[child == 0 ? i : heap.size() - 1 - i];
    expect_contents(a, 0, who);
    refill(a, salt);
  }
  for (const Array& a : heap) expect_contents(a, salt, who);
  for (const Array& a : heap) free(a.p);
  const std::vector<Array> again = make_heap(mib);
  for (const Array& a : again) expect_contents(a, 0, who);
  if (child == 0) end_child();
  expect_good_end(child);
}

// Arrays that the program faults in hold a reservation: where the pool is dry the kernel takes pages away from the child
// when the parent writes.
CASE(threads_write_arrays_during_forks) {
  std::vector<Counter*> counters;
  for (int i = 0; i < 3; i++) counters.push_back(new Counter(8 * kMiB));
  const Array quiet = make_array(8 * kMiB, 5);
  const Array small = make_array(kMiB, 6);
  require_huge_pages(32 * kMiB);
  hand_over();
  for (Counter* c : counters) c->start();
  for (int round = 0; round < scaled(8, 3); round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (Counter* c : counters) c->expect_snapshot();
      for (Counter* c : counters) c->overwrite(0xdead);
      for (const Array* a : {&quiet, &small}) {
        expect_contents(*a, 0, "child");
        refill(*a, 3);
        expect_contents(*a, 3, "child");
      }
      // Time for the parent's threads to meet every page.
      usleep(20000);
      for (Counter* c : counters) {
        for (size_t i = 0; i < c->n; i++) EXPECT(c->words[i] == 0xdead, "the parent wrote to the child's word %zu", i);
      }
      end_child();
    }
    expect_good_end(child);
    expect_contents(quiet, 0, "parent");
    expect_contents(small, 0, "parent");
  }
  for (Counter* c : counters) c->finish();
}

extern "C" void _IO_list_lock(void);
extern "C" void _IO_list_unlock(void);

// Between our handler and the fork itself libc takes the lock of its list of streams. A thread that holds it writes to
// arrays meanwhile: it must not wait for the fork, which waits for it, and its writes must not cost the child anything.
CASE(a_writer_holds_the_lock_that_fork_needs) {
  const Array a = make_array(16 * kMiB, 1);
  require_huge_pages(16 * kMiB);
  hand_over();
  for (size_t i = 0; i < a.n; i += kHuge / 2) a.p[i] = 0;
  std::atomic<bool> stop{false}, held{false};
  std::thread writer([&] {
    for (uint64_t salt = 1; !stop; salt++) {
      _IO_list_lock();
      held = true;
      usleep(5000);  // long enough for fork to come and wait
      for (size_t i = 0; i < a.n; i += kHuge / 2) __atomic_store_n(&a.p[i], static_cast<char>(salt), __ATOMIC_RELAXED);
      held = false;
      _IO_list_unlock();
      usleep(1000);
    }
  });
  for (int round = 0; round < scaled(20, 8); round++) {
    while (!held) usleep(100);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const char first = a.p[0];
      usleep(20000);  // the parent writes all of it again
      for (size_t i = 0; i < a.n; i += kHuge / 2) {
        const bool right = a.p[i] == first || static_cast<char>(a.p[i] + 1) == first;
        EXPECT(right, "byte %zu is %d where the first is %d", i, a.p[i], first);
      }
      end_child();
    }
    expect_good_end(child);
  }
  stop = true;
  writer.join();
}

CASE(two_threads_fork_at_once) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  const auto fork_a_few = [&heap](uint64_t salt) {
    for (int round = 0; round < scaled(6, 3); round++) {
      const pid_t child = fork();
      if (child == 0) {
        for (const Array& a : heap) {
          expect_contents(a, 0, "child");
          refill(a, salt);
        }
        for (const Array& a : heap) expect_contents(a, salt, "child");
        end_child();
      }
      expect_good_end(child);
    }
  };
  std::thread other(fork_a_few, 8);
  fork_a_few(9);
  other.join();
  for (const Array& a : heap) refill(a, 7);
  for (const Array& a : heap) expect_contents(a, 7, "parent");
}

CASE(grandchildren) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const Array& a : heap) refill(a, 1);
    child = fork();
    const uint64_t salt = child == 0 ? 2 : 3;
    for (const Array& a : heap) expect_contents(a, 1, "second generation");
    for (const Array& a : heap) refill(a, salt);
    for (const Array& a : heap) expect_contents(a, salt, "second generation");
    if (child != 0) expect_good_end(child);
    end_child();
  }
  for (const Array& a : heap) refill(a, 4);
  expect_good_end(child);
  for (const Array& a : heap) expect_contents(a, 4, "parent");
}

// What a library keeps back (RDMA registrations) keeps its pages and is not there in the child; everything else is.
CASE(ranges_kept_back_with_dontfork) {
  const Array kept = make_array(16 * kMiB, 1);
  const Array other = make_array(16 * kMiB, 2);
  require_huge_pages(32 * kMiB);
  char* const begin = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(kept.p) + kHuge - 1) / kHuge * kHuge);
  const size_t bytes = 3 * kHuge;
  REQUIRE(madvise(begin, bytes, MADV_DONTFORK) == 0);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    expect_contents(other, 0, "child");
    refill(other, 1);
    expect_contents(other, 1, "child");
    // No hole: a mapping of the child must not land in the heap.
    for (int i = 0; i < 50; i++) {
      char* p = static_cast<char*>(mmap(nullptr, kHuge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      REQUIRE(p != MAP_FAILED);
      EXPECT(p + kHuge <= begin || p >= begin + bytes, "a mapping lies in the heap");
    }
    unsigned char residency;
    EXPECT(mincore(begin, 4096, &residency) == 0, "there is a hole in the heap");
    const size_t behind = static_cast<size_t>(begin - kept.p) + bytes;
    EXPECT(kept.p[behind] != 0 || kept.p[behind + 1] != 0, "what lies behind the range is gone, too");
    free(other.p);
    for (int i = 0; i < 1000; i++) free(malloc(static_cast<size_t>(i) * 10000));
    end_child();
  }
  EXPECT(status_kib("HugetlbPages") == static_cast<long>(bytes / 1024), "%ld KiB on huge pages", status_kib("HugetlbPages"));
  refill(kept, 5);
  refill(other, 5);
  expect_good_end(child);
  expect_contents(kept, 5, "parent");
  expect_contents(other, 5, "parent");
}

// Arrays that were allocated but not touched yet have no page, and the child no reservation.
CASE(untouched_arrays) {
  const Array used = make_array(8 * kMiB, 1);
  char* const untouched = static_cast<char*>(malloc(8 * kMiB));
  require_huge_pages(16 * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const uint64_t salt = child == 0 ? 1 : 2;
  for (size_t i = 0; i < 8 * kMiB; i += 4096) EXPECT(untouched[i] == 0);
  fill_pattern(untouched, 8 * kMiB, salt);
  EXPECT(verify_pattern(untouched, 8 * kMiB, salt) == 8 * kMiB);
  expect_contents(used, 0, "either");
  if (child == 0) end_child();
  expect_good_end(child);
}

namespace {
ucontext_t g_main, g_coroutine;
void fork_here() {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  volatile char frame[20000];
  for (char i = 0; i < 100; i++) frame[i * 200] = i;
  for (char i = 0; i < 100; i++) EXPECT(frame[i * 200] == i);
  if (child == 0) end_child();
  expect_good_end(child);
}
}  // namespace

// Coroutines have their stacks from malloc. No handler can run on a stack that cannot be written to.
CASE(forks_on_stacks_in_the_heap) {
  const Array other = make_array(8 * kMiB, 1);
  const size_t sizes[] = {256 * 1024, 8 * kMiB};
  char* stacks[2];
  for (int i = 0; i < 2; i++) {
    // The last of twelve: the first objects of a heap lie on its one unit of base pages.
    for (int k = 0; k < 12; k++) stacks[i] = make_array(sizes[i], 3).p;
  }
  require_huge_pages(64 * kMiB);
  hand_over();
  for (int i = 0; i < 2; i++) {
    REQUIRE(getcontext(&g_coroutine) == 0);
    g_coroutine.uc_stack.ss_sp = stacks[i];
    g_coroutine.uc_stack.ss_size = sizes[i];
    g_coroutine.uc_link = &g_main;
    makecontext(&g_coroutine, fork_here, 0);
    REQUIRE(swapcontext(&g_main, &g_coroutine) == 0);
  }
  refill(other, 2);
  expect_contents(other, 2, "parent");
}

// Pages are free at the fork and gone before anybody writes: used up by others, or the pool made smaller.
CASE(pool_is_used_up_later) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  int go[2];
  REQUIRE(pipe(go) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    char byte;
    close(go[1]);
    EXPECT(read(go[0], &byte, 1) == 0);
    for (const Array& a : heap) expect_contents(a, 0, "child");
    for (const Array& a : heap) refill(a, 1);
    for (const Array& a : heap) expect_contents(a, 1, "child");
    end_child();
  }
  if (getenv("NH_TEST_SHRINK") != nullptr) {
    const int pool = open("/proc/sys/vm/nr_hugepages", O_WRONLY | O_CLOEXEC);
    EXPECT(write(pool, "0", 1) == 1);
    close(pool);
  } else {
    EXPECT(eat_the_pool() > 0);
  }
  for (const Array& a : heap) refill(a, 2);
  close(go[1]);
  expect_good_end(child);
  for (const Array& a : heap) expect_contents(a, 2, "parent");
}

// After its first fork a process takes no more pages of the pool; a child may.
CASE(nothing_of_the_pool_is_taken_any_more) {
  const Array a = make_array(8 * kMiB, 1);
  require_huge_pages(8 * kMiB);
  for (int round = 0; round < 3; round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      expect_contents(a, 0, "child");
      const Array own = make_array(48 * kMiB, 2);  // more than what the parent has freed
      EXPECT(status_kib("HugetlbPages") >= 32 * 1024, "%ld KiB on huge pages", status_kib("HugetlbPages"));
      expect_contents(own, 0, "child");
      end_child();
    }
    expect_good_end(child);
    const std::vector<Array> more = make_heap(16);
    EXPECT(status_kib("HugetlbPages") == 0, "%ld KiB on huge pages", status_kib("HugetlbPages"));
    for (const Array& b : more) free(b.p);
  }
}

// However many huge pages are moved, the mappings stay few.
CASE(mappings_stay_few) {
  const std::vector<Array> heap = make_heap(128);
  require_huge_pages(112 * kMiB);
  const auto count = [] {
    int lines = 0;
    FILE* const maps = fopen("/proc/self/maps", "re");
    for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    return lines;
  };
  count();
  const int before = count();
  const pid_t child = fork();
  if (child == 0) end_child();
  expect_good_end(child);
  EXPECT(count() <= before + 8, "%d mappings instead of %d", count(), before);
  for (const Array& a : heap) expect_contents(a, 0, "parent");
}

// What the program has made read-only or inaccessible stays so, in both processes.
CASE(protection_is_kept) {
  const Array a = make_array(32 * kMiB, 1);
  require_huge_pages(32 * kMiB);
  char* const begin = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(a.p) + kHuge - 1) / kHuge * kHuge);
  REQUIRE(mprotect(begin + kHuge, 2 * kHuge, PROT_READ) == 0);
  REQUIRE(mprotect(begin + 5 * kHuge, kHuge, PROT_NONE) == 0);
  const auto dies_of = [](char* p, bool store) {
    const pid_t child = fork();
    if (child == 0) {
      const char before = *const_cast<volatile char*>(p);
      if (store) *const_cast<volatile char*>(p) = before;
      _exit(0);
    }
    const int status = end_of_child(child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  };
  EXPECT(dies_of(begin, true) == 0);
  EXPECT(dies_of(begin + kHuge, false) == 0);
  EXPECT(dies_of(begin + kHuge, true) == SIGSEGV);
  EXPECT(dies_of(begin + 5 * kHuge, false) == SIGSEGV);
  EXPECT(dies_of(begin + 6 * kHuge, true) == 0);
  REQUIRE(mprotect(begin + kHuge, 2 * kHuge, PROT_READ | PROT_WRITE) == 0);
  REQUIRE(mprotect(begin + 5 * kHuge, kHuge, PROT_READ | PROT_WRITE) == 0);
  expect_contents(a, 0, "parent");
  refill(a, 1);
  expect_contents(a, 1, "parent");
}
