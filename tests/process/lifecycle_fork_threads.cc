// fork() of a process whose other threads are in the middle of malloc and of stdio.
//
// Two locks meet in fork(): libc takes the lock of its list of streams there, and an allocator that takes its own in an
// atfork handler waits for a thread that holds it and wants to open a stream. The child in turn finds locks whose
// holders do not exist in it.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "harness/case.h"

namespace {

constexpr int kThreads = 4;
std::atomic<bool> g_stop;
std::atomic<bool> g_with_stdio{true};
std::atomic<long> g_operations;
pthread_t g_ids[kThreads];

void churn(uint64_t* random, void** slots, size_t count) {
  for (int i = 0; i < 50; i++) {
    void*& slot = slots[next_random(random) % count];
    free(slot);
    const uint64_t kind = next_random(random);
    const size_t n = 1 + next_random(random) % (kind % 32 == 0 ? 600000 : 4000);
    slot = kind % 3 == 0 ? calloc(1, n) : kind % 3 == 1 ? malloc(n) : aligned_alloc(64, n);
    if (slot != nullptr) static_cast<volatile char*>(slot)[n - 1] = 1;
    if (kind % 5 == 0) slot = realloc(slot, n / 2 + 1);
  }
}

void use_stdio(uint64_t number) {
  FILE* file = fopen("/dev/null", "w");
  if (file == nullptr) return;
  fprintf(file, "%llu %s %f\n", static_cast<unsigned long long>(number), "text", 1.5);
  fclose(file);
  char* text = nullptr;
  size_t size = 0;
  file = open_memstream(&text, &size);
  fprintf(file, "%0500d", 7);
  fclose(file);
  free(text);
}

void* hammer(void* seed) {
  uint64_t random = reinterpret_cast<uintptr_t>(seed);
  void* slots[64] = {};
  while (!g_stop) {
    churn(&random, slots, 64);
    if (g_with_stdio) {
      use_stdio(random);
      fflush(nullptr);  // takes the list of streams and then each stream
    }
    g_operations++;
  }
  for (void* p : slots) free(p);
  return nullptr;
}

void start_threads() {
  // The hammering threads leave the signal to the thread that forks.
  sigset_t alarm_set, old;
  sigemptyset(&alarm_set);
  sigaddset(&alarm_set, SIGPROF);
  pthread_sigmask(SIG_BLOCK, &alarm_set, &old);
  for (uintptr_t i = 0; i < kThreads; i++) {
    REQUIRE(pthread_create(&g_ids[i], nullptr, hammer, reinterpret_cast<void*>(i + 1)) == 0);
  }
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void stop_threads() {
  g_stop = true;
  for (const pthread_t id : g_ids) pthread_join(id, nullptr);
}

// What the child does with a heap and streams that other threads were using. SIGALRM ends it if it hangs.
[[noreturn]] void be_a_child() {
  signal(SIGALRM, SIG_DFL);
  alarm(20);
  uint64_t random = 99;
  void* slots[64] = {};
  churn(&random, slots, 64);
  use_stdio(1);
  for (void* p : slots) free(p);
  _exit(0);
}

// true when the child ended with 0
bool ended_well(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) {
    EXPECT(false, "the child was ended by signal %d%s", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": it hung" : "");
  } else {
    EXPECT(WEXITSTATUS(status) == 0, "the child ended with %d", WEXITSTATUS(status));
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

CASE(forks_under_hammering) {
  start_threads();
  const long rounds = scaled(1000, 200);
  for (long i = 0; i < rounds; i++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) be_a_child();
    if (!ended_well(child)) break;
    free(malloc(static_cast<size_t>(i) * 100));
  }
  stop_threads();
  EXPECT(g_operations > rounds / 10, "the threads did only %ld rounds", g_operations.load());
}

// All children at once, so that several are in their repairs while the parent forks again.
CASE(many_children_at_once) {
  start_threads();
  pid_t children[50];
  for (int round = 0; round < scaled(6, 2); round++) {
    for (pid_t& child : children) {
      child = fork();
      REQUIRE(child >= 0);
      if (child == 0) be_a_child();
    }
    for (const pid_t child : children) ended_well(child);
  }
  stop_threads();
}

// Two threads of the hammered process fork at the same time.
CASE(two_threads_fork) {
  start_threads();
  const auto fork_a_lot = [](void*) -> void* {
    for (long i = 0; i < scaled(200, 50); i++) {
      const pid_t child = fork();
      if (child == 0) be_a_child();
      ended_well(child);
    }
    return nullptr;
  };
  pthread_t a, b;
  REQUIRE(pthread_create(&a, nullptr, fork_a_lot, nullptr) == 0);
  REQUIRE(pthread_create(&b, nullptr, fork_a_lot, nullptr) == 0);
  pthread_join(a, nullptr);
  pthread_join(b, nullptr);
  stop_threads();
}

namespace {
pid_t g_children[1000];
volatile sig_atomic_t g_child_count;
int g_wanted;

// The handler interrupts this thread in malloc or free as well; the child may call only async-signal-safe functions
// then, as POSIX has it, and that much has to work.
void fork_in_handler(int) {
  if (g_child_count >= g_wanted) return;
  const int saved = errno;
  const pid_t child = fork();
  if (child == 0) _exit(7);
  if (child > 0) {
    g_children[g_child_count] = child;
    g_child_count = g_child_count + 1;
  }
  errno = saved;
}
}  // namespace

CASE(fork_in_a_signal_handler_under_hammering) {
  g_wanted = static_cast<int>(scaled(200, 40));
  // Without stdio: libc's fork() takes the list of streams, whose holder may wait for a lock of the allocator that the
  // interrupted thread holds. No allocator with locks can help that.
  g_with_stdio = false;
  struct sigaction action = {};
  action.sa_handler = fork_in_handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGPROF, &action, nullptr);
  start_threads();
  const itimerval every = {{0, 3000}, {0, 3000}};
  setitimer(ITIMER_PROF, &every, nullptr);
  uint64_t random = 17;
  void* slots[64] = {};
  while (g_child_count < g_wanted) churn(&random, slots, 64);
  const itimerval off = {};
  setitimer(ITIMER_PROF, &off, nullptr);
  stop_threads();
  for (int i = 0; i < g_child_count; i++) {
    int status = 0;
    waitpid(g_children[i], &status, 0);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "child %d: status %#x", i, status);
  }
  for (void* p : slots) free(p);
}

