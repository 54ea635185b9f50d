// The three modes of registration, each in a fresh process: the mode is found once per process, and glibc decides about
// its own registration when the process starts.
#include "os/rseq.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nh {
namespace {

const char* self_path = nullptr;

#define CHILD_EXPECT(cond)                                             \
  do {                                                                 \
    if (!(cond)) {                                                     \
      std::fprintf(stderr, "line %d: %s is false\n", __LINE__, #cond); \
      std::_Exit(1);                                                   \
    }                                                                  \
  } while (0)

// ---- what the children check ------------------------------------------------------------------------------------

void pin_to_current_cpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(current_cpu_slow()), &set);
  CHILD_EXPECT(sched_setaffinity(0, sizeof set, &set) == 0);
}

void expect_registered() {
  pin_to_current_cpu();
  CHILD_EXPECT(rseq_current_cpu() == current_cpu_slow());
  errno = 4711;
  CHILD_EXPECT(rseq_register_thread());
  CHILD_EXPECT(errno == 4711);
}

void child_glibc() {
  const std::ptrdiff_t before = g_rseq_offset;
  CHILD_EXPECT(rseq_mode() == RseqMode::kOff);
  CHILD_EXPECT(rseq_current_cpu() == kRseqUninitialized);  // our own area, not registered
  CHILD_EXPECT(rseq_init() == RseqMode::kGlibc && rseq_mode() == RseqMode::kGlibc);
  CHILD_EXPECT(g_rseq_offset != before);
  expect_registered();
  std::thread([] {
    CHILD_EXPECT(rseq_current_cpu() >= 0);  // by glibc, before any call of ours
    expect_registered();
  }).join();
}

