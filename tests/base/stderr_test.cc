#include "base/stderr.h"

#include <cerrno>
#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace nh {
namespace {

std::string contents(int fd) {
  char text[256];
  const ssize_t n = ::pread(fd, text, sizeof text, 0);
  return {text, n > 0 ? static_cast<std::size_t>(n) : 0};
}

int new_file(std::string* path) {
  char name[] = "/tmp/nh-stderr-XXXXXX";
  const int fd = ::mkstemp(name);
  *path = name;
  return fd;
}

// In a child, since what is noted counts for the whole process. Its first file is the stderr of the start.
template <typename Work>
void in_child(Work&& work) {
  const auto body = [&] {
    std::string path, other;
    const int file = new_file(&path), next = new_file(&other);
    ::dup2(file, STDERR_FILENO);
    note_stderr();
    note_stderr_path();
    const bool ok = work(file, next);
    ::unlink(path.c_str());
    ::unlink(other.c_str());
    ::_exit(ok ? 0 : 1);
  };
  EXPECT_EXIT(body(), ::testing::ExitedWithCode(0), "");
}

TEST(StderrDeathTest, TheFileOfTheStartIsWrittenTo) {
  in_child([](int file, int) {
    write_to_stderr("line\n", 5);
    return stderr_is_same() && contents(file) == "line\n";
  });
}

TEST(StderrDeathTest, AnotherFileInItsPlaceIsNot) {
  in_child([](int file, int other) {
    ::dup2(other, STDERR_FILENO);
    errno = E2BIG;
    write_to_stderr("line\n", 5);
    return errno == E2BIG && !stderr_is_same() && contents(file).empty() && contents(other).empty();
  });
}

TEST(StderrDeathTest, ItMayComeBack) {
  in_child([](int file, int other) {
    ::dup2(other, STDERR_FILENO);
    ::dup2(file, STDERR_FILENO);
    write_to_stderr("line\n", 5);
    return contents(file) == "line\n";
  });
}

TEST(StderrDeathTest, OneThatWasClosedAtTheStartStaysClosed) {
  in_child([](int, int other) {
    ::close(STDERR_FILENO);
    note_stderr();
    ::dup2(other, STDERR_FILENO);
    write_to_stderr("line\n", 5);
    return contents(other).empty();
  });
}

TEST(StderrDeathTest, AReportOpensAClosedFileAgain) {
  in_child([](int file, int other) {
    write_to_stderr("first\n", 6);
    ::close(STDERR_FILENO);
    report_to_stderr("second\n", 7);
    ::dup2(other, STDERR_FILENO);
    report_to_stderr("third\n", 6);
    return contents(file) == "first\nsecond\nthird\n" && contents(other).empty();
  });
}

TEST(StderrDeathTest, AReportDoesNotGoToAnotherFileOfTheSameName) {
  in_child([](int file, int) {
    char path[256];
    const ssize_t n = ::readlink("/proc/self/fd/2", path, sizeof path - 1);
    path[n] = '\0';
    ::close(STDERR_FILENO);
    ::unlink(path);
    const int stranger = ::open(path, O_RDWR | O_CREAT, 0600);
    report_to_stderr("line\n", 5);
    return contents(stranger).empty() && contents(file).empty();
  });
}

}  // namespace
}  // namespace nh
