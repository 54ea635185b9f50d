// Names of files that a process is asked to write, with its marks: %p process id, %h host, %e program, %r rank in an MPI or
// Slurm job (0 outside of one), %% a percent sign. The tool reads the names of other processes.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/format.h"

namespace nh {

struct FileNameFacts {
  std::int64_t pid = 0;
  std::string_view host;
  std::string_view program;
  std::uint64_t rank = 0;
};

// The rank that who started it has told a process; 0 where nobody has. environment: as for parse_options().
std::uint64_t rank_in(const char* const* environment);

void write_file_name(TextWriter& out, std::string_view pattern, const FileNameFacts& facts);

}  // namespace nh
