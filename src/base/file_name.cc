#include "base/file_name.h"

#include "base/scan.h"

namespace nh {

// Who starts the ranks of a job tells them their number in a variable of its own.
std::uint64_t rank_in(const char* const* environment) {
  for (const std::string_view name : {"PMIX_RANK=", "PMI_RANK=", "OMPI_COMM_WORLD_RANK=", "SLURM_PROCID="}) {
    for (auto v = environment; v != nullptr && *v != nullptr; v++) {
      std::string_view value(*v);
      std::uint64_t rank;
      if (take(&value, name) && take_decimal(&value, &rank)) return rank;
    }
  }
  return 0;
}

void write_file_name(TextWriter& out, std::string_view pattern, const FileNameFacts& facts) {
  for (std::size_t i = 0; i < pattern.size(); i++) {
    const char mark = pattern[i] == '%' && i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    i += mark != '\0';
    switch (mark) {
      case 'p': out.sdec(facts.pid); break;
      case 'h': out.text(facts.host); break;
      case 'e': out.text(facts.program); break;
      case 'r': out.dec(facts.rank); break;
      case '%': out.ch('%'); break;
      case '\0': out.ch(pattern[i]); break;
      default: out.ch('%').ch(mark);  // no mark of ours
    }
  }
}

}  // namespace nh
