// The last moments of a thread: destructors of pthread keys and of thread_local objects allocate and free.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <string>
#include <vector>

#include "harness/case.h"

namespace {

pthread_key_t g_key, g_second_key;
std::atomic<int> g_destructor_calls;
std::atomic<int> g_locals_destroyed;

void check(void* p, size_t n) {
  if (verify_pattern(p, n, n) != n) expect_failed(__FILE__, __LINE__, "the pattern", "%zu bytes", n);
}

void* patterned(size_t n) {
  void* p = malloc(n);
  fill_pattern(p, n, n);
  return p;
}

// Sets its key again each time: libc calls it PTHREAD_DESTRUCTOR_ITERATIONS times, after the destructors of every
// library's own keys have run at least once.
void key_destructor(void* p) {
  check(p, 500);
  free(p);
  g_destructor_calls++;
  for (size_t n = 1; n < 300000; n += n + 1) free(realloc(patterned(n), 2 * n));
  pthread_setspecific(g_key, patterned(500));
}

void second_destructor(void* p) {
  check(p, 70000);
  free(p);
}

struct Local {
  std::vector<std::string> strings;
  void* p = nullptr;
  ~Local() {
    if (p != nullptr) check(p, 64);
    free(p);
    free(aligned_alloc(4096, 100));
    std::string later(1000, 'y');
    strings.push_back(later + later);
    g_locals_destroyed++;
  }
};
thread_local Local t_local;
// Constructed by the destructor of another: the order in which thread_local objects die is the reverse of their birth.
thread_local Local t_other;

void* use_locals(void*) {
  t_other.p = patterned(64);
  t_local.p = patterned(64);
  for (int i = 0; i < 100; i++) t_local.strings.push_back(std::string(static_cast<size_t>(i), 'z'));
  return nullptr;
}

void* use_keys(void*) {
  pthread_setspecific(g_key, patterned(500));
  pthread_setspecific(g_second_key, patterned(70000));
  return nullptr;
}

void run(void* (*work)(void*), int threads, int rounds) {
  std::vector<pthread_t> ids(static_cast<size_t>(threads));
  for (int round = 0; round < rounds; round++) {
    for (pthread_t& id : ids) REQUIRE(pthread_create(&id, nullptr, work, nullptr) == 0);
    for (const pthread_t id : ids) pthread_join(id, nullptr);
  }
}

void* g_handed_over;

}  // namespace

CASE(key_destructors) {
  REQUIRE(pthread_key_create(&g_key, key_destructor) == 0);
  REQUIRE(pthread_key_create(&g_second_key, second_destructor) == 0);
  run(use_keys, 4, 20);
  EXPECT(g_destructor_calls >= 80 * 4, "%d calls", g_destructor_calls.load());
}

CASE(thread_local_objects) {
  run(use_locals, 4, 50);
  EXPECT(g_locals_destroyed == 400, "%d destroyed", g_locals_destroyed.load());
}

CASE(thread_local_objects_of_the_main_thread) { use_locals(nullptr); }

// The thread that allocated is gone, and its stack and thread area with it.
CASE(blocks_outlive_their_thread) {
  for (int round = 0; round < 200; round++) {
    pthread_t thread;
    const auto work = [](void*) -> void* { return patterned(900); };
    REQUIRE(pthread_create(&thread, nullptr, work, nullptr) == 0);
    void* p = nullptr;
    pthread_join(thread, &p);
    check(p, 900);
    free(p);
  }
}

CASE(cancelled_threads) {
  for (int round = 0; round < 50; round++) {
    pthread_t thread;
    const auto work = [](void*) -> void* {
      pthread_cleanup_push([](void* p) { free(p); }, patterned(1000));
      for (;;) {
        free(malloc(5000));
        pthread_testcancel();
      }
      pthread_cleanup_pop(1);
    };
    REQUIRE(pthread_create(&thread, nullptr, work, nullptr) == 0);
    usleep(200);
    pthread_cancel(thread);
    pthread_join(thread, nullptr);
  }
  EXPECT(resident_kib() < 100 * 1024);
}

// Each function as the very first one that a thread calls, and as the very first one of a process.
#define FIRST_OPERATION(name, ...)                                          \
  CASE(first_operation_of_a_process_##name) { __VA_ARGS__; }                \
  CASE(first_operation_of_a_thread_##name) {                                \
    g_handed_over = patterned(100);                                         \
    pthread_t thread;                                                       \
    const auto work = [](void*) -> void* { __VA_ARGS__; return nullptr; };  \
    REQUIRE(pthread_create(&thread, nullptr, work, nullptr) == 0);          \
    pthread_join(thread, nullptr);                                          \
  }

FIRST_OPERATION(malloc, free(malloc(100)))
FIRST_OPERATION(malloc_large, free(malloc(9000000)))
FIRST_OPERATION(calloc, free(calloc(10, 10)))
FIRST_OPERATION(realloc, free(realloc(nullptr, 10)))
FIRST_OPERATION(memalign, free(aligned_alloc(4096, 10)))
FIRST_OPERATION(free_null, free(opaque(nullptr)))
FIRST_OPERATION(new_object, delete static_cast<int*>(opaque(new int(1))))
FIRST_OPERATION(huge, EXPECT(malloc(opaque_size(SIZE_MAX / 2)) == nullptr))
FIRST_OPERATION(free, free(g_handed_over))
