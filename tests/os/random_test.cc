// Random words with and without the kernel's generator.
#include "os/random.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nh {
namespace {

TEST(Random, WordsDiffer) {
  std::set<std::uint64_t> words;
  errno = 4711;
  for (int i = 0; i < 100; i++) words.insert(random_word());
  EXPECT_EQ(words.size(), 100u);
  EXPECT_EQ(errno, 4711);
  // What stands on the stack at the start is known to libc, and to whoever reads one of its guards.
  std::uint64_t given[2];
  ASSERT_NE(getauxval(AT_RANDOM), 0u);
  std::memcpy(given, reinterpret_cast<const char*>(getauxval(AT_RANDOM)), sizeof given);
  EXPECT_FALSE(words.contains(given[0]) || words.contains(given[1]));
}

// As in a sandbox that knows nothing of getrandom.
bool forbid_getrandom() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),  // the system call's number
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {4, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(Random, WithoutTheGeneratorTheStartOfTheProgramServes) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (!forbid_getrandom()) std::_Exit(2);
    errno = 4711;
    const std::uint64_t word = random_word();
    std::_Exit(errno == 4711 && word != 0 && word == random_word() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "skipped: no seccomp filters here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace nh
