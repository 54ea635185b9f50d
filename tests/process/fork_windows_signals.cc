// The moment of a fork whose huge pages have to be moved: children that die, forks that fail, handlers of the program,
// system calls. The second half of fork_windows.
#include "fork_windows.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// ---- the wait of the parent ----------------------------------------------------------------------------------------------

namespace {

// The child of the process that appears next, killed at once; 0 where none does.
pid_t kill_next_child(std::atomic<bool>* stop) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
  while (!*stop) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char text[64] = "";
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    const pid_t child = n > 0 ? static_cast<pid_t>(strtol(text, nullptr, 10)) : 0;
    if (child > 0) {
      kill(child, SIGKILL);
      return child;
    }
  }
  return 0;
}

}  // namespace

CASE(child_is_killed_while_the_parent_waits) {
  const std::vector<Array> heap = make_heap(96);
  require_huge_pages(80 * kMiB);
  const struct sigaction bus = handler_now(SIGBUS), segv = handler_now(SIGSEGV);
  hand_over();
  for (int round = 0; round < 3; round++) {
    std::atomic<bool> stop{false};
    pid_t killed = 0;
    std::thread killer([&] { killed = kill_next_child(&stop); });
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (;;) pause();
    }
    const int status = end_of_child(child);
    stop = true;
    killer.join();
    EXPECT(killed == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", static_cast<unsigned>(status));
    for (const Array& a : heap) refill(a, static_cast<uint64_t>(round));
    for (const Array& a : heap) expect_contents(a, static_cast<uint64_t>(round), "parent");
    expect_handler(SIGBUS, bus);
    expect_handler(SIGSEGV, segv);
  }
}

namespace {
void refuse_processes() {
  // What every way to a new process ends in. Threads are made with CLONE_THREAD; none are made after this.
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
  };
  const sock_fprog program = {sizeof filter / sizeof filter[0], filter};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}
}  // namespace

CASE(fork_that_fails) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  const struct sigaction bus = handler_now(SIGBUS), segv = handler_now(SIGSEGV);
  hand_over();
  refuse_processes();
  const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 10; i++) {
    errno = 0;
    REQUIRE(fork() == -1);
    EXPECT(errno == EAGAIN, "errno %d", errno);
    expect_handler(SIGBUS, bus);
    expect_handler(SIGSEGV, segv);
    // All of it can be written, by system calls too.
    for (const Array& a : heap) EXPECT(read(zeros, a.p, a.n) == static_cast<ssize_t>(a.n), "errno %d", errno);
  }
  // No descriptor was left open.
  EXPECT(dup(zeros) == zeros + 1);
  for (const Array& a : heap) refill(a, 1);
  for (const Array& a : heap) expect_contents(a, 1, "parent");
}

// ---- handlers --------------------------------------------------------------------------------------------------------

namespace {

char* g_page;
volatile sig_atomic_t g_calls;
volatile sig_atomic_t g_on_stack, g_masked, g_self_masked, g_other_masked;
char g_stack[64 * 1024];

void repair_page(int signal, siginfo_t* info, void*) {
  g_calls = g_calls + 1;
  if (info->si_addr < g_page || info->si_addr >= g_page + 4096) _exit(40 + signal);
  char here;
  g_on_stack = &here >= g_stack && &here < g_stack + sizeof g_stack;
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  g_masked = sigismember(&now, SIGUSR1);
  g_self_masked = sigismember(&now, SIGSEGV);
  g_other_masked = sigismember(&now, SIGUSR2);
  mprotect(g_page, 4096, PROT_READ | PROT_WRITE);
}

}  // namespace

