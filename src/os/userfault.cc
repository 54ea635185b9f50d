#include "os/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "base/bits.h"
#include "os/linux_calls.h"
#include "os/raw_call.h"

// The kernel's ABI, for headers that are older.
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1  // Linux 5.11
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)  // Linux 5.19
#endif

namespace nh {
namespace {

uffdio_range range_of(const void* p, std::size_t bytes) { return {address(p), bytes}; }

long control(int fd, unsigned long request, const void* argument) {
  return linux_os_detail::raw_call(SYS_ioctl, static_cast<std::uintptr_t>(fd), request, address(argument));
}

}  // namespace

bool can_stop_hugetlb_stores() {
  static constinit std::atomic<int> known{0};  // 0 not asked yet, 1 yes, 2 no
  // relaxed: the answer is the whole of the data, and threads that ask at the same time find the same one.
  int answer = known.load(std::memory_order_relaxed);
  if (answer == 0) {
    const linux_os_detail::ErrnoKeeper keep;
    // Under a filter the very question may be deadly.
    const bool filtered = ::syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0) != 0;
    answer = !filtered && WriteProtection().open() ? 1 : 2;
    known.store(answer, std::memory_order_relaxed);
  }
  return answer == 1;
}

bool WriteProtection::open() {
  const linux_os_detail::ErrnoKeeper keep;
  full_ = true;
  fd_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC));
  if (fd_ < 0) {
    full_ = false;
    fd_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
  }
  if (fd_ < 0) return false;
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  if (control(fd_, UFFDIO_API, &api) == 0) return true;
  close();
  return false;
}

bool WriteProtection::add(const void* p, std::size_t bytes) {
  uffdio_register request = {};
  request.range = range_of(p, bytes);
  request.mode = UFFDIO_REGISTER_MODE_WP;
  return control(fd_, UFFDIO_REGISTER, &request) == 0;
}

bool WriteProtection::protect(const void* p, std::size_t bytes) const {
  uffdio_writeprotect request = {};
  request.range = range_of(p, bytes);
  request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  return control(fd_, UFFDIO_WRITEPROTECT, &request) == 0;
}

void WriteProtection::wake(const void* p, std::size_t bytes) const {
  const uffdio_range range = range_of(p, bytes);
  control(fd_, UFFDIO_WAKE, &range);
}

void WriteProtection::close() {
  if (fd_ >= 0) linux_os_detail::raw_call(SYS_close, static_cast<std::uintptr_t>(fd_));
  fd_ = -1;
}

}  // namespace nh
