// fork() of a process with one thread: both sides own all of the heap afterwards.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "../support/each_instruction.h"
#include "harness/case.h"

extern char** environ;

namespace {

constexpr size_t kBlocks = 3000;
struct Block {
  void* p;
  size_t n;
};
Block g_blocks[kBlocks];

// Sizes from 1 B to 300 KiB, most of them small, some large enough for a mapping of their own.
size_t block_size(size_t i) { return 1 + (i * i * 31) % (i % 64 == 0 ? 300000 : 1000); }

void allocate_all(uint64_t seed) {
  for (size_t i = 0; i < kBlocks; i++) {
    g_blocks[i].n = block_size(i + seed);
    g_blocks[i].p = malloc(g_blocks[i].n);
    fill_pattern(g_blocks[i].p, g_blocks[i].n, i + seed);
  }
}

void verify_all(uint64_t seed) {
  for (size_t i = 0; i < kBlocks; i++) {
    EXPECT(verify_pattern(g_blocks[i].p, g_blocks[i].n, i + seed) == g_blocks[i].n, "block %zu of %zu bytes", i, g_blocks[i].n);
  }
}

void free_all() {
  for (Block& b : g_blocks) free(b.p);
}

// The exit status of the child, -signal, or -1000 when it was still running after `seconds` (it is killed then).
int wait_for(pid_t child, int seconds) {
  for (int i = 0; i < seconds * 1000; i++) {
    int status;
    const pid_t done = waitpid(child, &status, WNOHANG);
    if (done == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    if (done < 0 && errno != EINTR) return -2000;
    usleep(i < 100 ? 100 : 1000);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1000;
}

// Runs `work` in a child and expects it to end well.
template <typename Work>
void in_child(Work work) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    work();
    _exit(failures() == 0 ? 0 : 1);
  }
  const int status = wait_for(child, 20);
  EXPECT(status == 0, "the child ended with %d", status);
}

}  // namespace

CASE(child_frees_and_reuses_the_parents_blocks) {
  allocate_all(1);
  in_child([] {
    verify_all(1);
    free_all();
    allocate_all(2);
    verify_all(2);
    free_all();
  });
  verify_all(1);
  free_all();
}

CASE(parent_and_child_write_at_the_same_time) {
  allocate_all(1);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const uint64_t seed = child == 0 ? 1000 : 2000;
  for (int round = 0; round < 5; round++) {
    for (size_t i = 0; i < kBlocks; i++) fill_pattern(g_blocks[i].p, g_blocks[i].n, i + seed);
    verify_all(seed);
    free_all();
    allocate_all(seed);
  }
  verify_all(seed);
  if (child == 0) _exit(failures() == 0 ? 0 : 1);
  EXPECT(wait_for(child, 20) == 0);
  free_all();
}

CASE(a_hundred_forks) {
  allocate_all(3);
  for (int i = 0; i < 100; i++) {
    in_child([] {
      free(g_blocks[5].p);
      g_blocks[5].p = malloc(g_blocks[5].n);
      fill_pattern(g_blocks[5].p, g_blocks[5].n, 5 + 3);
      verify_all(3);
    });
    free(realloc(malloc(1000), 100000));
  }
  verify_all(3);
  free_all();
}

CASE(children_of_children) {
  allocate_all(4);
  for (int depth = 0; depth < 10; depth++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child != 0) {
      const int status = wait_for(child, 30);
      EXPECT(status == 0, "depth %d: the child ended with %d", depth, status);
      verify_all(4 + static_cast<uint64_t>(depth));
      if (depth > 0) _exit(failures() == 0 ? 0 : 1);
      return;
    }
    free_all();
    allocate_all(5 + static_cast<uint64_t>(depth));
  }
  _exit(failures() == 0 ? 0 : 1);
}

CASE(large_blocks_are_private_after_fork) {
  constexpr size_t kSize = size_t{40} << 20;
  void* p = malloc(kSize);
  fill_pattern(p, kSize, 1);
  in_child([p] {
    EXPECT(verify_pattern(p, kSize, 1) == kSize);
    fill_pattern(p, kSize, 2);
    EXPECT(verify_pattern(p, kSize, 2) == kSize);
    free(p);
  });
  EXPECT(verify_pattern(p, kSize, 1) == kSize, "the child's writes are seen in the parent");
  free(p);
}

CASE(atfork_handlers_may_allocate) {
  REQUIRE(pthread_atfork([] { free(malloc(1000)); }, [] { free(malloc(2000)); }, [] { free(malloc(100000)); }) == 0);
  for (int i = 0; i < 20; i++) in_child([] { free(malloc(5000)); });
}

namespace {
volatile sig_atomic_t g_forked_in_handler;
volatile sig_atomic_t g_is_child;
pid_t g_handler_children[2000];

void fork_in_handler(int) {
  if (g_is_child || g_forked_in_handler >= 2000) return;
  const int saved = errno;
  const pid_t child = fork();
  if (child == 0) {
    g_is_child = 1;  // and goes on with whatever the signal interrupted: mostly malloc or free itself
  } else if (child > 0) {
    g_handler_children[g_forked_in_handler] = child;
    g_forked_in_handler = g_forked_in_handler + 1;
  }
  errno = saved;
}
}  // namespace

