#include "base/format.h"

#include <cstring>

namespace nh {

TextWriter& TextWriter::text(std::string_view s) {
  const std::size_t room = capacity_ - size_;
  const std::size_t n = s.size() <= room ? s.size() : room;
  truncated_ |= n < s.size();
  if (n != 0) std::memcpy(buffer_ + size_, s.data(), n);  // an empty view may have no data
  for (std::size_t i = 0; i < n; i++) {
    if (s[i] == '\n') line_start_ = size_ + i + 1;
  }
  size_ += n;
  return *this;
}

TextWriter& TextWriter::ch(char c) { return text({&c, 1}); }

TextWriter& TextWriter::dec(std::uint64_t v) {
  char digits[20];
  std::size_t i = sizeof digits;
  do {
    digits[--i] = static_cast<char>('0' + v % 10);
    v /= 10;
  } while (v != 0);
  return text({digits + i, sizeof digits - i});
}

TextWriter& TextWriter::sdec(std::int64_t v) {
  if (v < 0) ch('-');
  const auto magnitude = static_cast<std::uint64_t>(v);
  return dec(v < 0 ? 0 - magnitude : magnitude);
}

TextWriter& TextWriter::hex(std::uint64_t v) {
  char digits[16];
  std::size_t i = sizeof digits;
  do {
    digits[--i] = "0123456789abcdef"[v & 15];
    v >>= 4;
  } while (v != 0);
  return text("0x").text({digits + i, sizeof digits - i});
}

TextWriter& TextWriter::ptr(const void* p) { return hex(reinterpret_cast<std::uintptr_t>(p)); }

TextWriter& TextWriter::bytes(std::uint64_t v) {
  static constexpr std::string_view kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
  unsigned unit = 0;
  std::uint64_t scale = 1;
  while (unit < 6 && v / scale >= 1024) {
    scale <<= 10;
    unit++;
  }
  if (unit == 0) return dec(v).text(kUnits[0]);
  return fixed(static_cast<double>(v) / static_cast<double>(scale), 1).text(kUnits[unit]);
}

TextWriter& TextWriter::fixed(double v, int decimals) {
  if (v < 0) {
    ch('-');
    v = -v;
  }
  std::uint64_t scale = 1;
  for (int i = 0; i < decimals; i++) scale *= 10;
  // Round the fraction alone: v * scale could leave 64 bits.
  auto whole = static_cast<std::uint64_t>(v);
  auto fraction = static_cast<std::uint64_t>((v - static_cast<double>(whole)) * static_cast<double>(scale) + 0.5);
  if (fraction >= scale) {
    whole++;
    fraction = 0;
  }
  dec(whole);
  if (decimals == 0) return *this;
  ch('.');
  for (std::uint64_t digit = scale / 10; digit != 0; digit /= 10) ch(static_cast<char>('0' + fraction / digit % 10));
  return *this;
}

TextWriter& TextWriter::pad_to(std::size_t column) {
  while (size_ - line_start_ < column && size_ < capacity_) ch(' ');
  return *this;
}

TextWriter& TextWriter::right(std::string_view s, std::size_t width) {
  for (std::size_t i = s.size(); i < width; i++) ch(' ');
  return text(s);
}

TextWriter& TextWriter::json_string(std::string_view s) {
  ch('"');
  for (const char c : s) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      ch('\\').ch(c);
    } else if (u < 0x20) {
      text("\\u00").ch("0123456789abcdef"[u >> 4]).ch("0123456789abcdef"[u & 15]);
    } else {
      ch(c);
    }
  }
  return ch('"');
}

}  // namespace nh
