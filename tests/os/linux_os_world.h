// What the tests of the production table stand on.
#pragma once

#include <cerrno>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/maps.h"
#include "os/os.h"

namespace nh {
namespace {

using test::mappings_within;
using test::permissions_of;
using test::resident_pages;

const OsOps& os = linux_os();

// A reservation for the length of a test; errno must be what it was at the end.
class LinuxOs : public testing::Test {
 protected:
  static constexpr std::size_t kBytes = 64 * kOsPageSize;
  void SetUp() override {
    errno = 4711;
    p_ = static_cast<char*>(os.reserve(kBytes, kOsPageSize));
    ASSERT_NE(p_, nullptr);
  }
  void TearDown() override {
    os.unmap(p_, kBytes);
    EXPECT_EQ(errno, 4711) << "a call changed errno";
  }
  char* page(std::size_t i) { return p_ + i * kOsPageSize; }
  // For what is not under test.
  template <typename F>
  static auto keeping_errno(F f) {
    const int saved = errno;
    auto result = f();
    errno = saved;
    return result;
  }
  char* p_ = nullptr;
};

// How a child that runs f ends: 0 and more its exit status, less a signal.
template <typename F>
[[maybe_unused]] int in_child(F f) {
  const int saved = errno;
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (const int s : {SIGSEGV, SIGBUS}) signal(s, SIG_DFL);  // sanitizers have handlers of their own
    errno = 4711;
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  errno = saved;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace
}  // namespace nh
