// The limits of the control groups that this process is in, version 1 or 2 of the interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "os/os.h"

namespace nh {

// Where our groups lie and what they are limited to. Some 8 KiB: not for the stack of a thread that called malloc.
// Not thread-safe. Paths that are longer than kPathBytes count as missing.
class ControlGroups {
 public:
  // Looks the groups up in a file of /proc; in two if they are not those of the last look-up. root: the directory that
  // stands for "/", for tests; "" is the real one.
  void find(const char* root);
  void forget();

  // Whether our group, or one above it, limits the huge pages of this size when they are faulted in. Such a limit is not
  // looked at when a mapping reserves its pages, so that a reservation does not keep a fault from ending in SIGBUS.
  // One file per level of the hierarchy.
  bool limits_hugetlb(std::size_t page_bytes);

  // Looks for limits of ordinary memory that are lower than `ceiling`, in our group and those above. One file per level.
  void find_memory_limits(std::uint64_t ceiling);
  // Of the groups that find_memory_limits() has found the one with the least left. false: there are none.
  // One file per such group, and one more where more than half of the limit is used.
  bool memory_limit(MemoryLimit* out);

  // Version 1 has a hierarchy for each controller, version 2 one for all.
  enum Hierarchy : unsigned { kHugetlb, kMemory, kUnified, kHierarchies };
  // The directory of our group (up = 0), of the one above it and so on to the mount point; empty past that, and where the
  // hierarchy cannot be seen. Valid until the next find().
  std::string_view directory(Hierarchy h, unsigned up);
  // Whether the kernel has put us in a group of the hierarchy, seen or not.
  bool in_group(Hierarchy h) const { return places_[h].group_size > 0; }

 private:
  static constexpr std::size_t kPathBytes = 1024;
  static constexpr unsigned kMostLimits = 8;

  // Our group in one hierarchy.
  struct Place {
    char group[kPathBytes];  // as the kernel names it
    std::size_t group_size;  // 0: there is none
    char path[kPathBytes];   // of its directory
    std::size_t size;        // 0: it cannot be reached
    std::size_t top;         // how much of the path is the mount point
  };
  struct Level {
    Hierarchy hierarchy;
    std::size_t size;  // of the directory's path
    std::uint64_t limit;
  };

  bool find_groups(const char* root);
  void find_mounts(const char* root);
  bool is_of(Hierarchy h, std::string_view type, std::string_view controllers) const;
  void mount(Place& place, const char* root, std::string_view mounted, std::string_view point);
  template <typename Visit>
  bool for_each_level(Hierarchy h, Visit&& visit);
  const char* file_in(std::string_view directory, std::string_view name);
  bool read_limit(std::string_view directory, std::string_view name, std::uint64_t* limit);
  std::uint64_t droppable_bytes(std::string_view directory, bool unified);

  Place places_[kHierarchies];
  Level levels_[kMostLimits];
  unsigned level_count_;
  char scratch_[kPathBytes + 64];
};

}  // namespace nh
