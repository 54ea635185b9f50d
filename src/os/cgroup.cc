#include "os/cgroup.h"

#include <cstring>

#include "base/format.h"
#include "base/scan.h"
#include "base/units.h"
#include "os/procfs.h"

namespace nh {
namespace {

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

}  // namespace

// The text is in scratch_ until the next call.
const char* ControlGroups::file_in(std::string_view directory, std::string_view name) {
  TextWriter file(scratch_, sizeof scratch_ - 1);
  file.text(directory).ch('/').text(name);
  scratch_[file.size()] = '\0';
  return scratch_;
}

// Whether a hierarchy of this type ("cgroup" or "cgroup2") that has these controllers is the one that is meant.
bool ControlGroups::is_of(Hierarchy h, std::string_view type, std::string_view controllers) const {
  if (h == kUnified) return type == "cgroup2";
  return type == "cgroup" && has_word(controllers, h == kHugetlb ? "hugetlb" : "memory");
}

// Whether our groups are others than before.
bool ControlGroups::find_groups(const char* root) {
  TextWriter file(scratch_, sizeof scratch_ - 1);
  file.text(root).text("/proc/self/cgroup");
  scratch_[file.size()] = '\0';
  bool changed = false;
  bool seen[kHierarchies] = {};
  LineReader lines(scratch_);
  for (std::string_view line; lines.next(&line);) {
    const std::string_view number = field(&line, ':');
    const std::string_view controllers = field(&line, ':');
    if (line.empty() || lines.line_cut()) continue;
    const bool unified = number == "0" && controllers.empty();
    for (unsigned h = 0; h < kHierarchies; h++) {
      if (!is_of(Hierarchy(h), unified ? "cgroup2" : "cgroup", controllers)) continue;
      seen[h] = true;
      Place& place = places_[h];
      if (line == std::string_view(place.group, place.group_size)) continue;
      std::memcpy(place.group, line.data(), line.size());
      place.group_size = line.size();
      changed = true;
    }
  }
  for (unsigned h = 0; h < kHierarchies; h++) {
    if (seen[h] || places_[h].group_size == 0) continue;
    places_[h].group_size = 0;
    changed = true;
  }
  return changed;
}

// Finds the directory of a group in a hierarchy of which the group `mounted` appears at `point`.
void ControlGroups::mount(Place& place, const char* root, std::string_view mounted, std::string_view point) {
  std::string_view below(place.group, place.group_size);
  if (mounted != "/") take(&below, mounted);
  TextWriter path(place.path, kPathBytes);
  path.text(root).text(point);
  place.top = path.size();
  path.text(below);
  place.size = path.truncated() ? 0 : path.size();
}

void ControlGroups::find_mounts(const char* root) {
  TextWriter file(scratch_, sizeof scratch_ - 1);
  file.text(root).text("/proc/self/mountinfo");
  scratch_[file.size()] = '\0';
  LineReader lines(scratch_);
  for (std::string_view line; lines.next(&line);) {
    // id parent major:minor root mount-point options [optional fields] - type source super-options
    for (int skip = 0; skip < 3; skip++) field(&line, ' ');
    const std::string_view mounted = field(&line, ' ');
    const std::string_view point = field(&line, ' ');
    while (!line.empty() && field(&line, ' ') != "-") {
    }
    const std::string_view type = field(&line, ' ');
    field(&line, ' ');
    for (unsigned h = 0; h < kHierarchies; h++) {
      Place& place = places_[h];
      if (place.group_size != 0 && place.size == 0 && is_of(Hierarchy(h), type, line)) mount(place, root, mounted, point);
    }
  }
}

void ControlGroups::find(const char* root) {
  if (!find_groups(root)) return;
  for (Place& place : places_) place.size = 0;
  level_count_ = 0;
  find_mounts(root);
}

void ControlGroups::forget() {
  for (Place& place : places_) place.group_size = place.size = 0;
  level_count_ = 0;
}

// Calls visit(directory) for our group and those above it up to the one at the mount point, until one returns true.
template <typename Visit>
bool ControlGroups::for_each_level(Hierarchy h, Visit&& visit) {
  const Place& place = places_[h];
  if (place.size == 0) return false;
  for (std::size_t size = place.size;;) {
    while (size > place.top && place.path[size - 1] == '/') size--;
    if (visit(std::string_view(place.path, size))) return true;
    if (size <= place.top) return false;
    while (size > place.top && place.path[size - 1] != '/') size--;
  }
}

std::string_view ControlGroups::directory(Hierarchy h, unsigned up) {
  std::string_view found;
  for_each_level(h, [&](std::string_view level) {
    if (up-- > 0) return false;
    found = level;
    return true;
  });
  return found;
}

bool ControlGroups::read_limit(std::string_view directory, std::string_view name, std::uint64_t* limit) {
  // "max" is no number; version 1 says a number next to 2^63 for no limit.
  return read_number(file_in(directory, name), limit) && *limit < std::uint64_t{1} << 60;
}

bool ControlGroups::limits_hugetlb(std::size_t page_bytes) {
  Text<64> stem;
  stem.text("hugetlb.");
  if (page_bytes >= GiB) {
    stem.dec(page_bytes / GiB).text("GB.");
  } else {
    stem.dec(page_bytes / MiB).text("MB.");
  }
  for (const Hierarchy h : {kHugetlb, kUnified}) {
    Text<96> name;
    name.text(stem.view()).text(h == kUnified ? "max" : "limit_in_bytes");
    std::uint64_t limit = 0;
    if (for_each_level(h, [&](std::string_view directory) { return read_limit(directory, name.view(), &limit); })) return true;
  }
  return false;
}

void ControlGroups::find_memory_limits(std::uint64_t ceiling) {
  level_count_ = 0;
  for (const Hierarchy h : {kMemory, kUnified}) {
    for_each_level(h, [&](std::string_view directory) {
      std::uint64_t limit = 0;
      if (read_limit(directory, h == kUnified ? "memory.max" : "memory.limit_in_bytes", &limit) && limit < ceiling) {
        levels_[level_count_++] = {h, directory.size(), limit};
      }
      return level_count_ == kMostLimits;
    });
    if (level_count_ == kMostLimits) return;
  }
}

// What the kernel would drop before the group is out of memory: pages of files. They count for half, as in the kernel's
// own MemAvailable, because some of them are in use for good.
std::uint64_t ControlGroups::droppable_bytes(std::string_view directory, bool unified) {
  std::uint64_t files = 0;
  LineReader lines(file_in(directory, "memory.stat"));
  for (std::string_view line; lines.next(&line);) {
    // Version 1 counts a group alone without the prefix and the groups below it with it.
    if (!unified && !take(&line, "total_")) continue;
    const std::string_view name = field(&line, ' ');
    std::uint64_t bytes = 0;
    if ((name == "inactive_file" || name == "active_file") && take_decimal(&line, &bytes)) files += bytes;
  }
  return files / 2;
}

bool ControlGroups::memory_limit(MemoryLimit* out) {
  bool found = false;
  for (unsigned i = 0; i < level_count_; i++) {
    const Level& level = levels_[i];
    const bool unified = level.hierarchy == kUnified;
    const std::string_view directory(places_[level.hierarchy].path, level.size);
    std::uint64_t used = 0;
    if (!read_number(file_in(directory, unified ? "memory.current" : "memory.usage_in_bytes"), &used)) continue;
    if (used > level.limit / 2) {
      const std::uint64_t droppable = droppable_bytes(directory, unified);
      used -= droppable < used ? droppable : used;
    }
    const auto left = [](std::uint64_t limit, std::uint64_t in_use) { return limit > in_use ? limit - in_use : 0; };
    if (found && left(level.limit, used) >= left(out->limit, out->used)) continue;
    *out = {level.limit, used};
    found = true;
  }
  return found;
}

}  // namespace nh
