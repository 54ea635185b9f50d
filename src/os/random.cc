#include "os/random.h"

#include <cstring>
#include <ctime>

#include <linux/random.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/linux_calls.h"

namespace nh {

std::uint64_t random_word() {
  const linux_os_detail::ErrnoKeeper keep;
  std::uint64_t word = 0;
  if (::syscall(SYS_getrandom, &word, sizeof word, GRND_NONBLOCK) == long{sizeof word}) return word;
  if (const auto* bytes = reinterpret_cast<const char*>(::getauxval(AT_RANDOM)); bytes != nullptr) {
    std::uint64_t given[2];
    std::memcpy(given, bytes, sizeof given);
    // glibc's stack protector and pointer guard are these two words as they stand.
    return given[0] ^ (given[1] << 1 | given[1] >> 63);
  }
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return (static_cast<std::uint64_t>(now.tv_sec) << 30 ^ static_cast<std::uint64_t>(now.tv_nsec)) * 0x9e3779b97f4a7c15u;
}

}  // namespace nh
