// A program with static data, code and stacks of many sizes. program_memory.py runs it and judges what it prints.
#include "program_memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kMiB = 1 << 20, kPage = 4096, kHuge = 2 << 20 };

#ifndef ZEROES_MIB
#define ZEROES_MIB 64
#endif
#ifndef DATA_MIB
#define DATA_MIB 0
#endif
// Never written before main, so all of it can be on huge pages.
char zeroes[(size_t)ZEROES_MIB * kMiB];
#if DATA_MIB
unsigned char data[DATA_MIB * kMiB] = {[0] = 1, [5 * kMiB + 7] = 2, [DATA_MIB * kMiB / 2] = 3, [DATA_MIB * kMiB - 1] = 4};

// Stores into the middle of both arrays before any constructor has run: neither is lost.
static void store_early(void) {
  data[9 * kMiB] = 77;
  zeroes[9 * kMiB] = 78;
}
__attribute__((section(".preinit_array"), used)) static void (*g_store_early)(void) = store_early;

#ifdef WITH_HOOK
#include <stdarg.h>
#include <sys/syscall.h>

// As RDMA libraries put theirs in place of libc's: it keeps its books in the very memory that may be replaced.
static int g_calls;
void* mremap(void* p, size_t old_bytes, size_t bytes, int flags, ...) {
  va_list list;
  va_start(list, flags);
  void* const to = va_arg(list, void*);
  va_end(list);
  g_calls++;
  data[10 * kMiB]++;
  return (void*)syscall(SYS_mremap, p, old_bytes, bytes, flags, to);
}
#else
enum { g_calls = 0 };
#endif

static void check_early(void) {
  demand(data[10 * kMiB] == g_calls, "a library's books lost an entry");
  demand(data[0] == 1 && data[5 * kMiB + 7] == 2 && data[DATA_MIB * kMiB / 2] == 3 && data[DATA_MIB * kMiB - 1] == 4,
         "initialised data are not what they were");
  long sum = 0;
  for (size_t i = 0; i < sizeof data; i++) sum += data[i];
  demand(sum == 1 + 2 + 3 + 4 + 77 + g_calls, "a store into data from before main is lost, or there is one too many");
  demand(zeroes[9 * kMiB] == 78, "a store into zeroes from before main is lost");
  for (size_t i = 0; i < sizeof zeroes; i++) demand(zeroes[i] == 0 || i == 9 * kMiB, "a zero is none");
}
#else
static void check_early(void) {}
#endif

static char value_of(size_t i) { return (char)(i * 31 + i / kPage); }

static void check_zeroes(void) {
  for (size_t i = 0; i < sizeof zeroes; i += 61) demand(zeroes[i] == value_of(i), "an array lost what was written to it");
}

static void fill(void) {
  check_early();
  for (size_t i = 0; i < sizeof zeroes; i++) zeroes[i] = value_of(i);
  check_zeroes();
  show_range("zeroes", zeroes, sizeof zeroes);
#if DATA_MIB
  show_range("data", data, sizeof data);
#endif
}

// A page here and there: one in each huge page, or one in all.
static void sparse(size_t step) {
  for (size_t i = 0; i < sizeof zeroes; i += step) zeroes[i] = 1;
  show_rss();
}

static void fork_and_write(void) {
  fill();
  for (int round = 0; round < 3; round++) {
    const pid_t child = fork();
    if (child == 0) {
      check_zeroes();
      memset(zeroes, 1, sizeof zeroes);
      _exit(zeroes[sizeof zeroes - 1] == 1 ? 0 : 1);
    }
    int status = 0;
    demand(waitpid(child, &status, 0) == child && status == 0, "a child ended badly");
    check_zeroes();
  }
}

// A child that needs none of the arrays.
static void fork_idle_child(void) {
  fill();
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = 0;
  demand(waitpid(child, &status, 0) == child && status == 0, "a child ended badly");
  check_zeroes();
}

// Others store while the process forks: no store is lost, and a child has what was there before.
static volatile int g_stop;

