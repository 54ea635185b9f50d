#include "base/spelling.h"

#include "base/scan.h"

namespace nh {
namespace {

constexpr std::size_t kLongestCompared = 31;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::size_t rows[3][kLongestCompared + 1];
  std::size_t *before = rows[0], *last = rows[1], *now = rows[2];
  for (std::size_t j = 0; j <= b.size(); j++) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); i++) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); j++) {
      const auto same_letter = [&](std::size_t x, std::size_t y) { return to_lower(a[x]) == to_lower(b[y]); };
      const bool same = same_letter(i - 1, j - 1);
      std::size_t best = last[j - 1] + (same ? 0 : 1);
      if (last[j] + 1 < best) best = last[j] + 1;
      if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
      const bool swapped = i > 1 && j > 1 && same_letter(i - 1, j - 2) && same_letter(i - 2, j - 1);
      if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
      now[j] = best;
    }
    std::size_t* const freed = before;
    before = last;
    last = now;
    now = freed;
  }
  return last[b.size()];
}

}  // namespace

std::size_t misspelling(std::string_view written, std::string_view meant) {
  if (written.size() > kLongestCompared || meant.size() > kLongestCompared) return kNotAlike;
  const std::size_t longer = written.size() > meant.size() ? written.size() : meant.size();
  const std::size_t distance = edit_distance(written, meant);
  return distance <= (longer + 2) / 3 ? distance : kNotAlike;
}

}  // namespace nh
