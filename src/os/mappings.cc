#include "os/mappings.h"

#include "base/scan.h"
#include "base/units.h"

namespace nh {
namespace {

// "7f10a0000000-7f10a0200000 rw-p 00000000 00:00 0    /usr/lib/libm.so.6"
bool parse_head(std::string_view line, Mapping* out) {
  if (!take_hex(&line, &out->start) || !take(&line, "-")) return false;
  if (!take_hex(&line, &out->end) || line.size() < 5 || line.front() != ' ') return false;
  out->read = line[1] == 'r';
  out->write = line[2] == 'w';
  out->execute = line[3] == 'x';
  out->shared = line[4] == 's';
  out->file = line.find('/') != line.npos;
  out->main_stack = line.ends_with("[stack]");
  return true;
}

// "AnonHugePages:      2048 kB"
void parse_count(std::string_view line, Mapping* out) {
  std::string_view number = trimmed(after(line, ':'));
  std::uint64_t kib = 0;
  if (!take_decimal(&number, &kib) || number != " kB") return;
  const std::string_view name = before(line, ':');
  if (name == "Rss") out->resident += kib * KiB;
  if (name == "AnonHugePages" || name == "ShmemPmdMapped" || name == "FilePmdMapped") out->thp += kib * KiB;
  if (name == "Private_Hugetlb" || name == "Shared_Hugetlb") out->hugetlb_pages += kib * KiB;
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
    if (flag == "hg") out->thp_advised = true;
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
    if (Mapping begun; parse_head(line, &begun)) {
      found = begun;
    } else {
      parse_count(line, &found);
    }
  }
  return false;
}

}  // namespace nh
