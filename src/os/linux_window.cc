// The production table: where a window of address space can lie that grows and is not reserved.
//
// Nobody else may come to lie in it, and it may not be in anybody's way. On x86-64 a process has 128 TiB:
//
//   below 21 TiB   mappings under `ulimit -s unlimited`, as many Fortran codes need it (6.18), downwards from there
//   from 42.6 TiB  mappings under the legacy layout, upwards
//   85 - 87 TiB    programs that are position-independent, and their heap
//   below 128 TiB  all other mappings, downwards
//
// So the window ends below 80 TiB, at a random place. What is mapped there all the same is gone around.
#include <cerrno>
#include <cstdint>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/linux_calls.h"
#include "os/procfs.h"
#include "os/random.h"

// Other tools that lay out the address space for themselves, and allow nothing but what the kernel chooses.
extern "C" {
extern char __tsan_init __attribute__((weak));
extern char __msan_init __attribute__((weak));
}

namespace nh::linux_os_detail {
namespace {

constexpr std::uintptr_t kTop = 80 * TiB;
constexpr std::uintptr_t kLegacyTop = 44 * TiB;  // a process of that layout gets so far with more than a TiB of mappings
constexpr std::size_t kSpread = 16 * TiB;        // 2^18 places
constexpr unsigned kRandomAttempts = 8;
constexpr unsigned kAttempts = 16;

// Where the kernel would put it.
std::uintptr_t kernels_choice(std::size_t bytes) {
  void* const p = counted_mmap(nullptr, bytes + kArenaSize, PROT_NONE, kReservedFlags);
  if (p == MAP_FAILED) return 0;
  counted_munmap(p, bytes + kArenaSize);
  return align_up(address(p), kArenaSize);
}

}  // namespace

std::uintptr_t find_window(std::size_t bytes, std::uintptr_t below, unsigned attempt) {
  const ErrnoKeeper keep;
  if (attempt >= kAttempts) return 0;
  const std::uintptr_t top = below == 0 ? kTop : align_down(below, kArenaSize);
  bytes = align_up(bytes, kArenaSize);
  const bool chooses = &__tsan_init == nullptr && &__msan_init == nullptr && attempt < kRandomAttempts;
  if (!chooses || bytes + TiB > top) {
    const std::uintptr_t place = kernels_choice(bytes);
    return below == 0 || place + bytes <= below ? place : 0;
  }
  const std::uintptr_t highest = top - bytes;
  std::uintptr_t lowest = highest > kSpread ? highest - kSpread : kArenaSize;
  if (highest > kLegacyTop && lowest < kLegacyTop) lowest = kLegacyTop;
  const std::uintptr_t base = highest - nh::random_word() % ((highest - lowest) / kArenaSize + 1) * kArenaSize;
  // Refused where processes have less address space than that.
  return is_unmapped(reinterpret_cast<void*>(base), kArenaSize) ? base : 0;
}

bool is_unmapped(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  void* const got = counted_mmap(p, bytes, PROT_NONE, kReservedFlags | MAP_FIXED_NOREPLACE);
  if (got == MAP_FAILED) return errno != EEXIST;
  counted_munmap(got, bytes);
  return got == p;  // kernels before 4.17 take the flag for a hint
}

namespace {

// vm.overcommit_memory=2. Asked once: an administrator sets it at boot.
bool charges_all() {
  static constinit std::atomic<int> known{0};  // 0 = not asked yet
  int mode = known.load(std::memory_order_relaxed);
  if (mode == 0) {
    std::uint64_t value = 0;
    mode = read_number("/proc/sys/vm/overcommit_memory", &value) && value == 2 ? 2 : 1;
    known.store(mode, std::memory_order_relaxed);
  }
  return mode == 2;
}

}  // namespace

bool mappings_are_scarce() {
  const ErrnoKeeper keep;
  rlimit limit;
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) return true;
  return charges_all();
}

bool has_room(void* p, std::size_t bytes) {
  // Inaccessible memory counts for RLIMIT_AS, but is not charged.
  const int protection = charges_all() ? PROT_READ | PROT_WRITE : PROT_NONE;
  const int error = map_unmapped(p, bytes, protection, kReservedFlags, -1);
  if (error == 0) counted_munmap(p, bytes);
  return error == 0 || error == EEXIST;
}

}  // namespace nh::linux_os_detail
