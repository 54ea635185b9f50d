// What the parts of fork_pool share: arrays with a pattern, a thread that writes all the time.
#pragma once

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>
#include <vector>

#include "owned_blocks.h"

inline constexpr size_t kMiB = size_t{1} << 20;
inline constexpr size_t kHuge = 2 * kMiB;

inline void hand_over() {
  char line[16];
  REQUIRE(write(STDOUT_FILENO, "ready\n", 6) == 6);
  REQUIRE(read(STDIN_FILENO, line, sizeof line) > 0, "the driver went away");
}

inline long long hugetlb_bytes() {
  static char text[1 << 16];
  REQUIRE(nh_stats_json != nullptr && nh_stats_json(text, sizeof text) < static_cast<int>(sizeof text));
  return json_sum(text, "hugetlb_bytes");
}

// A test on other memory than huge pages of the pool would pass whatever fork does.
inline void require_huge_pages(size_t at_least) {
  const long long have = hugetlb_bytes();
  REQUIRE(have >= static_cast<long long>(at_least), "%lld bytes on hugetlb instead of %zu", have, at_least);
}

struct Array {
  char* p;
  size_t n;
  uint64_t tag;
};

inline Array make_array(size_t n, uint64_t tag) {
  const Array a = {static_cast<char*>(malloc(n)), n, tag};
  REQUIRE(a.p != nullptr);
  fill_pattern(a.p, n, tag);
  return a;
}
inline void refill(const Array& a, uint64_t salt) { fill_pattern(a.p, a.n, a.tag ^ salt); }
inline void expect_contents(const Array& a, uint64_t salt, const char* who) {
  const size_t good = verify_pattern(a.p, a.n, a.tag ^ salt);
  EXPECT(good == a.n, "%s: byte %zu of %zu at %p is wrong", who, good, a.n, static_cast<void*>(a.p));
}

// Small objects, and arrays of the size that programs fault in themselves (NUMAHEAP_LARGE_MIN).
inline std::vector<Array> make_heap(size_t mib) {
  std::vector<Array> heap;
  for (size_t i = 0; i < mib / 2 * 4; i++) heap.push_back(make_array(kMiB / 4 - 4096, i + 1));
  for (size_t i = 0; i < mib / 2 / 8; i++) heap.push_back(make_array(8 * kMiB, i + 1000001));
  return heap;
}

// Takes all free huge pages of the pool, for good.
inline int eat_the_pool() {
  int pages = 0;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE;
  while (mmap(nullptr, kHuge, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED) pages++;
  return pages;
}

// 0, or what waitpid tells.
inline int end_of_child(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}
inline void expect_good_end(pid_t child) {
  const int status = end_of_child(child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %#x", static_cast<unsigned>(status));
}
inline void expect_signal(pid_t child, int signal) {
  const int status = end_of_child(child);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == signal, "the child ended with status %#x", static_cast<unsigned>(status));
}
[[noreturn]] inline void end_child() { _exit(failures() == 0 ? 0 : 1); }

// Written over and over by a thread, from the front, with rising numbers: at any instant one number up to some word and
// the number before behind it.
struct Counter {
  uint64_t* words;
  size_t n;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rounds{0};
  std::thread thread;

  explicit Counter(size_t bytes) : words(static_cast<uint64_t*>(malloc(bytes))), n(bytes / 8) {
    REQUIRE(words != nullptr);
    memset(words, 0, bytes);
  }
  void start() {
    thread = std::thread([this] {
      while (!stop) {
        const uint64_t round = rounds + 1;
        // One word per cache line: the whole array comes by more often.
        for (size_t i = 0; i < n; i += 8) __atomic_store_n(&words[i], round, __ATOMIC_RELAXED);
        for (size_t i = 0; i < n; i += 8) EXPECT(words[i] == round, "a write of round %zu to word %zu was lost", size_t{round}, i);
        rounds = round;
      }
    });
  }
  void finish() {
    stop = true;
    thread.join();
    EXPECT(rounds > 0);
  }
  void expect_snapshot() const {
    size_t i = 0;
    while (i < n && words[i] == words[0]) i += 8;
    for (; i < n; i += 8) {
      EXPECT(words[i] + 1 == words[0], "word %zu of %zu holds %zu after %zu", i, n, size_t{words[i]}, size_t{words[0]});
    }
  }
  void overwrite(uint64_t value) {
    for (size_t i = 0; i < n; i++) words[i] = value;
  }
};