void child_own() {
  const std::ptrdiff_t before = g_rseq_offset;
  CHILD_EXPECT(rseq_init() == RseqMode::kOwn && rseq_mode() == RseqMode::kOwn);
  CHILD_EXPECT(g_rseq_offset == before);
  expect_registered();
  for (int i = 0; i < 50; i++) {  // stacks are reused: each thread must start unregistered all the same
    std::thread([] {
      CHILD_EXPECT(rseq_current_cpu() == kRseqUninitialized);
      errno = 4711;
      CHILD_EXPECT(rseq_register_thread());
      CHILD_EXPECT(errno == 4711);
      expect_registered();
    }).join();
  }
  const pid_t pid = fork();
  if (pid == 0) {
    expect_registered();  // a fork child inherits the registration
    std::_Exit(0);
  }
  int status = 0;
  CHILD_EXPECT(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void child_off() {
  const std::ptrdiff_t before = g_rseq_offset;
  errno = 4711;
  CHILD_EXPECT(rseq_init() == RseqMode::kOff && rseq_mode() == RseqMode::kOff);
  CHILD_EXPECT(errno == 4711);
  CHILD_EXPECT(g_rseq_offset == before);
  CHILD_EXPECT(rseq_current_cpu() < 0);
  CHILD_EXPECT(!rseq_register_thread() && rseq_current_cpu() < 0);
  std::thread([] { CHILD_EXPECT(!rseq_register_thread() && rseq_current_cpu() < 0); }).join();
  CHILD_EXPECT(current_cpu_slow() >= 0);
}

// Another library was faster with an area of its own.
void child_taken() {
  alignas(32) static char area[32];
  CHILD_EXPECT(syscall(SYS_rseq, area, sizeof area, 0, kRseqSignature) == 0);
  child_off();
}

void child_membarrier() {
  CHILD_EXPECT(rseq_init() != RseqMode::kOff);
  errno = 4711;
  CHILD_EXPECT(membarrier_rseq(CpuId(0)) == EPERM);  // not registered yet
  CHILD_EXPECT(membarrier_rseq_register() == 0);
  CHILD_EXPECT(membarrier_rseq(CpuId(current_cpu_slow())) == 0);
  CHILD_EXPECT(membarrier_rseq(CpuId()) == 0);
  CHILD_EXPECT(errno == 4711);
}

// Spins inside a critical section until the kernel aborts it; `inside` says when it has got there.
bool run_until_aborted(std::atomic<int>* inside) {
  auto* const area = static_cast<char*>(__builtin_thread_pointer()) + g_rseq_offset;
  bool aborted = false;
  __asm__ volatile(
      ".pushsection __rseq_cs, \"aw\"\n"
      ".balign 32\n"
      "7: .long 0, 0\n"
      ".quad 1f, 2f - 1f, 4f\n"
      ".popsection\n"
      "leaq 7b(%%rip), %%rax\n"
      "movq %%rax, 8(%[area])\n"
      "1:\n"
      "movl $1, (%[inside])\n"
      "3: pause\n"
      "jmp 3b\n"
      "2:\n"
      "jmp 5f\n"
      ".long 0x53053053\n"
      "4: movb $1, %[aborted]\n"
      "5:\n"
      : [aborted] "+r"(aborted)
      : [area] "r"(area), [inside] "r"(inside)
      : "rax", "memory");
  return aborted;
}

void child_abort() {
  CHILD_EXPECT(rseq_init() != RseqMode::kOff);
  CHILD_EXPECT(membarrier_rseq_register() == 0);
  std::atomic<int> inside{0};
  std::atomic<bool> done{false};
  std::thread spinner([&] {
    CHILD_EXPECT(rseq_register_thread());
    CHILD_EXPECT(run_until_aborted(&inside));
    done = true;
  });
  while (inside == 0) sched_yield();
  // Preemption alone can end it as well; the fence must end it at once.
  CHILD_EXPECT(membarrier_rseq(CpuId()) == 0);
  spinner.join();
  CHILD_EXPECT(done);
}

// Libc's registration is not used where ours is asked for; the kernel takes no second area.
void child_own_only_refused() {
  CHILD_EXPECT(rseq_registered_by_libc());
  CHILD_EXPECT(rseq_init(true) == RseqMode::kOff && rseq_mode() == RseqMode::kOff);
  CHILD_EXPECT(rseq_current_cpu() < 0 && !rseq_register_thread());
  std::thread([] { CHILD_EXPECT(!rseq_register_thread() && rseq_current_cpu() < 0); }).join();
}

void child_own_only() {
  CHILD_EXPECT(!rseq_registered_by_libc());
  CHILD_EXPECT(rseq_init(true) == RseqMode::kOwn);
  expect_registered();
}

struct Child {
  const char* name;
  void (*run)();
};
constexpr Child kChildren[] = {{"glibc", child_glibc}, {"own", child_own},   {"off", child_off},
                               {"own_only", child_own_only}, {"own_only_refused", child_own_only_refused},
                               {"taken", child_taken}, {"abort", child_abort}, {"membarrier", child_membarrier}};

// ---- how they are started ------------------------------------------------------------------------------------------

enum class Kernel { kAsIs, kWithoutRseq };

// What a kernel without rseq answers, for this process and what it executes.
bool forbid_rseq() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),  // the system call's number
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rseq, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {4, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Exit status of this program run as the named child.
int run_child(const char* name, const char* tunables, Kernel kernel = Kernel::kAsIs) {
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("GLIBC_TUNABLES", tunables, 1);
    if (kernel == Kernel::kWithoutRseq && !forbid_rseq()) std::_Exit(99);
    execl(self_path, self_path, "--child", name, nullptr);
    std::_Exit(98);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

constexpr const char* kRseqOn = "glibc.pthread.rseq=1";
constexpr const char* kRseqOff = "glibc.pthread.rseq=0";

TEST(Rseq, UsesGlibcsRegistration) { EXPECT_EQ(run_child("glibc", kRseqOn), 0); }
TEST(Rseq, RegistersItsOwnWhereGlibcDoesNot) { EXPECT_EQ(run_child("own", kRseqOff), 0); }
TEST(Rseq, OwnOnlyMeansOwnOrNone) {
  EXPECT_EQ(run_child("own_only", kRseqOff), 0);
  EXPECT_EQ(run_child("own_only_refused", kRseqOn), 0);
}
TEST(Rseq, IsOffWithoutTheSystemCall) {
  EXPECT_EQ(run_child("off", kRseqOff, Kernel::kWithoutRseq), 0);
  EXPECT_EQ(run_child("off", kRseqOn, Kernel::kWithoutRseq), 0);
}
TEST(Rseq, IsOffWhereAnotherAreaIsRegistered) { EXPECT_EQ(run_child("taken", kRseqOff), 0); }
TEST(Rseq, MembarrierNeedsRegistration) { EXPECT_EQ(run_child("membarrier", kRseqOn), 0); }
TEST(Rseq, FenceAbortsACriticalSection) {
  EXPECT_EQ(run_child("abort", kRseqOn), 0);
  EXPECT_EQ(run_child("abort", kRseqOff), 0);
}
// The checks of the children can fail: the wrong mode is noticed.
TEST(Rseq, ChildrenNoticeTheWrongMode) {
  EXPECT_EQ(run_child("own", kRseqOn), 1);
  EXPECT_EQ(run_child("glibc", kRseqOff), 1);
  EXPECT_EQ(run_child("off", kRseqOn), 1);
}

}  // namespace
}  // namespace nh

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--child") == 0) {
    for (const auto& child : nh::kChildren) {
      if (std::strcmp(argv[2], child.name) != 0) continue;
      alarm(60);  // a critical section that nobody aborts would spin for ever
      child.run();
      return 0;
    }
    return 97;
  }
  static const std::string path = [] {
    char buffer[4096];
    const ssize_t n = readlink("/proc/self/exe", buffer, sizeof buffer);
    return std::string(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
  }();
  nh::self_path = path.c_str();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
