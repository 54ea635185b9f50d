// Stores of other threads, stopped by userfaultfd's write-protection: whoever stores into a protected range waits in the
// kernel and repeats the store once it is woken. Unlike mprotect with a signal handler this also holds for threads that
// block all signals or whose stack lies in the range.
//
// hugetlb memory can be protected from Linux 5.19 on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

// Whether that can be had here. Asked of the kernel once.
bool can_stop_hugetlb_stores();

class WriteProtection {
 public:
  WriteProtection() = default;
  ~WriteProtection() { close(); }
  WriteProtection(const WriteProtection&) = delete;
  WriteProtection& operator=(const WriteProtection&) = delete;

  // False where the kernel is too old or refuses.
  bool open();
  bool is_open() const { return fd_ >= 0; }
  // Without the privilege for it (CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1) a system call of another thread that
  // stores into a protected range does not wait but fails with EFAULT, and the kernel ends a process when a signal frame
  // or the restartable-sequence area of a thread cannot be written.
  bool stops_system_calls() const { return full_; }

  // Announces a range of hugetlb memory; nothing is protected yet. False: refused, as where the program has it under a
  // userfaultfd of its own.
  bool add(const void* p, std::size_t bytes);

  // The following store nothing in the memory of the process.

  // Stops stores into an announced range.
  bool protect(const void* p, std::size_t bytes) const;
  // Lets the threads go on that wait for the range, after another mapping has taken its place.
  void wake(const void* p, std::size_t bytes) const;
  // Lifts all protection and lets everybody go on.
  void close();

 private:
  int fd_ = -1;
  bool full_ = false;
};

}  // namespace nh
