// System calls without libc around them: nothing is stored, not even errno, and no hook of another library runs.
//
// For code that runs while memory of the process is write-protected (page_mover.h): whoever does the protecting would
// wait for itself if it stored there, and errno may lie there as well as anything else.
#pragma once

#include <cstdint>

namespace nh::linux_os_detail {

// What the kernel returns: -1 to -4095 are errno values. Pointers go in as numbers.
inline long raw_call(long number, std::uintptr_t a = 0, std::uintptr_t b = 0, std::uintptr_t c = 0, std::uintptr_t d = 0,
                     std::uintptr_t e = 0) {
  long result;
  register std::uintptr_t fourth asm("r10") = d;
  register std::uintptr_t fifth asm("r8") = e;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace nh::linux_os_detail
