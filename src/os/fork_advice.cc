#include "os/fork_advice.h"

#include "base/units.h"
#include "os/linux_calls.h"

namespace nh {

using namespace linux_os_detail;

int keep_from_children(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return counted_madvise(p, bytes, MADV_DONTFORK) == 0 ? 0 : errno;
}

int keep_from_dumps(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return counted_madvise(p, bytes, MADV_DONTDUMP) == 0 ? 0 : errno;
}

int close_hole(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return map_unmapped(p, bytes, PROT_NONE, kReservedFlags, -1);
}

void* map_wiped_page() {
  const ErrnoKeeper keep;
  void* const page = counted_mmap(nullptr, kOsPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (page == MAP_FAILED) return nullptr;
  if (counted_madvise(page, kOsPageSize, MADV_WIPEONFORK) == 0) return page;
  counted_munmap(page, kOsPageSize);
  return nullptr;
}

void tell_of_new_pages(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  count_memory_syscall();
  // Neither moved nor resized.
  [[maybe_unused]] void* const same = ::mremap(p, bytes, bytes, 0);
}

}  // namespace nh
