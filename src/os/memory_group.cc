// What the memory control groups of this process leave: version 1 or 2, our own group and those above it.
#include <cstdint>
#include <string_view>

#include "base/format.h"
#include "base/scan.h"
#include "os/procfs.h"
#include "os/room.h"

namespace nh {
namespace {

using Path = Text<1024>;

std::string_view field(std::string_view* s, char c) {
  const std::string_view f = before(*s, c);
  *s = after(*s, c);
  return f;
}

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    if (field(&list, ',') == word) return true;
  }
  return false;
}

bool find_group(bool unified, Path* group) {
  LineReader lines("/proc/self/cgroup");
  for (std::string_view line; lines.next(&line);) {
    const std::string_view number = field(&line, ':');
    const std::string_view controllers = field(&line, ':');
    if (!(unified ? number == "0" && controllers.empty() : has_word(controllers, "memory"))) continue;
    group->text(line);
    return true;
  }
  return false;
}

bool find_mount(bool unified, Path* mount_point, Path* mounted_group) {
  LineReader lines("/proc/self/mountinfo");
  for (std::string_view line; lines.next(&line);) {
    // id parent major:minor root mount-point options [optional fields] - type source super-options
    for (int skip = 0; skip < 3; skip++) field(&line, ' ');
    const std::string_view group = field(&line, ' ');
    const std::string_view point = field(&line, ' ');
    while (!line.empty() && field(&line, ' ') != "-") {
    }
    const std::string_view type = field(&line, ' ');
    field(&line, ' ');
    if (!(unified ? type == "cgroup2" : type == "cgroup" && has_word(line, "memory"))) continue;
    mount_point->text(point);
    mounted_group->text(group);
    return true;
  }
  return false;
}

bool read_bytes(std::string_view directory, std::string_view name, std::uint64_t* bytes) {
  Path path;
  path.text(directory).ch('/').text(name);
  return read_number(path.c_str(), bytes);
}

// Files that nobody uses give way to memory; half of them, as elsewhere.
std::size_t files_of(std::string_view directory, bool unified) {
  Path path;
  path.text(directory).text("/memory.stat");
  const std::string_view wanted = unified ? "inactive_file" : "total_inactive_file";
  LineReader lines(path.c_str());
  for (std::string_view line; lines.next(&line);) {
    std::string_view number = after(line, ' ');
    std::uint64_t bytes = 0;
    if (before(line, ' ') == wanted && take_decimal(&number, &bytes)) return bytes;
  }
  return 0;
}

std::size_t room_in(std::string_view directory, bool unified) {
  std::uint64_t limit = 0, used = 0;
  // "max" is no number; version 1 says a number next to 2^63 for no limit.
  if (!read_bytes(directory, unified ? "memory.max" : "memory.limit_in_bytes", &limit)) return SIZE_MAX;
  if (limit >= std::uint64_t{1} << 60) return SIZE_MAX;
  if (!read_bytes(directory, unified ? "memory.current" : "memory.usage_in_bytes", &used)) return SIZE_MAX;
  const std::uint64_t room = limit + files_of(directory, unified) / 2;
  return room > used ? room - used : 0;
}

std::size_t room_in_hierarchy(bool unified) {
  Path group, mount_point, mounted;
  if (!find_group(unified, &group) || !find_mount(unified, &mount_point, &mounted)) return SIZE_MAX;
  std::string_view below = group.view();
  if (mounted.view() != "/") take(&below, mounted.view());
  std::size_t room = SIZE_MAX;
  // From our group up to the one at the mount point.
  for (;;) {
    while (!below.empty() && below.back() == '/') below.remove_suffix(1);
    Path directory;
    directory.text(mount_point.view()).text(below);
    const std::size_t here = room_in(directory.view(), unified);
    if (here < room) room = here;
    if (below.empty()) return room;
    while (!below.empty() && below.back() != '/') below.remove_suffix(1);
  }
}

}  // namespace

std::size_t room_of_group() {
  const std::size_t old = room_in_hierarchy(false), unified = room_in_hierarchy(true);
  return old < unified ? old : unified;
}

}  // namespace nh
