// Allocation at the edges of a process's life: constructors in order of priority, before main, in IFUNC resolvers, at
// exit, after the destructors of the language have run.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <new>
#include <string>
#include <thread>
#include <vector>

#include "harness/case.h"

namespace {

struct Early {
  void* p;
  size_t n;
};
Early g_early[8];
int g_early_count;

void allocate_early(size_t n) {
  void* p = malloc(n);
  if (p == nullptr) abort();
  fill_pattern(p, n, n);
  g_early[g_early_count++] = {p, n};
}

// Runs before any constructor, of libraries too: only the executable may have it.
void preinit(int, char**, char**) { allocate_early(101); }
__attribute__((used, section(".preinit_array"))) void (*g_preinit)(int, char**, char**) = preinit;

__attribute__((constructor(101))) void first_constructor() { allocate_early(2000); }
__attribute__((constructor(65000))) void late_constructor() { allocate_early(70000); }
__attribute__((constructor)) void constructor() { allocate_early(5 << 20); }

struct Static {
  std::vector<std::string> strings;
  Static() {
    for (int i = 0; i < 1000; i++) strings.push_back(std::string(static_cast<size_t>(i), 'x'));
  }
};
Static g_static;

// An IFUNC resolver runs while the dynamic linker still relocates the program.
void* g_from_resolver;
int resolved() { return 42; }
extern "C" __attribute__((used)) int (*nh_resolver())() {
  g_from_resolver = malloc(333);
  if (g_from_resolver != nullptr) memset(g_from_resolver, 3, 333);
  free(malloc(100000));
  return resolved;
}
extern "C" int nh_indirect() __attribute__((ifunc("nh_resolver")));

// What is freed by destructors and exit handlers that run after main.
void* g_for_exit[3];

void check_and_free(void* p, size_t n) {
  if (verify_pattern(p, n, n) != n) abort();
  free(p);
  p = realloc(malloc(n), n * 2);
  free(p);
}

void at_exit() { check_and_free(g_for_exit[0], 1000); }
void on_exit_handler(int, void* argument) { check_and_free(argument, 3000); }
__attribute__((destructor(101))) void last_destructor() {
  if (g_for_exit[2] != nullptr) check_and_free(g_for_exit[2], 50000);
}

struct AfterMain {
  void* p = nullptr;
  ~AfterMain() {
    if (p != nullptr) check_and_free(p, 200);
  }
} g_after_main;

void* patterned(size_t n) {
  void* p = malloc(n);
  fill_pattern(p, n, n);
  return p;
}

}  // namespace

CASE(blocks_from_before_main) {
  EXPECT(g_early_count == 4, "%d early allocations", g_early_count);
  for (int i = 0; i < g_early_count; i++) {
    EXPECT(verify_pattern(g_early[i].p, g_early[i].n, g_early[i].n) == g_early[i].n, "early block %d", i);
    free(g_early[i].p);
  }
  EXPECT(g_static.strings.size() == 1000 && g_static.strings[999].size() == 999);
}

CASE(ifunc_resolver) {
  EXPECT(nh_indirect() == 42);
  REQUIRE(g_from_resolver != nullptr);
  for (int i = 0; i < 333; i++) EXPECT(static_cast<char*>(g_from_resolver)[i] == 3);
  free(g_from_resolver);
}

CASE(exit_handlers_and_destructors) {
  g_for_exit[0] = patterned(1000);
  g_for_exit[2] = patterned(50000);
  g_after_main.p = patterned(200);
  EXPECT(atexit(at_exit) == 0);
  EXPECT(on_exit(on_exit_handler, patterned(3000)) == 0);
}

// The main thread ends first; the others go on and the last one ends the process.
CASE(main_thread_leaves_first) {
  pthread_t thread;
  const auto work = [](void*) -> void* {
    usleep(50000);
    for (size_t n = 1; n < 1000000; n += n / 3 + 1) check_and_free(patterned(n), n);
    exit(failures() == 0 ? 0 : 1);
  };
  REQUIRE(pthread_create(&thread, nullptr, work, nullptr) == 0);
  pthread_detach(thread);
  free(patterned(100));
  pthread_exit(nullptr);
}

CASE(exit_while_threads_allocate) {
  for (int i = 0; i < 4; i++) {
    std::thread([] {
      for (;;) free(malloc(1 + static_cast<size_t>(random()) % 100000));
    }).detach();
  }
  usleep(100000);
  exit(0);  // with threads in the middle of malloc; the statistics at exit must not wait for them
}

CASE(quick_exit_and_its_handlers) {
  EXPECT(at_quick_exit([] { free(malloc(1000)); }) == 0);
  quick_exit(failures() == 0 ? 0 : 1);
}
