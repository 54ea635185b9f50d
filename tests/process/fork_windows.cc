// The moment of a fork whose huge pages have to be moved, in detail. fork_windows.py sets the pool up, empties it at
// "ready" and goes through the modes; environment_fork.cc holds the everyday cases.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <atomic>
#include <thread>
#include <vector>

#include "owned_blocks.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kHuge = 2 * kMiB;

void hand_over() {
  char line[16];
  REQUIRE(write(STDOUT_FILENO, "ready\n", 6) == 6);
  REQUIRE(read(STDIN_FILENO, line, sizeof line) > 0, "the driver went away");
}

long long hugetlb_bytes() {
  static char text[1 << 16];
  REQUIRE(nh_stats_json != nullptr && nh_stats_json(text, sizeof text) < static_cast<int>(sizeof text));
  return json_sum(text, "hugetlb_bytes");
}

// A test on other memory than huge pages of the pool would pass whatever fork does.
void require_huge_pages(size_t at_least) {
  const long long have = hugetlb_bytes();
  REQUIRE(have >= static_cast<long long>(at_least), "%lld bytes on hugetlb instead of %zu", have, at_least);
}

struct Array {
  char* p;
  size_t n;
  uint64_t tag;
};

Array make_array(size_t n, uint64_t tag) {
  const Array a = {static_cast<char*>(malloc(n)), n, tag};
  REQUIRE(a.p != nullptr);
  fill_pattern(a.p, n, tag);
  return a;
}
void refill(const Array& a, uint64_t salt) { fill_pattern(a.p, a.n, a.tag ^ salt); }
void expect_contents(const Array& a, uint64_t salt, const char* who) {
  const size_t good = verify_pattern(a.p, a.n, a.tag ^ salt);
  EXPECT(good == a.n, "%s: byte %zu of %zu at %p is wrong", who, good, a.n, static_cast<void*>(a.p));
}

// Small objects, and arrays of the size that programs fault in themselves (NUMAHEAP_LARGE_MIN).
std::vector<Array> make_heap(size_t mib) {
  std::vector<Array> heap;
  for (size_t i = 0; i < mib / 2 * 4; i++) heap.push_back(make_array(kMiB / 4 - 4096, i + 1));
  for (size_t i = 0; i < mib / 2 / 8; i++) heap.push_back(make_array(8 * kMiB, i + 1000001));
  return heap;
}

// 0, or what waitpid tells.
int end_of_child(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}
void expect_good_end(pid_t child) {
  const int status = end_of_child(child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %#x", static_cast<unsigned>(status));
}
[[noreturn]] void end_child() { _exit(failures() == 0 ? 0 : 1); }

// Written over and over by a thread, from the front, with rising numbers: at any instant one number up to some word and
// the number before behind it.
struct Counter {
  uint64_t* words;
  size_t n;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rounds{0};
  std::thread thread;

  explicit Counter(size_t bytes) : words(static_cast<uint64_t*>(malloc(bytes))), n(bytes / 8) {
    REQUIRE(words != nullptr);
    memset(words, 0, bytes);
  }
  void start() {
    thread = std::thread([this] {
      while (!stop) {
        const uint64_t round = rounds + 1;
        // One word per cache line: the whole array comes by more often.
        for (size_t i = 0; i < n; i += 8) __atomic_store_n(&words[i], round, __ATOMIC_RELAXED);
        for (size_t i = 0; i < n; i += 8) EXPECT(words[i] == round, "a write of round %zu to word %zu was lost", size_t{round}, i);
        rounds = round;
      }
    });
  }
  void finish() {
    stop = true;
    thread.join();
    EXPECT(rounds > 0);
  }
  void expect_snapshot() const {
    size_t i = 0;
    while (i < n && words[i] == words[0]) i += 8;
    for (; i < n; i += 8) {
      EXPECT(words[i] + 1 == words[0], "word %zu of %zu holds %zu after %zu", i, n, size_t{words[i]}, size_t{words[0]});
    }
  }
  void overwrite(uint64_t value) {
    for (size_t i = 0; i < n; i++) words[i] = value;
  }
};

void expect_handler(int signal, const struct sigaction& wanted) {
  struct sigaction now;
  REQUIRE(sigaction(signal, nullptr, &now) == 0);
  // libc adds SA_RESTORER to whatever it is asked to install; of the mask the kernel knows 64 signals.
  constexpr int kRestorer = 0x04000000;
  EXPECT(now.sa_sigaction == wanted.sa_sigaction && (now.sa_flags | kRestorer) == (wanted.sa_flags | kRestorer) &&
             memcmp(&now.sa_mask, &wanted.sa_mask, 8) == 0,
         "the handler of signal %d was not put back", signal);
}

struct sigaction handler_now(int signal) {
  struct sigaction now;
  REQUIRE(sigaction(signal, nullptr, &now) == 0);
  return now;
}

}  // namespace