// A program that catches SIGSEGV for purposes of its own, on memory of its own and of the heap.
CASE(the_programs_sigsegv_handler_works_on) {
  stack_t stack = {};
  stack.ss_sp = g_stack;
  stack.ss_size = sizeof g_stack;
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  struct sigaction action = {};
  action.sa_sigaction = repair_page;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaddset(&action.sa_mask, SIGUSR1);
  REQUIRE(sigaction(SIGSEGV, &action, nullptr) == 0);
  const struct sigaction installed = handler_now(SIGSEGV);
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  char* const own = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  for (const Array& a : heap) refill(a, 2);
  EXPECT(g_calls == 0, "%d faults of the heap came through", static_cast<int>(g_calls));
  const int expected_calls = 3;
  for (int i = 0; i < expected_calls; i++) {
    g_page = own;
    mprotect(own, 4096, PROT_NONE);
    own[5] = 1;
    EXPECT(g_other_masked == 0, "call %d: a signal is blocked that nobody asked for", i);
    EXPECT(g_calls == i + 1 && g_on_stack == 1 && g_masked == 1 && g_self_masked == 1, "call %d: stack %d, masks %d %d", i,
           static_cast<int>(g_on_stack), static_cast<int>(g_masked), static_cast<int>(g_self_masked));
  }
  // The mask is as it was, also after the detour.
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  EXPECT(sigismember(&now, SIGUSR1) == 0 && sigismember(&now, SIGSEGV) == 0);
  if (child == 0) end_child();
  expect_good_end(child);
  // Whatever stood in front of it goes with the last shared page, at the latest at the next fork.
  const pid_t last = fork();
  if (last == 0) _exit(0);
  expect_good_end(last);
  if (getenv("NH_TEST_RESTORED") != nullptr) expect_handler(SIGSEGV, installed);
}

// A fault of the program with the default action still ends it, with the right signal.
CASE(crashes_stay_crashes) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  for (const int signal : {SIGSEGV, SIGBUS, -SIGSEGV, -SIGBUS}) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const pid_t grandchild = fork();  // handlers, if any, are inherited
      if (grandchild == 0) {
        refill(heap[0], 1);
        if (signal == SIGSEGV) *reinterpret_cast<volatile char*>(64) = 1;
        if (signal == SIGBUS) {
          char* p = static_cast<char*>(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, memfd_create("empty", 0), 0));
          *const_cast<volatile char*>(p) = 1;
        }
        raise(signal < 0 ? -signal : signal);
        _exit(0);
      }
      const int status = end_of_child(grandchild);
      EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == abs(signal), "status %#x instead of signal %d",
             static_cast<unsigned>(status), signal);
      end_child();
    }
    refill(heap[1], 1);
    expect_good_end(child);
  }
}

// ---- what cannot be had ------------------------------------------------------------------------------------------------

// A store is parked or rescued; a system call that stores is not: it returns EFAULT while pages are shared with a child and
// the pool is dry. NUMAHEAP_HUGEPAGES=thp avoids it. This case shows the limit, so that it is noticed if it changes.
CASE(a_system_call_that_stores_gets_efault) {
  const Array a = make_array(8 * kMiB, 1);
  require_huge_pages(8 * kMiB);
  hand_over();
  int go[2];
  REQUIRE(pipe(go) == 0);
  const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    char byte;
    close(go[1]);
    EXPECT(read(go[0], &byte, 1) == 0);
    expect_contents(a, 0, "child");
    end_child();
  }
  close(go[0]);
  errno = 0;
  const ssize_t n = read(zeros, a.p + kHuge, 4096);
  EXPECT(n == -1 && errno == EFAULT, "%zd, errno %d", n, errno);
  // One store, and the page is this process's own.
  a.p[kHuge] = 1;
  EXPECT(read(zeros, a.p + kHuge, 4096) == 4096, "errno %d", errno);
  close(go[1]);
  expect_good_end(child);
  // Once the child is gone everything is as before with the next store to any such page.
  usleep(150000);
  a.p[3 * kHuge - 1] = 1;
  EXPECT(read(zeros, a.p, a.n - kHuge) == static_cast<ssize_t>(a.n - kHuge), "errno %d", errno);
}
