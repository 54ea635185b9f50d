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
  // The same of 64 OS pages from p's on, a bit each.
  std::uint64_t may_hold_of_64(const void* p) const;
  // Whether something was stored in the range, in RAM or swapped out. Also true where the kernel does not tell.
  bool may_hold(const void* p, std::size_t bytes) const;

 private:
  int fd_;
};

}  // namespace nh
