// How much stack malloc and its relatives take: programs run them on the small stacks of coroutines and signal handlers.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "harness/case.h"

namespace {

constexpr size_t kStack = 1 << 16;
constexpr size_t kMost = 4096;

ucontext_t g_main, g_other;
void (*g_body)();
unsigned char* g_stack;

void enter() { g_body(); }

// Bytes of stack that f takes, its own frame included.
size_t stack_of(void (*f)()) {
  g_body = f;
  memset(g_stack, 0xc3, kStack);
  getcontext(&g_other);
  g_other.uc_stack.ss_sp = g_stack;
  g_other.uc_stack.ss_size = kStack;
  g_other.uc_link = &g_main;
  makecontext(&g_other, enter, 0);
  swapcontext(&g_main, &g_other);
  size_t clean = 0;
  while (clean < kStack && g_stack[clean] == 0xc3) clean++;
  return kStack - clean;
}

constexpr int kObjects = 3000;
void* g_small[kObjects];
void* g_large[64];

void small_objects() {
  for (int i = 0; i < kObjects; i++) g_small[i] = malloc(static_cast<size_t>(i) * 16 % 40000);
}
void free_small_objects() {
  for (void* p : g_small) free(p);
}
void middling_objects() {
  for (int i = 0; i < 64; i++) g_large[i] = malloc((size_t{40} + static_cast<size_t>(i) * 40) << 10);
}
void large_objects() {
  for (int i = 0; i < 64; i++) g_large[i] = malloc((size_t{4} + static_cast<size_t>(i) % 30) << 20);
}
void resize_large_objects() {
  for (void*& p : g_large) p = realloc(p, malloc_usable_size(p) + (size_t{3} << 20));
}
void free_large_objects() {
  for (void* p : g_large) free(p);
}
void aligned_objects() {
  for (int i = 0; i < 64; i++) g_large[i] = aligned_alloc(size_t{1} << (i % 22 + 4), size_t{1} << 22);
}
void zeroed_objects() {
  for (int i = 0; i < 64; i++) g_large[i] = calloc(size_t{1} << (i % 25), 2);
}
void trim() { malloc_trim(0); }

}  // namespace

CASE(slow_paths_take_less_than_a_page_of_stack) {
  g_stack = static_cast<unsigned char*>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(g_stack != MAP_FAILED);
  // The dynamic linker takes some stack for itself where it looks a name up for the first time.
  free(realloc(calloc(1, 1), 2));
  free(aligned_alloc(64, 64));
  malloc_usable_size(nullptr);
  malloc_trim(0);
  const size_t nothing = stack_of([] {});
  struct {
    const char* name;
    void (*f)();
  } const paths[] = {{"small objects", small_objects},     {"free small objects", free_small_objects},
                     {"middling objects", middling_objects}, {"free middling objects", free_large_objects},
                     {"large objects", large_objects},     {"resize large objects", resize_large_objects},
                     {"free large objects", free_large_objects}, {"trim", trim},
                     {"aligned objects", aligned_objects}, {"free aligned objects", free_large_objects},
                     {"zeroed objects", zeroed_objects},   {"free zeroed objects", free_large_objects},
                     {"large objects again", large_objects}, {"free large objects again", free_large_objects}};
  for (const auto& path : paths) {
    const size_t taken = stack_of(path.f) - nothing;
    EXPECT(taken <= kMost, "%s take %zu bytes", path.name, taken);
  }
}
