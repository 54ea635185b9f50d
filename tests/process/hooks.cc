// Libraries that register memory with a network card put their own functions in place of mmap, munmap, mremap and madvise,
// and these call malloc. This program is such a library: whatever the heap calls comes here first.
#include <dlfcn.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

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
