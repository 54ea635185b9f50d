// What gives memory back beside the program: when there is a thread for it and when not, what the thread does to the rest of
// the process (nothing), and that it works at all.
//
// With NUMAHEAP_SCAVENGE_DELAY=200ms.
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <initializer_list>

#include "harness/case.h"
#include "pin.h"
#include "scavenger_thread.h"

namespace {

constexpr size_t kMiB = 1 << 20;

double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

bool becomes(bool (*condition)(), double limit) {
  for (const double end = seconds() + limit; seconds() < end; usleep(2000)) {
    if (condition()) return true;
  }
  return condition();
}

void free_much(size_t mib) {
  void* blocks[256];
  for (size_t i = 0; i < mib; i++) blocks[i] = memset(malloc(kMiB), 1, kMiB);
  for (size_t i = 0; i < mib; i++) free(blocks[i]);
}

// Frees that reach the slow path, so that the library gets its turn; the blocks are too large for the caches of CPUs.
void free_a_little() { free(memset(malloc(40 * kMiB), 1, 1)); }

int threads() {
  struct stat s;
  return stat("/proc/self/task", &s) == 0 ? static_cast<int>(s.st_nlink) - 2 : -1;
}

long times_woken(int thread) {
  char path[64], line[128];
  snprintf(path, sizeof path, "/proc/self/task/%d/status", thread);
  FILE* file = fopen(path, "r");
  long n = -1;
  while (file != nullptr && fgets(line, sizeof line, file) != nullptr) sscanf(line, "voluntary_ctxt_switches: %ld", &n);
  if (file != nullptr) fclose(file);
  return n;
}

pthread_barrier_t g_end;
void* wait_for_end(void*) {
  pthread_barrier_wait(&g_end);
  return nullptr;
}

pthread_t start_company() {
  pthread_barrier_init(&g_end, nullptr, 2);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, wait_for_end, nullptr) == 0);
  return thread;
}

void start_scavenger() {
  start_company();
  free_much(128);
  REQUIRE(becomes([] { return scavenger() != 0; }, 5), "free memory and a second thread, but no scavenger");
}

// How a child that runs `work` ends; within 5 seconds, or it is killed.
int end_of(void (*work)()) {
  fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    work();
    _exit(99);
  }
  int status = -1;
  for (const double limit = seconds() + 5; seconds() < limit; usleep(2000)) {
    if (waitpid(child, &status, WNOHANG) == child) return status;
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

CASE(a_process_with_one_thread_stays_one) {
  free_much(128);
  free_a_little();
  EXPECT(threads() == 1, "%d threads", threads());
  EXPECT(scavenger() == 0);
}

// The kernel allows it to no process with threads, and answers EINVAL.
CASE(a_user_namespace_after_a_free) {
  free_much(66);
  free_a_little();
  if (unshare(CLONE_NEWUSER) == 0) return;
  if (errno == EPERM || errno == ENOSPC || errno == ENOSYS) {
    fprintf(stderr, "skipped: no user namespaces here: %s\n", strerror(errno));
    return;
  }
  EXPECT(false, "%s", strerror(errno));
}

CASE(a_process_with_one_thread_gives_back_in_line) {
  free_much(256);
  EXPECT(resident_kib() > 200 * 1024);
  EXPECT(becomes([] { free_a_little(); return resident_kib() < 100 * 1024; }, 20), "%ld KiB", resident_kib());
  EXPECT(threads() == 1);
}

CASE(a_process_whose_threads_have_ended_counts_as_one) {
  pthread_t thread = start_company();
  pthread_barrier_wait(&g_end);
  pthread_join(thread, nullptr);
  free_much(128);
  free_a_little();
  EXPECT(threads() == 1, "%d threads", threads());
  EXPECT(becomes([] { free_a_little(); return resident_kib() < 60 * 1024; }, 20), "%ld KiB", resident_kib());
}

CASE(a_fork_child_counts_as_one) {
  start_scavenger();
  const int status = end_of([] {
    free_much(128);
    free_a_little();
    _exit(threads());
  });
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
}

// Nothing is called after the frees.
CASE(a_thread_gives_back_beside_others) {
  start_scavenger();
  EXPECT(becomes([] { return resident_kib() < 40 * 1024; }, 20), "%ld KiB", resident_kib());
}

CASE(the_thread_blocks_all_signals) {
  start_scavenger();
  char path[64], line[128];
  unsigned long long blocked = 0;
  snprintf(path, sizeof path, "/proc/self/task/%d/status", scavenger());
  FILE* file = fopen(path, "r");
  REQUIRE(file != nullptr);
  while (fgets(line, sizeof line, file) != nullptr) sscanf(line, "SigBlk: %llx", &blocked);
  fclose(file);
  for (const int s : {SIGBUS, SIGSEGV, SIGTERM, SIGINT, SIGCHLD, SIGPROF, SIGRTMAX}) {
    EXPECT((blocked >> (s - 1) & 1) != 0, "signal %d", s);
  }
}

// What somebody sends from outside is a message like any other.
CASE(signals_from_outside_reach_sigwait) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  start_scavenger();
  for (const int sent : {SIGBUS, SIGSEGV, SIGTERM}) {
    const pid_t child = fork();
    if (child == 0) {
      kill(getppid(), sent);
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    int got = 0;
    do {
      REQUIRE(sigwait(&all, &got) == 0);
    } while (got == SIGCHLD);
    EXPECT(got == sent, "%d instead of %d", got, sent);
  }
}

CASE(the_thread_does_not_wake_up_for_nothing) {
  start_scavenger();
  // Eight MiB of free memory, of which not a single huge page consists.
  static void* blocks[16];
  for (void*& p : blocks) p = memset(malloc(kMiB), 1, kMiB);
  REQUIRE(becomes([] { return resident_kib() < 60 * 1024; }, 20), "%ld KiB", resident_kib());
  for (int i = 0; i < 16; i += 2) free(blocks[i]);
  // It may still be giving back what was freed before, a piece at a time.
  long woken = -1;
  for (int i = 0; i < 10 && woken != 0; i++) {
    const long before = times_woken(scavenger());
    sleep(2);
    woken = times_woken(scavenger()) - before;
  }
  EXPECT(woken == 0, "%ld times in 2 s", woken);
}

// Again and again the thread falls asleep with nothing to do, and each time all that is freed then is given back.
CASE(no_call_for_work_is_lost) {
  start_scavenger();
  for (long round = 0; round < scaled(20, 4); round++) {
    REQUIRE(becomes([] { return resident_kib() < 60 * 1024; }, 20), "%ld KiB in round %ld", resident_kib(), round);
    usleep(static_cast<useconds_t>(round * 7919 % 100000));
    free_much(100);
  }
}

CASE(the_thread_stays_where_its_process_may_run) {
  cpu_set_t allowed, now;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  stay_here();
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  start_scavenger();
  REQUIRE(sched_getaffinity(scavenger(), sizeof now, &now) == 0);
  EXPECT(CPU_EQUAL(&allowed, &now));
}

namespace {

volatile bool g_main_left;

void* end_after_main(void*) {
  while (!g_main_left) usleep(1000);
  usleep(100000);
  free_much(128);
  return nullptr;
}
void* sleep_long(void*) {
  free_much(128);
  sleep(100);
  return nullptr;
}
void leave_main(void* (*other)(void*)) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, other, nullptr) != 0) _exit(4);
  free_much(128);
  if (!becomes([] { return scavenger() != 0; }, 2)) _exit(3);
  g_main_left = true;
  pthread_exit(nullptr);
}
void say_goodbye() { _exit(42); }

}  // namespace