namespace {
std::atomic<int> g_forks;
std::atomic<bool> g_in_child;

// Any thread is interrupted, whatever it is doing. In the child it goes on with it.
void fork_wherever_it_is(int) {
  const int number = g_forks.fetch_add(1);
  if (g_in_child || number >= g_wanted) return;
  const int saved = errno;
  const pid_t child = fork();
  if (child == 0) {
    g_in_child = true;
    alarm(30);
  }
  g_children[number] = child;
  errno = saved;
}

// Of sizes for which memory is mapped, backed and given back again and again.
void* allocate_much(void* seed) {
  uint64_t random = reinterpret_cast<uintptr_t>(seed);
  void* slots[8] = {};
  while (!g_stop && !g_in_child) {
    void*& slot = slots[next_random(&random) % 8];
    free(slot);
    const size_t n = size_t{1} << (18 + next_random(&random) % 9);
    slot = malloc(n);
    if (slot != nullptr) *static_cast<volatile char*>(slot) = 1;
  }
  for (void* p : slots) free(p);
  if (g_in_child) {
    for (int i = 0; i < 20; i++) free(opaque(malloc(size_t{1} << (10 + i % 16))));
    _exit(7);
  }
  return nullptr;
}
}  // namespace

CASE(handlers_fork_while_threads_ask_for_memory) {
  g_wanted = static_cast<int>(scaled(600, 150));
  struct sigaction action = {};
  action.sa_handler = fork_wherever_it_is;
  action.sa_flags = SA_RESTART;
  sigaction(SIGPROF, &action, nullptr);
  pthread_t threads[kThreads];
  for (int t = 0; t < kThreads; t++) {
    REQUIRE(pthread_create(&threads[t], nullptr, allocate_much, reinterpret_cast<void*>(uintptr_t(t) + 1)) == 0);
  }
  while (g_forks < g_wanted) {
    for (const pthread_t thread : threads) pthread_kill(thread, SIGPROF);
    usleep(500);
  }
  g_stop = true;
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  for (int i = 0; i < g_wanted; i++) {
    int status = 0;
    waitpid(g_children[i], &status, 0);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "child %d: status %#x", i, status);
  }
}
