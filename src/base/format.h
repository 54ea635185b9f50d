// Text without stdio and without allocation: a bounded writer over a caller's buffer.
//
// Reports, error lines and JSON are built with it. Text past the end of the buffer is dropped and truncated() says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nh {

class TextWriter {
 public:
  TextWriter(char* buffer, std::size_t capacity) : buffer_(buffer), capacity_(capacity) {}

  TextWriter& text(std::string_view s);
  TextWriter& ch(char c);
  TextWriter& dec(std::uint64_t v);
  TextWriter& sdec(std::int64_t v);
  TextWriter& hex(std::uint64_t v);           // with 0x
  TextWriter& ptr(const void* p);
  TextWriter& bytes(std::uint64_t v);         // human: 512 B, 64.0 KiB, 1.5 GiB
  TextWriter& fixed(double v, int decimals);  // |v| < 2^63, decimals 0..6
  TextWriter& pad_to(std::size_t column);     // spaces until `column` characters stand on the current line
  TextWriter& right(std::string_view s, std::size_t width);  // right-aligned in width
  TextWriter& json_string(std::string_view s);               // quoted and escaped

  std::string_view view() const { return {buffer_, size_}; }
  std::size_t size() const { return size_; }
  bool truncated() const { return truncated_; }
  // Forgets the text (not the buffer).
  void clear() { size_ = line_start_ = 0; truncated_ = false; }

 private:
  char* buffer_;
  std::size_t capacity_;
  std::size_t size_ = 0;
  std::size_t line_start_ = 0;
  bool truncated_ = false;
};

// A writer with its buffer inside, for lines.
template <std::size_t N>
class Text : public TextWriter {
 public:
  Text() : TextWriter(storage_, N - 1) {}
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  // NUL-terminated.
  const char* c_str() { storage_[size()] = '\0'; return storage_; }

 private:
  char storage_[N];
};

}  // namespace nh
