// The parts of the program and its libraries that the loader has mapped, and calls for their pages that no heap needs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "base/units.h"

namespace nh {

struct AddressRange {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  std::size_t bytes() const { return end > start ? end - start : 0; }
  void* begin() const { return reinterpret_cast<void*>(start); }
  bool contains(std::uintptr_t at) const { return at >= start && at < end; }
  // The huge pages that lie inside as a whole.
  AddressRange whole_huge_pages() const { return {align_up(start, kHugeSize), align_down(end, kHugeSize)}; }
};

// A segment as the loader leaves it: what is in the file, then zeroes that are anonymous memory. Whole OS pages.
struct Segment {
  AddressRange file;
  AddressRange zeroes;
  bool writable = false;  // what becomes read-only after relocation is left out
  bool executable = false;
};

// Calls visit(argument, segment) for what is writable or executable in the program and in the libraries that are loaded.
// Takes the loader's lock: to be called with no lock of ours held, and not while the heap starts.
void for_each_segment(void (*visit)(void* argument, const Segment& segment), void* argument);

// The rest returns 0 or an errno value.

// Makes anonymous memory executable and read-only. EACCES: the machine's security policy forbids it.
int make_executable(void* p, std::size_t bytes);
// Gathers the pages of a mapping of a file in huge pages of the page cache, which all processes share (MADV_COLLAPSE,
// Linux 6.1). EINVAL: the file does not lie in memory in such a way, or its filesystem is not one for which the kernel does it.
int collapse(void* p, std::size_t bytes);

// The stack of the thread that main() runs on, as far as it reaches now. Empty where the kernel does not tell.
AddressRange main_stack();

}  // namespace nh
