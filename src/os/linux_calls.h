// What the files of the production table share: counted calls, errno kept, constants that old headers lack.
// Private to src/os/.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

// glibc 2.36 knows these; older headers that can still build us may not. The values are the kernel's ABI.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000  // Linux 4.17
#endif
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

namespace nh::linux_os_detail {

// Puts errno back at the end of the scope: malloc may set it only when it fails, free never.
class ErrnoKeeper {
 public:
  ErrnoKeeper() : saved_(errno) {}
  ~ErrnoKeeper() { errno = saved_; }
  ErrnoKeeper(const ErrnoKeeper&) = delete;
  ErrnoKeeper& operator=(const ErrnoKeeper&) = delete;

 private:
  const int saved_;
};

extern std::atomic<std::uint64_t> g_memory_syscalls;

// To be called once for every system call that changes memory, failed ones included. relaxed: a statistic, it orders
// nothing.
inline void count_memory_syscall() { g_memory_syscalls.fetch_add(1, std::memory_order_relaxed); }

extern bool g_past_hooks;  // see PastHooks; syscall() is nobody's to hook

// The libc functions, counted. They set errno; callers hold an ErrnoKeeper. None of the five is a cancellation point.
inline void* counted_mmap(void* at, std::size_t bytes, int protection, int flags, int fd = -1) {
  count_memory_syscall();
  if (g_past_hooks) [[unlikely]] {
    return reinterpret_cast<void*>(::syscall(SYS_mmap, at, bytes, protection, flags, fd, 0L));
  }
  return ::mmap(at, bytes, protection, flags, fd, 0);
}
inline int counted_munmap(void* p, std::size_t bytes) {
  count_memory_syscall();
  if (g_past_hooks) [[unlikely]] return static_cast<int>(::syscall(SYS_munmap, p, bytes));
  return ::munmap(p, bytes);
}
inline int counted_madvise(void* p, std::size_t bytes, int advice) {
  count_memory_syscall();
  if (g_past_hooks) [[unlikely]] return static_cast<int>(::syscall(SYS_madvise, p, bytes, advice));
  return ::madvise(p, bytes, advice);
}
inline int counted_mprotect(void* p, std::size_t bytes, int protection) {
  count_memory_syscall();
  if (g_past_hooks) [[unlikely]] return static_cast<int>(::syscall(SYS_mprotect, p, bytes, protection));
  return ::mprotect(p, bytes, protection);
}
inline void* counted_mremap_to(void* from, std::size_t bytes, void* to) {
  count_memory_syscall();
  constexpr int kFlags = MREMAP_MAYMOVE | MREMAP_FIXED;
  if (g_past_hooks) [[unlikely]] {
    return reinterpret_cast<void*>(::syscall(SYS_mremap, from, bytes, bytes, kFlags, to));
  }
  return ::mremap(from, bytes, bytes, kFlags, to);
}

// What address space costs nothing is made of. NORESERVE matters although PROT_NONE memory is not accounted: mprotect
// keeps the flag, so that memory made writable later is not charged either (except under vm.overcommit_memory=2, where
// the kernel ignores the flag), and all of it merges into one mapping.
inline constexpr int kReservedFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

// Functions of the table that live beside their relatives; see os.h for the contracts.
void* reserve(std::size_t bytes, std::size_t alignment);
std::uintptr_t find_window(std::size_t bytes, std::uintptr_t below, unsigned attempt);
bool is_unmapped(void* p, std::size_t bytes);
bool mappings_are_scarce();
bool has_room(void* p, std::size_t bytes);
int map_new_hugetlb(void* at, std::size_t bytes, std::size_t page_bytes, HugeSource source, Reservation reservation);
int collapse(void* p, std::size_t bytes);
bool all_exist(void* p, std::size_t bytes);
bool has_children();

// mmap() at an address where nothing is mapped. EEXIST: something is; nothing changed.
int map_unmapped(void* at, std::size_t bytes, int protection, int flags, int fd);

// Where HugeSource::kHugetlbfs and kSharedFile create their files.
const char* hugetlbfs_path();

}  // namespace nh::linux_os_detail