static void* count_up(void* cell) {
  long n = 0;
  for (volatile long* const counter = cell; !g_stop; n++) ++*counter;
  return (void*)n;
}

static void fork_beside_writers(void) {
  enum { kThreads = 4 };
  fill();
  pthread_t threads[kThreads];
  long* cells[kThreads];
  for (int i = 0; i < kThreads; i++) {
    cells[i] = (long*)(zeroes + (size_t)(8 + 7 * i) * kMiB);
    *cells[i] = 0;
    demand(pthread_create(&threads[i], NULL, count_up, cells[i]) == 0, "no thread");
  }
  for (int round = 0; round < 3; round++) {
    long before[kThreads];
    for (int i = 0; i < kThreads; i++) before[i] = *(volatile long*)cells[i];
    const pid_t child = fork();
    if (child == 0) {
      for (int i = 0; i < kThreads; i++) demand(*cells[i] >= before[i], "a child has less than its parent had");
      _exit(0);
    }
    int status = 0;
    demand(waitpid(child, &status, 0) == child && status == 0, "a child ended badly");
  }
  g_stop = 1;
  for (int i = 0; i < kThreads; i++) {
    void* n;
    demand(pthread_join(threads[i], &n) == 0 && (long)n == *cells[i], "a store is lost");
  }
}

static void fill_when_told(void) {
  printf("ready\n");
  fflush(stdout);
  demand(getchar() == 'g', "not told");
  fill();
}

#ifdef WITH_CODE
// Six MiB of code that counts: called at its start, and jumped through from there to its end.
__asm__(".text\n.balign 4096\n.globl long_code\n.type long_code, @function\nlong_code:\n"
        "lea 1(%rdi), %rax\n"
        ".rept 1500\njmp 1f\n.skip 4090, 0xcc\n1: inc %rax\n.endr\nret\n.size long_code, .-long_code\n");
long long_code(long n);

static void run_code(void) {
  for (int i = 0; i < 100; i++) demand(long_code(i) == i + 1501, "code does not do what it did");
  show_range("code", (void*)long_code, 6 * kMiB);
}
#else
static void run_code(void) {}
#endif

static pthread_barrier_t g_all_there;

static void* deep(void* unused) {
  char array[6 * kMiB];
  memset(array, 1, sizeof array);
  __asm__ volatile("" : : "r"(array) : "memory");
  show_range("stack", array, sizeof array);
  return unused;
}

static void* shallow(void* unused) {
  pthread_barrier_wait(&g_all_there);
  pause();
  return unused;
}

static void one_deep_thread(void) {
  pthread_t thread;
  demand(pthread_create(&thread, NULL, deep, NULL) == 0, "no thread");
  void* result = &thread;
  demand(pthread_join(thread, &result) == 0 && result == NULL, "a thread returned something else");
}

static void many_shallow_threads(void) {
  enum { kThreads = 50 };
  demand(pthread_barrier_init(&g_all_there, NULL, kThreads + 1) == 0, "no barrier");
  pthread_t thread;
  for (int i = 0; i < kThreads; i++) demand(pthread_create(&thread, NULL, shallow, NULL) == 0, "no thread");
  pthread_barrier_wait(&g_all_there);
  show_rss();
}

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "fill") == 0) fill();
  if (strcmp(what, "one-page") == 0) sparse(sizeof zeroes);
  if (strcmp(what, "every-huge-page") == 0) sparse(kHuge);
  if (strcmp(what, "fork") == 0) fork_and_write();
  if (strcmp(what, "fork-idle") == 0) fork_idle_child();
  if (strcmp(what, "fork-writers") == 0) fork_beside_writers();
  if (strcmp(what, "fill-when-told") == 0) fill_when_told();
  if (strcmp(what, "code") == 0) run_code();
  if (strcmp(what, "thread") == 0) one_deep_thread();
  if (strcmp(what, "main-stack") == 0) deep(NULL);
  if (strcmp(what, "many-threads") == 0) many_shallow_threads();
  return 0;
}
