// Reading text piece by piece from the front of a string_view: what the parsers of options, /sys files and cpu lists
// share.
//
// string_view's substr and starts_with are not used in this project: their range check refers to a function of
// libstdc++.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nh {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// The first n characters, or all where there are fewer.
constexpr std::string_view head(std::string_view s, std::size_t n) { return {s.data(), n < s.size() ? n : s.size()}; }
// What follows the first n characters.
constexpr std::string_view tail(std::string_view s, std::size_t n) {
  s.remove_prefix(n < s.size() ? n : s.size());
  return s;
}
// What stands before the first c, or all where there is none.
constexpr std::string_view before(std::string_view s, char c) { return head(s, s.find(c)); }
// What stands after the first c; empty where there is none.
constexpr std::string_view after(std::string_view s, char c) {
  const std::size_t at = s.find(c);
  return at == s.npos ? std::string_view() : tail(s, at + 1);
}

constexpr std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t' || s.front() == '\n')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\n')) s.remove_suffix(1);
  return s;
}

constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); i++) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

// The take_ functions remove what they name from the front of *s. After a false *s is as it was.
constexpr bool take(std::string_view* s, std::string_view prefix) {
  if (head(*s, prefix.size()) != prefix) return false;
  s->remove_prefix(prefix.size());
  return true;
}
// A decimal number without sign; false where there is none or it leaves 64 bits.
constexpr bool take_decimal(std::string_view* s, std::uint64_t* value) {
  std::size_t i = 0;
  std::uint64_t v = 0;
  for (; i < s->size() && is_digit((*s)[i]); i++) {
    if (__builtin_mul_overflow(v, std::uint64_t{10}, &v)) return false;
    if (__builtin_add_overflow(v, static_cast<std::uint64_t>((*s)[i] - '0'), &v)) return false;
  }
  if (i == 0) return false;
  s->remove_prefix(i);
  *value = v;
  return true;
}
// Hexadecimal digits of a lower-case number without a prefix; false where there are none.
constexpr bool take_hex(std::string_view* s, std::uintptr_t* value) {
  std::size_t i = 0;
  std::uintptr_t v = 0;
  for (; i < s->size(); i++) {
    const char c = (*s)[i];
    const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) break;
    v = v << 4 | static_cast<std::uintptr_t>(digit);
  }
  if (i == 0) return false;
  s->remove_prefix(i);
  *value = v;
  return true;
}
// The next line, its newline removed; false at the end of the text.
constexpr bool take_line(std::string_view* s, std::string_view* line) {
  if (s->empty()) return false;
  *line = before(*s, '\n');
  *s = tail(*s, line->size() + 1);
  return true;
}

}  // namespace nh
