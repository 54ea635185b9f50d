// Threads that allocate, resize and free large blocks of every size and hand them to each other, each block with a
// pattern of its owner in every page.
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "harness/case.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kStep = 4096;

struct Block {
  char* p = nullptr;
  size_t n = 0;
  uint64_t tag = 0;
};

uint64_t word_at(const Block& b, size_t at) { return (b.tag + 1) * 0x9e3779b97f4a7c15u ^ at; }

// A word at the start of every page, and the block's last eight bytes.
template <typename Visit>
void each_word(const Block& b, Visit visit) {
  for (size_t at = 0; at + 16 <= b.n; at += kStep) visit(b.p + at, at);
  visit(b.p + b.n - 8, b.n - 8);
}
void own(const Block& b) {
  each_word(b, [&](char* word, size_t at) {
    const uint64_t value = word_at(b, at);
    memcpy(word, &value, 8);
  });
}
void verify(const Block& b) {
  size_t wrong = 0;
  each_word(b, [&](const char* word, size_t at) {
    const uint64_t value = word_at(b, at);
    wrong += memcmp(word, &value, 8) != 0;
  });
  EXPECT(wrong == 0, "%p of %zu bytes, owner %#zx: %zu words are somebody else's", static_cast<void*>(b.p), b.n,
         size_t{b.tag}, wrong);
}

size_t random_size(uint64_t* random) {
  const uint64_t r = next_random(random);
  const size_t bits = r >> 16;
  const unsigned kind = r % 64;
  // A few sizes again and again, so that they are kept; the others never meet.
  constexpr size_t kUsual[] = {40000, 64 << 10, 200000, kMiB, 4 * kMiB, 6 * kMiB};
  if (kind < 36) return kUsual[bits % (sizeof kUsual / sizeof *kUsual)];
  if (kind < 56) return 32769 + bits % kMiB;
  if (kind < 62) return 32769 + bits % (6 * kMiB);
  return 32769 + bits % (36 * kMiB);
}

bool all_zero(const Block& b) {
  for (size_t at = 0; at < b.n; at += at < 2 * kStep ? 1 : 64) {
    if (b.p[at] != 0) return false;
  }
  return b.p[b.n - 1] == 0;
}

void allocate(Block* b, uint64_t* random, uint64_t tag) {
  b->n = random_size(random);
  b->tag = tag;
  const unsigned manner = next_random(random) % 8;
  if (manner == 0) {
    b->p = static_cast<char*>(calloc(1, b->n));
    REQUIRE(b->p != nullptr);
    EXPECT(all_zero(*b), "calloc(%zu)", b->n);
  } else if (manner == 1) {
    const size_t alignment = size_t{16} << (next_random(random) % 18);
    void* p = nullptr;
    REQUIRE(posix_memalign(&p, alignment, b->n) == 0);
    EXPECT(reinterpret_cast<uintptr_t>(p) % alignment == 0, "%p, %zu", p, alignment);
    b->p = static_cast<char*>(p);
  } else {
    b->p = static_cast<char*>(malloc(b->n));
    REQUIRE(b->p != nullptr);
  }
  EXPECT(reinterpret_cast<uintptr_t>(b->p) % 64 == 0 && malloc_usable_size(b->p) >= b->n);
  own(*b);
}

void resize(Block* b, uint64_t* random, uint64_t tag) {
  const Block old = *b;
  b->n = random_size(random);
  b->p = static_cast<char*>(realloc(b->p, b->n));
  REQUIRE(b->p != nullptr);
  size_t wrong = 0;
  for (size_t at = 0; at + kStep <= (old.n < b->n ? old.n : b->n); at += kStep) {
    const uint64_t value = word_at(old, at);
    wrong += memcmp(b->p + at, &value, 8) != 0;
  }
  EXPECT(wrong == 0, "realloc of %zu bytes to %zu lost %zu words", old.n, b->n, wrong);
  b->tag = tag;
  own(*b);
}

constexpr size_t kDesk = 8;
std::atomic<Block*> g_desk[kDesk];

struct Plan {
  int threads = 4;
  long steps = 0;
  bool migrate = false;
  bool trim = false;
};

void work(uint64_t id, const Plan& plan) {
  uint64_t random = id + 100;
  std::vector<Block> mine(6);
  for (long step = 0; step < plan.steps; step++) {
    const uint64_t tag = id << 40 | static_cast<uint64_t>(step);
    if (plan.migrate && step % 16 == 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(static_cast<unsigned>(next_random(&random)) % static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF)), &one);
      sched_setaffinity(0, sizeof one, &one);
    }
    Block& b = mine[next_random(&random) % mine.size()];
    if (b.p == nullptr) {
      allocate(&b, &random, tag);
      continue;
    }
    verify(b);
    const unsigned action = next_random(&random) % 8;
    if (action == 0) {
      resize(&b, &random, tag);
    } else if (action == 1) {
      // To another thread: what lies there comes in exchange.
      Block* other = g_desk[next_random(&random) % kDesk].exchange(new Block(b));
      b = other != nullptr ? *other : Block();
      delete other;
      if (b.p != nullptr) verify(b);
    } else {
      free(b.p);
      b = Block();
    }
    if (plan.trim && step % 512 == 0) malloc_trim(0);
  }
  for (Block& b : mine) {
    if (b.p != nullptr) verify(b);
    free(b.p);
  }
}

long long large_objects() {
  static char json[1 << 18];
  if (nh_stats_json == nullptr) return 0;
  REQUIRE(nh_stats_json(json, sizeof json) > 0);
  return json_sum(json, "large_objects");
}

void run(const Plan& plan) {
  const long long before = large_objects();
  std::vector<std::thread> threads;
  for (int id = 0; id < plan.threads; id++) threads.emplace_back(work, static_cast<uint64_t>(id) + 1, plan);
  for (std::thread& t : threads) t.join();
  for (auto& slot : g_desk) {
    Block* b = slot.exchange(nullptr);
    if (b == nullptr) continue;
    verify(*b);
    free(b->p);
    delete b;
  }
  EXPECT(large_objects() == before, "%lld large objects at first, now %lld", before, large_objects());
}

}  // namespace

CASE(one_thread) { run({.threads = 1, .steps = scaled(40000, 8000)}); }
CASE(four_threads) { run({.steps = scaled(15000, 3000)}); }
CASE(four_threads_that_migrate) { run({.steps = scaled(15000, 3000), .migrate = true}); }
CASE(trimmed_while_they_run) { run({.steps = scaled(10000, 2000), .migrate = true, .trim = true}); }