// As POSIX has it: with status 0, and by exit().
CASE(a_process_ends_with_its_last_thread) {
  const double begin = seconds();
  const int status = end_of([] { leave_main(end_after_main); });
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
  EXPECT(seconds() - begin < 4);
  const int by_exit = end_of([] {
    atexit(say_goodbye);
    leave_main(end_after_main);
  });
  EXPECT(WIFEXITED(by_exit) && WEXITSTATUS(by_exit) == 42, "status %x", by_exit);
}

// main() ends while the thread is there already, and while other threads start it.
CASE(a_process_ends_with_its_last_thread_whoever_ends_first) {
  for (int delay = 0; delay < 40; delay++) {
    static int wait;
    wait = delay * 500;
    const int status = end_of([] {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, [](void*) -> void* { free_much(80); return nullptr; }, nullptr) != 0) _exit(4);
      usleep(static_cast<useconds_t>(wait));
      pthread_exit(nullptr);
    });
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x after %d us", status, wait);
  }
}

CASE(a_process_without_main_obeys_signals) {
  for (const int s : {SIGTERM, SIGINT}) {
    static int signal;
    signal = s;
    const int status = end_of([] {
      static const pid_t self = getpid();
      if (fork() == 0) {
        usleep(300000);
        kill(self, signal);
        _exit(0);
      }
      leave_main(sleep_long);
    });
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == s, "status %x", status);
  }
}

// Objects that wait in the cache of a CPU which nobody uses any more.
CASE(caches_of_unused_cpus_are_taken_back) {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  if (CPU_COUNT(&allowed) < 2) {
    fprintf(stderr, "skipped: a single CPU\n");
    return;
  }
  static char json[1 << 16];
  static int first, second;
  for (first = 0; !CPU_ISSET(first, &allowed);) first++;
  for (second = first + 1; !CPU_ISSET(second, &allowed);) second++;
  REQUIRE(run_on(first));
  static void* blocks[30000];
  for (int round = 0; round < 3; round++) {
    for (void*& p : blocks) p = malloc(100);
    for (void* p : blocks) free(p);
  }
  REQUIRE(run_on(second));
  const auto cached = [] { nh_stats_json(json, sizeof json); return json_sum(json, "cached_bytes"); };
  const long long before = cached();
  EXPECT(before > 500000, "%lld bytes", before);
  const auto go_on = [] {
    for (int i = 0; i < 100; i++) free_a_little();
    nh_stats_json(json, sizeof json);
    return json_sum(json, "cached_bytes") < 300000;
  };
  EXPECT(becomes(go_on, 20), "%lld bytes of %lld", cached(), before);
}
