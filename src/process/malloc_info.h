// glibc's own interfaces for statistics.
#pragma once

#include <malloc.h>

namespace nh {

struct mallinfo2 collect_mallinfo();
void write_malloc_stats();
int write_malloc_info(int options, FILE* stream);

}  // namespace nh
