// The mappings of this process with what the program has asked of each, from /proc/self/smaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "os/procfs.h"

namespace nh {

struct Mapping {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  bool read = false;
  bool write = false;
  bool execute = false;
  bool shared = false;
  bool file = false;  // of a file that has a name
  bool main_stack = false;
  bool thp_advised = false;
  bool hugetlb = false;
  bool reserved = false;   // charged to the machine or a pool: not mapped with MAP_NORESERVE
  bool not_forked = false;  // MADV_DONTFORK
  bool not_dumped = false;  // MADV_DONTDUMP
  bool other = false;       // something that is not named here, or flags that the kernel does not tell
  // What is in RAM, in bytes. Pages of a pool are not in the first.
  std::size_t resident = 0;
  std::size_t thp = 0;
  std::size_t hugetlb_pages = 0;
};

// Walks over them, lowest address first. The kernel counts the pages of each mapping for this file: it takes some
// ms per GiB of small pages.
class Mappings {
 public:
  Mappings() : lines_("/proc/self/smaps") {}
  // 0, or the errno value with which the file could not be read.
  int error() const { return lines_.error(); }
  bool next(Mapping* out);

 private:
  LineReader lines_;
};

}  // namespace nh