CASE(fork_in_a_signal_handler) {
  const int wanted = static_cast<int>(scaled(200, 40));
  struct sigaction action = {};
  action.sa_handler = fork_in_handler;
  sigaction(SIGALRM, &action, nullptr);
  allocate_all(6);
  const itimerval every = {{0, 3000}, {0, 3000}};
  setitimer(ITIMER_REAL, &every, nullptr);
  uint64_t random = 5;
  while (g_forked_in_handler < wanted && !g_is_child) {
    const size_t i = next_random(&random) % kBlocks;
    free(g_blocks[i].p);
    g_blocks[i].p = malloc(g_blocks[i].n);
    fill_pattern(g_blocks[i].p, g_blocks[i].n, i + 6);
  }
  const itimerval off = {};
  setitimer(ITIMER_REAL, &off, nullptr);
  verify_all(6);
  if (g_is_child) {
    free_all();
    allocate_all(7);
    verify_all(7);
    _exit(failures() == 0 ? 0 : 1);
  }
  for (int i = 0; i < wanted; i++) {
    const int status = wait_for(g_handler_children[i], 20);
    EXPECT(status == 0, "child %d ended with %d", i, status);
  }
}

namespace {
volatile sig_atomic_t g_instructions;
volatile sig_atomic_t g_failed_children;

uintptr_t g_library;  // where it begins
constexpr uintptr_t kLibraryBytes = 500'000;

void fork_at_instruction(int, siginfo_t*, void* context) {
  // What unwinds the stack of a sampled object takes many thousands.
  if (nh::test::interrupted_at(context) - g_library > kLibraryBytes) return;
  g_instructions = g_instructions + 1;
  const int saved = errno;
  const pid_t child = fork();
  int status = -1;
  if (child == 0) {
    g_is_child = 1;
    alarm(20);
    nh::test::leave_to_itself(context);
  } else if (waitpid(child, &status, 0) != child || status != 0) {
    g_failed_children = g_failed_children + 1;
  }
  errno = saved;
}
}  // namespace

// What is half-done lasts for an instruction or two, which a timer meets once in a hundred thousand calls.
CASE(fork_at_each_instruction) {
  Dl_info library;
  REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &library) != 0);
  g_library = reinterpret_cast<uintptr_t>(library.dli_fbase);
  static void* objects[2];
  // Of a size class whose list on this CPU is empty, and an object of pages of its own.
  nh::test::with_handler_at_each_instruction(fork_at_instruction, [] {
    objects[0] = malloc(24000);
    objects[1] = malloc(185665);
    for (void* p : objects) free(p);
  });
  if (g_is_child) {
    free(opaque(malloc(24000)));
    free(opaque(malloc(185665)));
    _exit(0);
  }
  EXPECT(g_instructions > 1000, "%d instructions", static_cast<int>(g_instructions));
  EXPECT(g_failed_children == 0, "%d of %d children failed", static_cast<int>(g_failed_children), static_cast<int>(g_instructions));
}

// What runs another program: no child of these may hang or spoil the parent.
CASE(vfork_and_exec) {
  allocate_all(8);
  for (int i = 0; i < 50; i++) {
    const pid_t child = vfork();
    if (child == 0) {
      execl("/bin/true", "true", static_cast<char*>(nullptr));
      _exit(127);
    }
    EXPECT(wait_for(child, 20) == 0);
    free(malloc(static_cast<size_t>(i) * 1000));
  }
  verify_all(8);
}

CASE(posix_spawn_system_popen) {
  allocate_all(9);
  for (int i = 0; i < 20; i++) {
    pid_t child;
    char name[] = "true";
    char* arguments[] = {name, nullptr};
    REQUIRE(posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments, environ) == 0);
    EXPECT(wait_for(child, 20) == 0);
    EXPECT(system("exit 3") == 3 << 8);
    FILE* pipe = popen("echo from the pipe", "r");
    REQUIRE(pipe != nullptr);
    char line[100] = "";
    EXPECT(fgets(line, sizeof line, pipe) != nullptr && strcmp(line, "from the pipe\n") == 0, "%s", line);
    EXPECT(pclose(pipe) == 0);
  }
  verify_all(9);
}

CASE(daemon_goes_on) {
  allocate_all(10);
  int report[2];
  REQUIRE(pipe(report) == 0);
  const pid_t child = fork();
  if (child == 0) {
    // The child's own child: daemon() forks and leaves.
    if (daemon(1, 1) != 0) _exit(2);
    verify_all(10);
    free_all();
    allocate_all(11);
    verify_all(11);
    const char verdict = failures() == 0 ? 'y' : 'n';
    _exit(write(report[1], &verdict, 1) == 1 ? 0 : 1);
  }
  close(report[1]);
  char verdict = '?';
  EXPECT(read(report[0], &verdict, 1) == 1 && verdict == 'y', "verdict %c", verdict);
  wait_for(child, 20);
}

CASE(closed_standard_descriptors) {
  in_child([] {
    for (int fd = 0; fd < 3; fd++) close(fd);
    for (size_t n = 1; n < 10000000; n += n + 1) free(malloc(n));
    // A descriptor that the library opened and kept would now be one of the three.
    EXPECT(dup(0) == -1 && dup(1) == -1 && dup(2) == -1);
  });
}
