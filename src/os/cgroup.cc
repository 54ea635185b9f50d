#include "os/cgroup.h"

#include <cstdint>
#include <string_view>

#include "base/format.h"
#include "base/scan.h"
#include "base/units.h"
#include "os/procfs.h"

namespace nh {
namespace {

// Kept small: this may run on the stack of any thread.
constexpr std::size_t kPathBytes = 1024;
using Path = Text<kPathBytes>;

// Takes the text up to the next c, and the c, off the front of *s.
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

// The path of our group in the hierarchy that has the hugetlb controller (version 1) or in the unified one.
bool find_group(const char* root, bool unified, Path* group) {
  Path file;
  file.text(root).text("/proc/self/cgroup");
  LineReader lines(file.c_str());
  for (std::string_view line; lines.next(&line);) {
    const std::string_view number = field(&line, ':');
    const std::string_view controllers = field(&line, ':');
    if (unified ? number == "0" && controllers.empty() : has_word(controllers, "hugetlb")) {
      group->text(line);
      return true;
    }
  }
  return false;
}

// Where that hierarchy is mounted, and which of its groups appears at the mount point.
bool find_mount(const char* root, bool unified, Path* mount_point, Path* mounted_group) {
  Path file;
  file.text(root).text("/proc/self/mountinfo");
  LineReader lines(file.c_str());
  for (std::string_view line; lines.next(&line);) {
    // id parent major:minor root mount-point options [optional fields] - type source super-options
    for (int skip = 0; skip < 3; skip++) field(&line, ' ');
    const std::string_view group = field(&line, ' ');
    const std::string_view point = field(&line, ' ');
    while (!line.empty() && field(&line, ' ') != "-") {
    }
    const std::string_view type = field(&line, ' ');
    field(&line, ' ');
    if (unified ? type == "cgroup2" : type == "cgroup" && has_word(line, "hugetlb")) {
      mount_point->text(root).text(point);
      mounted_group->text(group);
      return true;
    }
  }
  return false;
}

bool is_limited(std::string_view directory, const char* file_name) {
  Path path;
  path.text(directory).ch('/').text(file_name);
  char text[64];
  const long n = read_file(path.c_str(), text, sizeof text);
  std::uint64_t limit = 0;
  // "max" is no number; version 1 says a number next to 2^63 for no limit.
  return n > 0 && parse_number({text, static_cast<std::size_t>(n)}, &limit) && limit < std::uint64_t{1} << 60;
}

bool hierarchy_limits(const char* root, bool unified, const char* file_name) {
  Path group;
  Path mount_point;
  Path mounted;
  if (!find_group(root, unified, &group) || !find_mount(root, unified, &mount_point, &mounted)) return false;
  std::string_view below = group.view();
  if (mounted.view() != "/") take(&below, mounted.view());
  // From our group up to the one at the mount point.
  for (;;) {
    while (!below.empty() && below.back() == '/') below.remove_suffix(1);
    Path directory;
    directory.text(mount_point.view()).text(below);
    if (is_limited(directory.view(), file_name)) return true;
    if (below.empty()) return false;
    while (!below.empty() && below.back() != '/') below.remove_suffix(1);
  }
}

}  // namespace

bool cgroup_limits_hugetlb(const char* root, std::size_t page_bytes) {
  Text<64> stem;
  stem.text("hugetlb.");
  if (page_bytes >= GiB) {
    stem.dec(page_bytes / GiB).text("GB.");
  } else {
    stem.dec(page_bytes / MiB).text("MB.");
  }
  Text<96> old_name;
  old_name.text(stem.view()).text("limit_in_bytes");
  Text<96> new_name;
  new_name.text(stem.view()).text("max");
  return hierarchy_limits(root, false, old_name.c_str()) || hierarchy_limits(root, true, new_name.c_str());
}

}  // namespace nh
