// A C++ program with static arrays of objects, one of them filled by a constructor before main.
#include <cstdio>
#include <numeric>
#include <vector>

#include "program_memory.h"

namespace {

constexpr std::size_t kCount = 2 << 20;  // 16 MiB of each

struct Cell {
  double value;
};
Cell g_late[kCount];
inline constinit Cell g_inline[kCount];

struct Table {
  Table() {
    for (std::size_t i = 0; i < kCount; i++) cells[i] = static_cast<double>(i);
  }
  double cells[kCount];
};
Table g_early;

}  // namespace

int main() {
  for (std::size_t i = 0; i < kCount; i++) g_late[i].value = g_inline[i].value = g_early.cells[i];
  for (Cell& cell : g_inline) cell.value *= 2;
  std::vector<Cell> copy(g_late, g_late + kCount);
  copy.insert(copy.end(), g_inline, g_inline + kCount);
  const double n = static_cast<double>(kCount);
  const double sum = std::accumulate(copy.begin(), copy.end(), 0.0, [](double s, const Cell& c) { return s + c.value; });
  demand(sum == 3 * n * (n - 1) / 2, "wrong sum");
  show_range("zeroes", g_late, sizeof g_late);
  show_range("early", &g_early, sizeof g_early);
  return 0;
}
