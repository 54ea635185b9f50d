// fork() while the pool of huge pages is dry: environment.py empties it at "ready". Parent and child write everything
// they have; a copy-on-write fault would find no huge page then, and the kernel would end the process with SIGBUS.
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "owned_blocks.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

void hand_over() {
  // Without a good part of the heap on huge pages nothing is at stake.
  if (nh_stats_json != nullptr) {
    EXPECT(status_kib("HugetlbPages") >= 8 * 1024, "only %ld KiB of huge pages", status_kib("HugetlbPages"));
  }
  char line[16];
  REQUIRE(write(STDOUT_FILENO, "ready\n", 6) == 6);
  REQUIRE(read(STDIN_FILENO, line, sizeof line) > 0, "environment.py went away");
}

std::vector<OwnedBlock> make_heap(size_t total) {
  std::vector<OwnedBlock> blocks;
  uint64_t random = 1;
  for (size_t sum = 0; sum < total;) {
    OwnedBlock block;
    block.tag = next_random(&random);
    block.n = block.tag % 64 == 0 ? 1500000 : block.tag % 64 == 1 ? 6000000 : 1 + block.tag % 20000;
    block.p = malloc(block.n);
    REQUIRE(block.p != nullptr);
    fill_pattern(block.p, block.n, block.tag);
    sum += block.n;
    blocks.push_back(block);
  }
  return blocks;
}

void expect_contents(const std::vector<OwnedBlock>& blocks, uint64_t salt, const char* who) {
  for (const OwnedBlock& block : blocks) {
    const size_t good = verify_pattern(block.p, block.n, block.tag ^ salt);
    EXPECT(good == block.n, "%s: byte %zu of %zu at %p is wrong", who, good, block.n, block.p);
  }
}

void write_all(const std::vector<OwnedBlock>& blocks, uint64_t salt) {
  for (const OwnedBlock& block : blocks) fill_pattern(block.p, block.n, block.tag ^ salt);
}

void expect_good_end(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(!WIFSIGNALED(status), "the child was ended by signal %d", WTERMSIG(status));
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %#x", status);
}

// A block that a thread writes over and over, word by word, each time with the next number. At any instant it holds
// one number up to some word and the number before from there on: anything else is a lost or torn write.
struct Counter {
  static constexpr size_t kWords = kMiB / 8 * 3 / 2;
  uint64_t* words;
  std::atomic<bool> stop{false};
  uint64_t rounds = 0;

  Counter() : words(static_cast<uint64_t*>(calloc(kWords, 8))) { REQUIRE(words != nullptr); }
  void run() {
    while (!stop) {
      rounds++;
      for (size_t i = 0; i < kWords; i++) __atomic_store_n(&words[i], rounds, __ATOMIC_RELAXED);
      for (size_t i = 0; i < kWords; i += 64) {
        EXPECT(words[i] == rounds, "a write of round %zu to word %zu was lost", size_t{rounds}, i);
      }
    }
  }
  // In the child, where nobody writes any more.
  void expect_snapshot() const {
    size_t i = 0;
    while (i < kWords && words[i] == words[0]) i++;
    for (size_t k = i; k < kWords; k++) {
      EXPECT(words[k] + 1 == words[0], "word %zu holds %zu behind %zu", k, size_t{words[k]}, size_t{words[0]});
    }
  }
};

}  // namespace

CASE(both_write_everything) {
  const std::vector<OwnedBlock> blocks = make_heap(40 * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const uint64_t salt = child == 0 ? 0x11 : 0x22;
  const char* who = child == 0 ? "child" : "parent";
  expect_contents(blocks, 0, who);
  write_all(blocks, salt);
  expect_contents(blocks, salt, who);
  // The heap works on: old blocks go, new ones come.
  for (const OwnedBlock& block : blocks) free(block.p);
  const std::vector<OwnedBlock> again = make_heap(40 * kMiB);
  expect_contents(again, 0, who);
  if (child == 0) _exit(failures() == 0 ? 0 : 1);
  expect_good_end(child);
}

CASE(many_children) {
  const std::vector<OwnedBlock> blocks = make_heap(30 * kMiB);
  hand_over();
  pid_t children[4];
  for (uint64_t i = 0; i < 4; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) {
      write_all(blocks, i + 1);
      expect_contents(blocks, i + 1, "child");
      _exit(failures() == 0 ? 0 : 1);
    }
  }
  write_all(blocks, 99);
  for (const pid_t child : children) expect_good_end(child);
  expect_contents(blocks, 99, "parent");
}

CASE(children_of_children) {
  const std::vector<OwnedBlock> blocks = make_heap(30 * kMiB);
  hand_over();
  for (uint64_t depth = 0; depth < 4; depth++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child != 0) {
      write_all(blocks, 50 + depth);
      expect_good_end(child);
      expect_contents(blocks, 50 + depth, "parent");
      if (depth > 0) _exit(failures() == 0 ? 0 : 1);
      return;
    }
    expect_contents(blocks, depth == 0 ? 0 : 100 + depth - 1, "child");
    write_all(blocks, 100 + depth);
  }
  _exit(failures() == 0 ? 0 : 1);
}

CASE(other_threads_keep_writing) {
  const std::vector<OwnedBlock> blocks = make_heap(10 * kMiB);
  std::vector<Counter*> counters;
  for (int i = 0; i < 3; i++) counters.push_back(new Counter);
  hand_over();
  std::vector<std::thread> threads;
  for (Counter* counter : counters) threads.emplace_back([counter] { counter->run(); });
  for (int round = 0; round < scaled(6, 3); round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const Counter* counter : counters) {
        counter->expect_snapshot();
        std::fill_n(counter->words, Counter::kWords, uint64_t{7});
      }
      expect_contents(blocks, 0, "child");
      write_all(blocks, 5);
      expect_contents(blocks, 5, "child");
      _exit(failures() == 0 ? 0 : 1);
    }
    expect_good_end(child);
    expect_contents(blocks, 0, "parent");
  }
  for (Counter* counter : counters) counter->stop = true;
  for (std::thread& thread : threads) thread.join();
  for (const Counter* counter : counters) EXPECT(counter->rounds > 0);
}

// A handler of the program's own for SIGBUS is still there after the fork, and is not called for the heap.
CASE(the_programs_own_sigbus_handler_stays) {
  static volatile sig_atomic_t calls;
  struct sigaction action = {};
  action.sa_handler = [](int) {
    if (calls > 3) _exit(9);
    calls = calls + 1;
  };
  sigaction(SIGBUS, &action, nullptr);
  const std::vector<OwnedBlock> blocks = make_heap(30 * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  write_all(blocks, 1);
  expect_contents(blocks, 1, "either");
  EXPECT(calls == 0, "%d SIGBUS came through to the program", static_cast<int>(calls));
  raise(SIGBUS);
  EXPECT(calls == 1, "the handler of the program is gone");
  if (child == 0) _exit(failures() == 0 ? 0 : 1);
  expect_good_end(child);
}
