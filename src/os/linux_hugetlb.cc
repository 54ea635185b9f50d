// The production table: hugetlb memory.
#include <cerrno>

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/check.h"
#include "base/format.h"
#include "os/linux_calls.h"
#include "os/os.h"
#include "os/machine_state.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u  // Linux 6.3
#endif

namespace nh::linux_os_detail {
namespace {

constexpr long kHugetlbfsMagic = 0x958458f6;  // f_type of a hugetlbfs mount

// The size of a huge page as mmap and memfd_create want it in their flags; both use the same bits.
constexpr unsigned size_flags(std::size_t page_bytes) { return log2_floor(page_bytes) << MAP_HUGE_SHIFT; }

void close_file(int fd) { ::syscall(SYS_close, fd); }  // libc's close() is a cancellation point

// These return a descriptor or -errno.
int open_memfd(std::size_t page_bytes) {
  const unsigned flags = MFD_CLOEXEC | MFD_HUGETLB | size_flags(page_bytes);
  // With vm.memfd_noexec=2 only sealed files are allowed; kernels before 6.3 do not know the flag.
  long fd = ::syscall(SYS_memfd_create, "numaheap", flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = ::syscall(SYS_memfd_create, "numaheap", flags);
  return fd >= 0 ? static_cast<int>(fd) : -errno;
}

int open_hugetlbfs_file(std::size_t page_bytes) {
  const char* const directory = hugetlbfs_path();
  if (directory[0] == '\0') return -ENOENT;
  // Asked first: a file of this size on an ordinary file system would be memory backed by a disk.
  struct statfs fs;
  if (::statfs(directory, &fs) != 0) return -errno;
  if (fs.f_type != kHugetlbfsMagic || static_cast<std::size_t>(fs.f_bsize) != page_bytes) return -EINVAL;

  // The name exists for an instant. Processes of several pid namespaces can share a mount, hence time and counter.
  static constinit std::atomic<std::uint64_t> serial{0};
  for (int attempt = 0; attempt < 100; attempt++) {
    Text<sizeof(OsConfig::hugetlbfs_path) + 80> path;
    path.text(directory).text("/numaheap-").dec(static_cast<std::uint64_t>(::syscall(SYS_getpid))).ch('-');
    path.dec(linux_os().now_ns()).ch('-').dec(serial.fetch_add(1, std::memory_order_relaxed));
    const long fd = ::syscall(SYS_openat, AT_FDCWD, path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
      ::unlink(path.c_str());
      return static_cast<int>(fd);
    }
    if (errno != EEXIST && errno != EINTR) return -errno;
  }
  return -EEXIST;
}

// What one mmap of a source needs. Closes the file again: the mapping holds it.
class Mapper {
 public:
  Mapper(std::size_t page_bytes, HugeSource source, Reservation reservation) {
    if (reservation == Reservation::kNone) flags_ |= MAP_NORESERVE;
    switch (source) {
      case HugeSource::kAnonymous:
        flags_ |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | static_cast<int>(size_flags(page_bytes));
        return;
      case HugeSource::kMemfd:
        flags_ |= MAP_PRIVATE;
        fd_ = open_memfd(page_bytes);
        break;
      case HugeSource::kHugetlbfs:
        flags_ |= MAP_PRIVATE;
        fd_ = open_hugetlbfs_file(page_bytes);
        break;
      case HugeSource::kSharedFile:
        flags_ |= MAP_SHARED;
        fd_ = open_hugetlbfs_file(page_bytes);
        break;
    }
    if (fd_ < 0) error_ = -fd_;
  }
  ~Mapper() {
    if (fd_ >= 0) close_file(fd_);
  }
  Mapper(const Mapper&) = delete;
  Mapper& operator=(const Mapper&) = delete;

  int map(void* at, std::size_t bytes) {
    // Faults behind the end of the file are SIGBUS, also in private mappings.
    if (error_ == 0 && fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) error_ = errno;
    return error_ != 0 ? error_ : map_unmapped(at, bytes, PROT_READ | PROT_WRITE, flags_, fd_);
  }

 private:
  int fd_ = -1;
  int flags_ = 0;
  int error_ = 0;
};

}  // namespace

int map_new_hugetlb(void* at, std::size_t bytes, std::size_t page_bytes, HugeSource source, Reservation reservation) {
  const ErrnoKeeper keep;
  NH_ASSERT(is_pow2(page_bytes) && is_aligned(address(at), page_bytes) && is_aligned(bytes, page_bytes));
  const int error = Mapper(page_bytes, source, reservation).map(at, bytes);
  if (error == 0 && reservation == Reservation::kFull) note_reserved(page_bytes, bytes / page_bytes);
  return error;
}

}  // namespace nh::linux_os_detail
