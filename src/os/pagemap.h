// What /proc/self/pagemap says about single pages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

struct PageFacts {
  bool known = false;      // the kernel said anything at all
  bool present = false;    // there is a page
  bool exclusive = false;  // mapped by this process and by no other
};

// Open while it exists. facts() stores nothing in the memory of the process but its result, not even errno.
class PageMap {
 public:
  PageMap();
  ~PageMap();
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  bool is_open() const { return fd_ >= 0; }
  // p: any address. Holds for hugetlb pages, too.
  PageFacts facts(const void* p) const;
  // Which of 64 OS pages from p's on hold something, in RAM or swapped out, a bit each. own_only: something that this process
  // has stored in memory of its own; pages of files and shared ones do not count. All, where the kernel does not tell.
  std::uint64_t held_of_64(const void* p, bool own_only = false) const;
  // Whether something was stored in the range, in RAM or swapped out. Also true where the kernel does not tell.
  bool may_hold(const void* p, std::size_t bytes) const;

 private:
  int fd_;
};

}  // namespace nh
