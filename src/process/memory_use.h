// What the process has in RAM, by what it is for, on which pages and nodes: the kernel's own count, from /proc/self/smaps and,
// where there are several nodes, numa_maps. It walks over all pages, so it is for reports at exit.
#pragma once

#include "base/format.h"

namespace nh {

// Both write nothing where the kernel does not tell. One thread at a time.
void write_memory_table(TextWriter& out);
// ", "memory": [...]", objects as numaheap.h describes them.
void write_memory_json(TextWriter& out);

}  // namespace nh
