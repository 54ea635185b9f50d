// Limits of the control group that this process is in, version 1 or 2 of the interface.
#pragma once

#include <cstddef>

namespace nh {

// Whether the group, or one above it, limits the huge pages of this size when they are faulted in. Such a limit is not
// looked at when a mapping reserves its pages, so that a reservation does not keep a fault from ending in SIGBUS.
// root: the directory that stands for "/", for tests; "" is the real one. Some twenty file reads; no allocation.
bool cgroup_limits_hugetlb(const char* root, std::size_t page_bytes);

}  // namespace nh
