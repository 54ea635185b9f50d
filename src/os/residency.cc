#include "os/residency.h"

#include <cerrno>
#include <cstdint>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "os/linux_calls.h"

namespace nh {

PageState page_state(const void* p) {
  const linux_os_detail::ErrnoKeeper keep;
  unsigned char residency = 0;
  if (::syscall(SYS_mincore, p, kOsPageSize, &residency) != 0) {
    return errno == ENOMEM ? PageState::kUnmapped : PageState::kPresent;
  }
  return (residency & 1) != 0 ? PageState::kPresent : PageState::kEmpty;
}

bool page_is_exclusive(const void* p) {
  const linux_os_detail::ErrnoKeeper keep;
  // Opened for each question: a descriptor that is kept could be closed by the program, and its number reused.
  const long fd = ::syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::uint64_t entry = 0;
  const auto offset = static_cast<off_t>(address(p) / kOsPageSize * sizeof entry);
  const long n = ::syscall(SYS_pread64, fd, &entry, sizeof entry, offset);
  ::syscall(SYS_close, fd);
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63, kExclusive = std::uint64_t{1} << 56;
  return n == static_cast<long>(sizeof entry) && (entry & kPresent) != 0 && (entry & kExclusive) != 0;
}

}  // namespace nh
