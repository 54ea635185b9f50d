#include "os/residency.h"

#include <cerrno>
#include <cstdint>

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

}  // namespace nh
