// Names of files that a process is asked to write, with its marks: %p process id, %h host, %e program, %r rank in an MPI or
// Slurm job (0 outside of one), %% a percent sign.
#pragma once

#include "base/format.h"

namespace nh {

void write_file_name(TextWriter& out, const char* pattern);

// Opens it for writing from its start, close-on-exec. The descriptor, or -errno. Not a cancellation point.
int open_to_write(const char* path);

}  // namespace nh
