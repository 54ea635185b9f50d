// Bounded readers for /proc and /sys, for use before libc is ready and under an allocator: no malloc, no stdio, no
// getenv, errno kept, and no cancellation point (libc's open, read and close are; a thread cancelled inside malloc
// would leave its locks held).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nh {

// Reads a file from its start into buffer, which is NUL-terminated afterwards. Returns the number of bytes without the
// NUL, or -errno. A longer file is cut at capacity - 1: a result of capacity - 1 means "this much or more".
// capacity must not be 0.
long read_file(const char* path, char* buffer, std::size_t capacity);

// Whether a file or directory of this name exists and can be looked up.
bool path_exists(const char* path);

// Calls visit(argument, name) for each entry of a directory, "." and ".." included, until it returns false. The name is
// valid during the call. false where the directory cannot be read to its end.
bool for_each_entry(const char* directory, bool (*visit)(void* argument, const char* name), void* argument);

// Where a symbolic link points to, as it is written there, NUL-terminated; false where it cannot be read or does not fit.
bool read_link(const char* path, char* buffer, std::size_t capacity);

// Parses decimal digits that fill all of text, white space at both ends aside. false for anything else, empty text, a
// sign and overflow included.
bool parse_number(std::string_view text, std::uint64_t* out);

// Parses the decimal digits at the start of *text and removes them. false, and *text unchanged, where there are none
// or they overflow.
bool take_number(std::string_view* text, std::uint64_t* out);

// A file that holds one number, as most of /sys do.
bool read_number(const char* path, std::uint64_t* out);

// Walks over the lines of a file of any length.
//
//   LineReader lines("/proc/self/status");
//   for (std::string_view line; lines.next(&line);) ...
class LineReader {
 public:
  explicit LineReader(const char* path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // 0, or the errno value with which opening or reading failed.
  int error() const { return error_; }
  // The next line, without its newline, valid until the next call. A line longer than kMaxLine is cut there, and
  // line_cut() is true until the next call.
  bool next(std::string_view* line);
  bool line_cut() const { return cut_; }

  // The buffer lies on the stack of whichever thread called malloc.
  static constexpr std::size_t kMaxLine = 1023;

 private:
  void fill();

  int fd_ = -1;
  int error_ = 0;
  const bool short_read_ends_;
  bool cut_ = false;
  bool end_ = false;
  std::size_t begin_ = 0;  // of what has not been handed out, in buffer_
  std::size_t size_ = 0;
  char buffer_[kMaxLine + 1];
};

// The number after "key:" in a file such as /proc/meminfo or /proc/self/status, in the file's own unit (mostly kB).
// key is the whole name, without the colon. false where it is missing or no number.
bool read_field(const char* path, std::string_view key, std::uint64_t* out);

}  // namespace nh
