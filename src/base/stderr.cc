#include "base/stderr.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace nh {
namespace {

struct File {
  bool exists;
  dev_t device;
  ino_t inode;
  bool operator==(const File&) const = default;
};

bool g_noted = false;
File g_stderr;
char g_path[1024];  // empty: not to be found again

File file_at(int fd) {
  struct stat s;
  if (::fstat(fd, &s) != 0) return {};
  return {true, s.st_dev, s.st_ino};
}

}  // namespace

void note_stderr() {
  g_stderr = file_at(STDERR_FILENO);
  g_noted = true;
}

bool stderr_is_same() {
  if (!g_noted) return true;
  return g_stderr.exists && file_at(STDERR_FILENO) == g_stderr;
}

void note_stderr_path() {
  struct stat s;
  if (!stderr_is_same() || ::fstat(STDERR_FILENO, &s) != 0 || !(S_ISREG(s.st_mode) || S_ISCHR(s.st_mode))) return;
  const ssize_t n = ::readlink("/proc/self/fd/2", g_path, sizeof g_path - 1);
  g_path[n > 0 && n < ssize_t{sizeof g_path - 1} ? n : 0] = '\0';
}

bool write_to(int fd, const char* text, std::size_t length) {
  while (length != 0) {
    const long n = ::syscall(SYS_write, fd, text, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text += n;
    length -= static_cast<std::size_t>(n);
  }
  return true;
}

void write_to_stderr(const char* text, std::size_t length) {
  const int saved = errno;
  // A failed write to stderr has nowhere to be reported.
  if (stderr_is_same()) write_to(STDERR_FILENO, text, length);
  errno = saved;
}

void report_to_stderr(const char* text, std::size_t length) {
  if (stderr_is_same() || g_path[0] == '\0') return write_to_stderr(text, length);
  const int saved = errno;
  const long fd = ::syscall(SYS_openat, AT_FDCWD, g_path, O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC, 0);
  if (fd >= 0) {
    if (file_at(static_cast<int>(fd)) == g_stderr) write_to(static_cast<int>(fd), text, length);
    ::syscall(SYS_close, fd);
  }
  errno = saved;
}

}  // namespace nh
