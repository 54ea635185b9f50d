#include "cli/palette.h"

#include <algorithm>

namespace nh::cli {

std::vector<unsigned> share_out(const std::vector<std::uint64_t>& parts, std::uint64_t whole, unsigned cells) {
  std::vector<unsigned> shares(parts.size(), 0);
  if (whole == 0) return shares;
  // Each border between two parts is rounded, so that the sum is right whatever the parts are.
  double sum = 0;
  unsigned given = 0;
  for (std::size_t i = 0; i < parts.size(); i++) {
    sum += static_cast<double>(parts[i]);
    const auto until = static_cast<unsigned>(sum / static_cast<double>(whole) * cells + 0.5);
    shares[i] = std::min(until, cells) - std::min(given, cells);
    given = std::max(given, until);
  }
  for (std::size_t i = 0; i < parts.size(); i++) {
    if (parts[i] == 0 || shares[i] != 0) continue;
    const auto most = std::max_element(shares.begin(), shares.end());
    if (*most < 2) {
      if (std::min(given, cells) < cells) shares[i] = 1, given++;
      continue;
    }
    --*most;
    shares[i] = 1;
  }
  return shares;
}

}  // namespace nh::cli
