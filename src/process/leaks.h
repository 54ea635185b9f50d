// Leaks: objects in use that nothing points to any more (leak_marking.h), as figures and as a report.
#pragma once

#include <numaheap/numaheap.h>

namespace nh {

// Finds them, and writes a report to a descriptor, where it is not negative. 0 or an errno value. Allocates nothing from the
// heap. Holds no lock of the heap's, and is not for signal handlers.
int find_leaks(numaheap_leaks* leaks, int fd);

// At exit: what NUMAHEAP_LEAKS asks for.
void leaks_at_exit();

// In a fork child: another thread may have been looking.
void repair_leaks_after_fork();

}  // namespace nh
