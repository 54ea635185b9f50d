// Libraries that register memory with a network card put their own functions in place of mmap, munmap, mremap and madvise,
// and these call malloc. This program is such a library: whatever the heap calls comes here first.
#include <dlfcn.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "harness/case.h"

namespace {

thread_local int t_depth = 0;
long g_calls[4];
long g_refused = 0;

enum Name { kMmap, kMunmap, kMremap, kMadvise };

// An object of each kind, used and freed. The heap may refuse some of them, but it must come back.
void note(Name name) {
  if (t_depth >= 2) return;
  t_depth++;
  __atomic_fetch_add(&g_calls[name], 1, __ATOMIC_RELAXED);
  void* held[10];
  const size_t sizes[10] = {8, 40, 500, 3000, 20000, 70000, 300000, 1 << 20, 6 << 20, 20 << 20};
  for (int i = 0; i < 10; i++) {
    held[i] = malloc(sizes[i]);
    if (held[i] == nullptr) {
      __atomic_fetch_add(&g_refused, 1, __ATOMIC_RELAXED);
    } else {
      memset(held[i], i, sizes[i] < 5000 ? sizes[i] : 5000);
    }
  }
  for (int i = 0; i < 10; i++) {
    EXPECT(held[i] == nullptr || *static_cast<unsigned char*>(held[i]) == i);
    free(held[i]);
  }
  t_depth--;
}

}  // namespace

extern "C" {

void* mmap(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  note(kMmap);
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, bytes, protection, flags, fd, offset));
}
int munmap(void* at, size_t bytes) {
  note(kMunmap);
  return static_cast<int>(syscall(SYS_munmap, at, bytes));
}
int madvise(void* at, size_t bytes, int advice) {
  note(kMadvise);
  return static_cast<int>(syscall(SYS_madvise, at, bytes, advice));
}
void* mremap(void* at, size_t bytes, size_t wanted, int flags, ...) {
  va_list list;
  va_start(list, flags);
  void* const to = va_arg(list, void*);
  va_end(list);
  note(kMremap);
  return reinterpret_cast<void*>(syscall(SYS_mremap, at, bytes, wanted, flags, to));
}

}  // extern "C"

namespace {

void hammer(uint64_t seed) {
  struct Block {
    unsigned char* p;
    size_t n;
  };
  std::vector<Block> blocks(400);
  for (int i = 0; i < 6000; i++) {
    Block& b = blocks[next_random(&seed) % blocks.size()];
    if (b.p != nullptr) EXPECT(b.p[0] == static_cast<unsigned char>(b.n) && b.p[b.n - 1] == static_cast<unsigned char>(b.n));
    free(b.p);
    const uint64_t r = next_random(&seed);
    b.n = 1 + (r % 60 == 0 ? (r >> 32) % (12 << 20) : (r >> 32) % 5000);
    b.p = static_cast<unsigned char*>(malloc(b.n));
    REQUIRE(b.p != nullptr, "%zu bytes", b.n);
    b.p[0] = b.p[b.n - 1] = static_cast<unsigned char>(b.n);
  }
  for (Block& b : blocks) free(b.p);
}

}  // namespace

CASE(hooks_that_allocate) {
  hammer(1);
  malloc_trim(0);
  hammer(2);
  EXPECT(g_calls[kMadvise] > 0, "no call came through the hook");
}

CASE(hooks_that_allocate_in_many_threads) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; t++) threads.emplace_back(hammer, t + 10);
  for (std::thread& t : threads) t.join();
}

// Where there is a pool the first of them moves memory off it, and calls mmap, madvise and munmap meanwhile (fork_pool.py).
CASE(forks_while_hooks_allocate) {
  std::vector<std::thread> threads;
  std::vector<unsigned char*> held;
  for (size_t i = 0; i < 3000; i++) {
    const size_t n = i % 300 == 0 ? 3 << 20 : 20000;
    held.push_back(static_cast<unsigned char*>(malloc(n)));
    REQUIRE(held.back() != nullptr);
    memset(held.back(), static_cast<int>(i), n);
  }
  for (uint64_t t = 0; t < 2; t++) threads.emplace_back(hammer, t + 20);
  for (int round = 0; round < 5; round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      bool right = true;
      for (size_t i = 0; i < held.size(); i++) right &= held[i][19999] == static_cast<unsigned char>(i);
      hammer(30);
      _exit(right ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    EXPECT(status == 0, "the child ended with status %#x", static_cast<unsigned>(status));
    hammer(40);
  }
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < held.size(); i++) {
    EXPECT(held[i][19999] == static_cast<unsigned char>(i));
    free(held[i]);
  }
}
