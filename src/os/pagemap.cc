#include "os/pagemap.h"

#include <cstdint>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "os/linux_calls.h"
#include "os/raw_call.h"

namespace nh {
namespace {

// Of an entry: Documentation/admin-guide/mm/pagemap.rst.
constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;
constexpr std::uint64_t kShared = std::uint64_t{1} << 61;  // with a file, or with others
constexpr std::uint64_t kExclusive = std::uint64_t{1} << 56;  // Linux 4.2

}  // namespace

PageMap::PageMap() {
  const linux_os_detail::ErrnoKeeper keep;
  fd_ = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
}

PageMap::~PageMap() {
  if (fd_ >= 0) linux_os_detail::raw_call(SYS_close, static_cast<std::uintptr_t>(fd_));
}

PageFacts PageMap::facts(const void* p) const {
  PageFacts facts;
  std::uint64_t entry = 0;
  const std::uintptr_t offset = address(p) / kOsPageSize * sizeof entry;
  if (fd_ < 0) return facts;
  const long n = linux_os_detail::raw_call(SYS_pread64, static_cast<std::uintptr_t>(fd_), address(&entry), sizeof entry, offset);
  facts.known = n == static_cast<long>(sizeof entry);
  facts.present = (entry & kPresent) != 0;
  facts.exclusive = (entry & kExclusive) != 0;
  return facts;
}

std::uint64_t PageMap::held_of_64(const void* p, bool own_only) const {
  std::uint64_t entries[64];
  const std::uintptr_t offset = address(p) / kOsPageSize * sizeof entries[0];
  const auto file = static_cast<std::uintptr_t>(fd_);
  const long n = linux_os_detail::raw_call(SYS_pread64, file, address(entries), sizeof entries, offset);
  if (n != static_cast<long>(sizeof entries)) return ~std::uint64_t{0};
  std::uint64_t held = 0;
  for (unsigned i = 0; i < 64; i++) {
    const bool holds = (entries[i] & (kPresent | kSwapped)) != 0 && !(own_only && (entries[i] & kShared) != 0);
    held |= std::uint64_t{holds} << i;
  }
  return held;
}

bool PageMap::may_hold(const void* p, std::size_t bytes) const {
  for (std::size_t at = 0; at < bytes; at += 64 * kOsPageSize) {
    if (held_of_64(static_cast<const char*>(p) + at) != 0) return true;
  }
  return false;
}

}  // namespace nh
