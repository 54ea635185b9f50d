// Huge pages of the real machine for the length of a test.
#pragma once

#include <cstddef>

namespace nh::test {

// Brings the pool of one page size to a wanted number of free pages (nr_hugepages), and back to what it was when the
// guard goes, failing tests included. One guard at a time on the machine: a file lock makes others wait, so that
// parallel test programs do not see each other's pages come and go. A guard that had to be left behind (SIGKILL) is
// undone by the next one, which finds the old value in the lock file.
class HugePoolGuard {
 public:
  // free_pages: how many pages are to be free; 0 empties the pool as far as others do not use it.
  explicit HugePoolGuard(std::size_t free_pages, std::size_t page_bytes = std::size_t{2} << 20);
  ~HugePoolGuard();
  HugePoolGuard(const HugePoolGuard&) = delete;
  HugePoolGuard& operator=(const HugePoolGuard&) = delete;

  // Whether the pool is as wanted. false: why() says what is missing (privilege, contiguous memory).
  bool ok() const { return why_[0] == '\0'; }
  const char* why() const { return why_; }
  // Changes the number of free pages while the guard stands. false where the kernel did not get there.
  bool set_free(std::size_t free_pages);

  static std::size_t total(std::size_t page_bytes = std::size_t{2} << 20);
  static std::size_t free(std::size_t page_bytes = std::size_t{2} << 20);

 private:
  int lock_ = -1;
  std::size_t page_bytes_;
  std::size_t old_total_ = 0;
  char why_[128] = "";
};

}  // namespace nh::test
