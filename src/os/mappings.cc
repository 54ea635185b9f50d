#include "os/mappings.h"

#include "base/scan.h"

namespace nh {
namespace {

bool take_hex(std::string_view* text, std::uintptr_t* out) {
  std::uintptr_t value = 0;
  std::size_t digits = 0;
  for (; digits < text->size(); digits++) {
    const char c = (*text)[digits];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) break;
    value = value << 4 | static_cast<std::uintptr_t>(digit);
  }
  text->remove_prefix(digits);
  *out = value;
  return digits != 0;
}

// "7f10a0000000-7f10a0200000 rw-p 00000000 00:00 0 ..."
bool parse_head(std::string_view line, Mapping* out) {
  if (!take_hex(&line, &out->start) || line.empty() || line.front() != '-') return false;
  line.remove_prefix(1);
  if (!take_hex(&line, &out->end) || line.size() < 5 || line.front() != ' ') return false;
  out->read = line[1] == 'r';
  out->write = line[2] == 'w';
  out->execute = line[3] == 'x';
  out->shared = line[4] == 's';
  return true;
}

// "VmFlags: rd wr mr mw me nr ht ": Documentation/filesystems/proc.rst.
void parse_flags(std::string_view flags, Mapping* out) {
  // These say what the first line says, what may be asked, how faults are foreseen, or that pages changed (sd).
  constexpr std::string_view kHarmless = " rd wr ex sh mr mw me ms de ac nr sr rr hg nh sd ht dc dd ";
  out->reserved = true;
  for (std::string_view rest = trimmed(flags); !rest.empty(); rest = trimmed(after(rest, ' '))) {
    const std::string_view flag = before(rest, ' ');
    if (flag == "nr") out->reserved = false;
    if (flag == "ht") out->hugetlb = true;
    if (flag == "dc") out->not_forked = true;
    if (flag == "dd") out->not_dumped = true;
    bool known = false;
    for (std::size_t at = 1; at < kHarmless.size(); at += 3) known |= flag == std::string_view(kHarmless.data() + at, 2);
    out->other |= !known;
  }
}

}  // namespace

bool Mappings::next(Mapping* out) {
  Mapping found;
  for (std::string_view line; lines_.next(&line);) {
    if (head(line, 8) == "VmFlags:") {
      parse_flags(after(line, ':'), &found);
      *out = found;
      return true;
    }
    // No other line begins with a hexadecimal number and a dash.
    if (Mapping begun; parse_head(line, &begun)) found = begun;
  }
  return false;
}

}  // namespace nh
