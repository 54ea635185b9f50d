#include "os/thread_places.h"

#include <cstring>

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/scan.h"
#include "os/linux_calls.h"

namespace nh {
namespace {

// As getdents64() lays it out.
struct Entry {
  std::uint64_t inode;
  std::int64_t next;
  std::uint16_t bytes;
  std::uint8_t type;
  char name[1];
};

}  // namespace

bool for_each_thread_record(void (*visit)(void* argument, std::uintptr_t at), void* argument) {
  const linux_os_detail::ErrnoKeeper keep;
  const long fd = ::syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  alignas(Entry) char buffer[1024];
  bool ok = true;
  for (;;) {
    const long n = ::syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    if (n <= 0) {
      ok &= n == 0;
      break;
    }
    for (long at = 0; at < n;) {
      const char* const name = buffer + at + offsetof(Entry, name);
      std::uint16_t bytes;
      std::memcpy(&bytes, buffer + at + offsetof(Entry, bytes), sizeof bytes);
      at += bytes;
      std::string_view text(name);
      std::uint64_t thread = 0;
      if (!take_decimal(&text, &thread)) continue;
      // The list of robust mutexes begins in libc's record. A thread that has ended meanwhile has none.
      robust_list_head* list = nullptr;
      std::size_t size = 0;
      if (::syscall(SYS_get_robust_list, thread, &list, &size) == 0 && list != nullptr) visit(argument, address(list));
    }
  }
  ::syscall(SYS_close, fd);
  return ok;
}

}  // namespace nh
