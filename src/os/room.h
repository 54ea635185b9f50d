// How much ordinary memory can be had without a visit of the kernel's killer. Asked before, never tried: a call that
// faults memory in does not fail where there is none, neither on the machine nor in a memory control group, which pages of
// a hugetlb pool are not charged to.
#pragma once

#include <cstddef>

#include "base/units.h"

namespace nh {

// The least of what the machine, the memory control group, RLIMIT_AS, RLIMIT_DATA and, under vm.overcommit_memory=2, the
// commit limit leave. SIZE_MAX where the kernel tells nothing.
std::size_t room_of_process();
// The least of what the machine and the memory control group leave: for memory that is mapped already.
std::size_t room_of_machine();
// What the memory control groups alone leave.
std::size_t room_of_group();
// What a node leaves.
std::size_t room_of_node(NodeId node);

// How many threads share this process, and whether a seccomp filter judges its system calls.
struct ProcessFacts {
  std::size_t threads = 0;  // 0: not known
  bool filtered = true;     // also where that is not known
};
ProcessFacts process_facts();

}  // namespace nh
