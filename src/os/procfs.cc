#include "os/procfs.h"

#include <cerrno>
#include <cstring>

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/linux_calls.h"

namespace nh {
namespace {

using linux_os_detail::ErrnoKeeper;

// As getdents64() lays it out.
struct Entry {
  std::uint64_t inode;
  std::int64_t next;
  std::uint16_t bytes;
  std::uint8_t type;
  char name[1];
};

// These return -errno. EINTR is retried: SA_RESTART is the program's choice, not ours.
int open_for_reading(const char* path) {
  for (;;) {
    const long fd = ::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) return static_cast<int>(fd);
    if (errno != EINTR) return -errno;
  }
}

long read_some(int fd, char* buffer, std::size_t bytes) {
  for (;;) {
    const long n = ::syscall(SYS_read, fd, buffer, bytes);
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

// Never retried: Linux has freed the descriptor even when close says EINTR.
void close_file(int fd) { ::syscall(SYS_close, fd); }

// Files of /proc arrive in pieces of at most a page that end wherever a record does, so that a short read is not the end.
// Those of /sys come whole as far as the page size of the kernel goes, which is nowhere less than this.
constexpr long kSmallestPage = 4096;
bool is_sysfs(const char* path) { return std::strncmp(path, "/sys/", 5) == 0; }
bool is_last(long n, std::size_t room) { return n < kSmallestPage && static_cast<std::size_t>(n) < room; }

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Takes "name:" off the front of a line. string_view's own substr() and starts_with() refer to the throwing
// part of libstdc++ where they are not inlined, which the library must not need.
bool take_name(std::string_view* line, std::string_view name) {
  if (line->size() <= name.size() || std::memcmp(line->data(), name.data(), name.size()) != 0) return false;
  if ((*line)[name.size()] != ':') return false;
  line->remove_prefix(name.size() + 1);
  return true;
}

}  // namespace

long read_file(const char* path, char* buffer, std::size_t capacity) {
  const ErrnoKeeper keep;
  buffer[0] = '\0';
  const int fd = open_for_reading(path);
  if (fd < 0) return fd;
  std::size_t size = 0;
  long n = 0;
  const bool sysfs = is_sysfs(path);
  while (size < capacity - 1) {
    const std::size_t room = capacity - 1 - size;
    n = read_some(fd, buffer + size, room);
    if (n <= 0) break;
    size += static_cast<std::size_t>(n);
    if (sysfs && is_last(n, room)) break;
  }
  close_file(fd);
  buffer[size] = '\0';
  return n < 0 ? n : static_cast<long>(size);
}

bool take_number(std::string_view* text, std::uint64_t* out) {
  std::uint64_t value = 0;
  std::size_t i = 0;
  for (; i < text->size() && (*text)[i] >= '0' && (*text)[i] <= '9'; i++) {
    const auto digit = static_cast<std::uint64_t>((*text)[i] - '0');
    if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, digit, &value)) return false;
  }
  if (i == 0) return false;
  text->remove_prefix(i);
  *out = value;
  return true;
}

bool parse_number(std::string_view text, std::uint64_t* out) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  std::uint64_t value = 0;
  if (!take_number(&text, &value) || !text.empty()) return false;
  *out = value;
  return true;
}

bool read_number(const char* path, std::uint64_t* out) {
  char text[64];
  const long n = read_file(path, text, sizeof text);
  // A file that fills the buffer was cut, and its first digits are not its number.
  if (n < 0 || n == long{sizeof text - 1}) return false;
  return parse_number({text, static_cast<std::size_t>(n)}, out);
}

bool path_exists(const char* path) {
  const ErrnoKeeper keep;
  return ::syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

bool for_each_entry(const char* directory, bool (*visit)(void* argument, const char* name), void* argument) {
  const ErrnoKeeper keep;
  const long fd = ::syscall(SYS_openat, AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) return false;
  alignas(Entry) char buffer[512];  // the longest entry takes 280
  bool more = true;
  long n = 0;
  while (more && (n = ::syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
    for (long at = 0; more && at < n;) {
      const char* const name = buffer + at + offsetof(Entry, name);
      std::uint16_t bytes;
      std::memcpy(&bytes, buffer + at + offsetof(Entry, bytes), sizeof bytes);
      at += bytes;
      more = visit(argument, name);
    }
  }
  close_file(static_cast<int>(fd));
  return n >= 0;
}

bool read_link(const char* path, char* buffer, std::size_t capacity) {
  const ErrnoKeeper keep;
  const long n = ::syscall(SYS_readlinkat, AT_FDCWD, path, buffer, capacity);
  if (n < 0 || static_cast<std::size_t>(n) >= capacity) return false;
  buffer[n] = '\0';
  return true;
}

LineReader::LineReader(const char* path) : short_read_ends_(is_sysfs(path)) {
  const ErrnoKeeper keep;
  fd_ = open_for_reading(path);
  if (fd_ < 0) {
    error_ = -fd_;
    end_ = true;
  }
}

LineReader::~LineReader() {
  const ErrnoKeeper keep;
  if (fd_ >= 0) close_file(fd_);
}

void LineReader::fill() {
  if (end_) return;
  const long n = read_some(fd_, buffer_ + size_, sizeof buffer_ - size_);
  if (n <= 0) {
    end_ = true;
    error_ = static_cast<int>(-n);
    return;
  }
  end_ = short_read_ends_ && is_last(n, sizeof buffer_ - size_);
  size_ += static_cast<std::size_t>(n);
}

bool LineReader::next(std::string_view* line) {
  const ErrnoKeeper keep;
  bool skipping = false;  // behind the part of a long line that was handed out
  if (cut_) {
    cut_ = false;
    skipping = true;
  }
  std::size_t searched = begin_;
  for (;;) {
    const void* const found = std::memchr(buffer_ + searched, '\n', size_ - searched);
    if (found != nullptr) {
      const auto end = static_cast<std::size_t>(static_cast<const char*>(found) - buffer_);
      const std::size_t begin = begin_;
      begin_ = searched = end + 1;
      if (skipping) {
        skipping = false;
        continue;
      }
      *line = {buffer_ + begin, end - begin};
      return true;
    }
    if (skipping) {
      begin_ = size_ = 0;
    } else if (begin_ == 0 && size_ == sizeof buffer_) {
      *line = {buffer_, kMaxLine};
      cut_ = true;
      begin_ = size_;
      return true;
    } else if (begin_ != 0) {
      std::memmove(buffer_, buffer_ + begin_, size_ - begin_);
      size_ -= begin_;
      begin_ = 0;
    }
    searched = size_;
    const std::size_t before = size_;
    fill();
    if (size_ != before) continue;
    if (skipping || size_ == 0) return false;
    *line = {buffer_, size_};
    begin_ = size_;
    return true;
  }
}

bool read_field(const char* path, std::string_view key, std::uint64_t* out) {
  LineReader lines(path);
  for (std::string_view line; lines.next(&line);) {
    if (!take_name(&line, key)) continue;
    while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
    return take_number(&line, out);
  }
  return false;
}

}  // namespace nh
