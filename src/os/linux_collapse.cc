#include <sys/wait.h>

#include "base/units.h"
#include "os/linux_calls.h"
#include "os/thread_policy.h"

namespace nh::linux_os_detail {

int collapse(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  // Advice about no memory at all is refused only by a kernel that does not know it.
  if (counted_madvise(p, 0, MADV_COLLAPSE) != 0) return ENOSYS;
  ThreadPolicy policy;
  policy.clear();
  return counted_madvise(p, bytes, MADV_COLLAPSE) == 0 ? 0 : errno;
}

bool all_exist(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  constexpr std::size_t kPagesPerCall = kHugeSize / kOsPageSize;
  unsigned char exists[kPagesPerCall];
  auto* const start = static_cast<char*>(p);
  for (std::size_t at = 0; at < bytes; at += kHugeSize) {
    const std::size_t part = bytes - at < kHugeSize ? bytes - at : kHugeSize;
    if (::syscall(SYS_mincore, start + at, part, exists) != 0) return false;
    for (std::size_t i = 0; i < part / kOsPageSize; i++) {
      if ((exists[i] & 1) == 0) return false;
    }
  }
  return true;
}

bool has_children() {
  const ErrnoKeeper keep;
  siginfo_t info;
  return ::syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT, nullptr) == 0;
}

}  // namespace nh::linux_os_detail
