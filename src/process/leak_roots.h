// Where marking begins: all memory of the process that is private, readable and not the heap's.
//
// That is static data of the program and its libraries (also what the loader has made read-only), stacks and what lies above
// them (thread-local storage, libc's records of threads), and mappings of the program's own, which may hold pointers, too.
// Not: what other processes share, the heap and what belongs to it, and of a stack what lies below its pointer, where old
// pointers are. A mapping counts as a stack where the kernel says so or where inaccessible pages lie right below it.
#pragma once

#include <cstdint>

#include "os/segments.h"
#include "process/scratch.h"
#include "process/stopped_threads.h"

namespace nh {

class LeakRoots {
 public:
  // Room for as many ranges as leave_out_heap() will need now, and some more. False: no memory.
  bool prepare();
  // Both after the threads were stopped. False: it is full.
  bool leave_out(std::uintptr_t start, std::uintptr_t end);
  bool leave_out_heap();

  // Calls visit(argument, start, end) for each range. stack_pointer: the calling thread's, below which nothing counts.
  // 0, or an errno value: the mappings could not be read.
  int for_each(const StoppedThreads& threads, std::uintptr_t stack_pointer,
               void (*visit)(void* argument, std::uintptr_t start, std::uintptr_t end), void* argument);

 private:
  Scratch<AddressRange> left_out_;
};

}  // namespace nh