// ---- contents --------------------------------------------------------------------------------------------------------

// NH_TEST_MIB: how much.
CASE(everything_is_written_on_both_sides) {
  const char* text = getenv("NH_TEST_MIB");
  const size_t mib = text != nullptr ? strtoul(text, nullptr, 10) : 48;
  const std::vector<Array> heap = make_heap(mib);
  require_huge_pages((mib - mib / 8) * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const char* who = child == 0 ? "child" : "parent";
  const uint64_t salt = child == 0 ? 17 : 34;
  // From both ends, so that each side finds pages that the other has written already and pages that it has not.
  for (size_t i = 0; i < heap.size(); i++) {
    const Array& a = heap[child == 0 ? i : heap.size() - 1 - i];
    expect_contents(a, 0, who);
    refill(a, salt);
  }
  for (const Array& a : heap) expect_contents(a, salt, who);
  for (const Array& a : heap) free(a.p);
  const std::vector<Array> again = make_heap(mib);
  for (const Array& a : again) expect_contents(a, 0, who);
  if (child == 0) end_child();
  expect_good_end(child);
}

// Arrays that the program faults in hold a reservation: where the pool is dry the kernel takes pages away from the child
// when the parent writes.
CASE(threads_write_arrays_during_forks) {
  std::vector<Counter*> counters;
  for (int i = 0; i < 3; i++) counters.push_back(new Counter(8 * kMiB));
  const Array quiet = make_array(8 * kMiB, 5);
  const Array small = make_array(kMiB, 6);
  require_huge_pages(32 * kMiB);
  hand_over();
  for (Counter* c : counters) c->start();
  for (int round = 0; round < scaled(8, 3); round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (Counter* c : counters) c->expect_snapshot();
      for (Counter* c : counters) c->overwrite(0xdead);
      for (const Array* a : {&quiet, &small}) {
        expect_contents(*a, 0, "child");
        refill(*a, 3);
        expect_contents(*a, 3, "child");
      }
      // Time for the parent's threads to meet every page.
      usleep(20000);
      for (Counter* c : counters) {
        for (size_t i = 0; i < c->n; i++) EXPECT(c->words[i] == 0xdead, "the parent wrote to the child's word %zu", i);
      }
      end_child();
    }
    expect_good_end(child);
    expect_contents(quiet, 0, "parent");
    expect_contents(small, 0, "parent");
  }
  for (Counter* c : counters) c->finish();
}

// Whoever writes while the child copies waits, and keeps its huge pages.
CASE(relocation_costs_the_parent_no_huge_page) {
  std::vector<Counter*> counters;
  for (const size_t bytes : {8 * kMiB, 8 * kMiB, kMiB}) counters.push_back(new Counter(bytes));
  hand_over();
  const long long before = hugetlb_bytes();
  require_huge_pages(16 * kMiB);
  for (Counter* c : counters) c->start();
  for (int round = 0; round < 4; round++) {
    const pid_t child = fork();
    if (child == 0) {
      // Statistics are kept per process: nothing of the child lies in the pool any more.
      EXPECT(hugetlb_bytes() == 0, "%lld bytes of the child are on hugetlb", hugetlb_bytes());
      end_child();
    }
    expect_good_end(child);
  }
  for (Counter* c : counters) c->finish();
  // A thread that stores between our handler and the fork itself may move its page by hand.
  EXPECT(hugetlb_bytes() >= before - static_cast<long long>(6 * kHuge), "%lld of %lld bytes left", hugetlb_bytes(), before);
}

CASE(two_threads_fork_at_once) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  const auto fork_a_few = [&heap](uint64_t salt) {
    for (int round = 0; round < scaled(6, 3); round++) {
      const pid_t child = fork();
      if (child == 0) {
        for (const Array& a : heap) {
          expect_contents(a, 0, "child");
          refill(a, salt);
        }
        for (const Array& a : heap) expect_contents(a, salt, "child");
        end_child();
      }
      expect_good_end(child);
    }
  };
  std::thread other(fork_a_few, 8);
  fork_a_few(9);
  other.join();
  for (const Array& a : heap) refill(a, 7);
  for (const Array& a : heap) expect_contents(a, 7, "parent");
}

