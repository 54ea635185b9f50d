// Files that this process is asked to write.
#pragma once

#include "base/format.h"

namespace nh {

// The name that a pattern with marks (base/file_name.h) stands for in this process. Async-signal-safe.
void write_own_file_name(TextWriter& out, const char* pattern);

// Opens it for writing from its start, close-on-exec. The descriptor, or -errno. Not a cancellation point.
int open_to_write(const char* path);

}  // namespace nh