CASE(grandchildren) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const Array& a : heap) refill(a, 1);
    child = fork();
    const uint64_t salt = child == 0 ? 2 : 3;
    for (const Array& a : heap) expect_contents(a, 1, "second generation");
    for (const Array& a : heap) refill(a, salt);
    for (const Array& a : heap) expect_contents(a, salt, "second generation");
    if (child != 0) expect_good_end(child);
    end_child();
  }
  for (const Array& a : heap) refill(a, 4);
  expect_good_end(child);
  for (const Array& a : heap) expect_contents(a, 4, "parent");
}

// What a library keeps back (RDMA registrations) is not there in the child; everything else is, and nothing crashes.
CASE(ranges_kept_back_with_dontfork) {
  const Array kept = make_array(16 * kMiB, 1);
  const Array other = make_array(16 * kMiB, 2);
  require_huge_pages(32 * kMiB);
  char* const begin = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(kept.p) + kHuge - 1) / kHuge * kHuge);
  const size_t bytes = 3 * kHuge;
  REQUIRE(madvise(begin, bytes, MADV_DONTFORK) == 0);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    expect_contents(other, 0, "child");
    refill(other, 1);
    expect_contents(other, 1, "child");
    // No hole: a mapping of the child must not land in the heap.
    for (int i = 0; i < 50; i++) {
      char* p = static_cast<char*>(mmap(nullptr, kHuge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      REQUIRE(p != MAP_FAILED);
      EXPECT(p + kHuge <= begin || p >= begin + bytes, "a mapping lies in the heap");
    }
    for (size_t i = 0; i < bytes; i += 4096) EXPECT(begin[i] == 0, "byte %zu of the range came along", i);
    const size_t behind = static_cast<size_t>(begin - kept.p) + bytes;
    EXPECT(kept.p[behind] != 0 || kept.p[behind + 1] != 0, "what lies behind the range is gone, too");
    free(kept.p);
    free(other.p);
    for (int i = 0; i < 1000; i++) free(malloc(static_cast<size_t>(i) * 10000));
    end_child();
  }
  refill(kept, 5);
  refill(other, 5);
  expect_good_end(child);
  expect_contents(kept, 5, "parent");
  expect_contents(other, 5, "parent");
}

// Arrays that were allocated but not touched yet have no page, and the child no reservation.
CASE(untouched_arrays) {
  const Array used = make_array(8 * kMiB, 1);
  char* const untouched = static_cast<char*>(malloc(8 * kMiB));
  require_huge_pages(16 * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  const uint64_t salt = child == 0 ? 1 : 2;
  for (size_t i = 0; i < 8 * kMiB; i += 4096) EXPECT(untouched[i] == 0);
  fill_pattern(untouched, 8 * kMiB, salt);
  EXPECT(verify_pattern(untouched, 8 * kMiB, salt) == 8 * kMiB);
  expect_contents(used, 0, "either");
  if (child == 0) end_child();
  expect_good_end(child);
}

namespace {
ucontext_t g_main, g_coroutine;
void fork_here() {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  volatile char frame[20000];
  for (char i = 0; i < 100; i++) frame[i * 200] = i;
  for (char i = 0; i < 100; i++) EXPECT(frame[i * 200] == i);
  if (child == 0) end_child();
  expect_good_end(child);
}
}  // namespace

// Coroutines have their stacks from malloc. No handler can run on a stack that cannot be written to.
CASE(forks_on_stacks_in_the_heap) {
  const Array other = make_array(8 * kMiB, 1);
  const size_t sizes[] = {256 * 1024, 8 * kMiB};
  char* stacks[2];
  for (int i = 0; i < 2; i++) {
    // The last of twelve: the first objects of a heap lie on its one unit of base pages.
    for (int k = 0; k < 12; k++) stacks[i] = make_array(sizes[i], 3).p;
  }
  require_huge_pages(64 * kMiB);
  hand_over();
  for (int i = 0; i < 2; i++) {
    REQUIRE(getcontext(&g_coroutine) == 0);
    g_coroutine.uc_stack.ss_sp = stacks[i];
    g_coroutine.uc_stack.ss_size = sizes[i];
    g_coroutine.uc_link = &g_main;
    makecontext(&g_coroutine, fork_here, 0);
    REQUIRE(swapcontext(&g_main, &g_coroutine) == 0);
  }
  refill(other, 2);
  expect_contents(other, 2, "parent");
}

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
