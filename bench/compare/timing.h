// Time per operation of something too short to be timed alone.
#pragma once

#include <algorithm>

#include "common/workload.h"

namespace bench {

// Nanoseconds per operation of `body(count)`, which performs count operations: the median of nine repetitions of about
// 15 ms (3 ms in quick form). How many operations that are is found out first, so the figure is as good for slow
// allocators as for fast ones; a check sum must not depend on it.
template <class Body>
double ns_per_operation(const Run& run, Body&& body) {
  const double target = run.quick ? 3e6 : 15e6;
  const auto time = [&](std::size_t count) {
    const std::uint64_t start = now_ns();
    body(count);
    return static_cast<double>(now_ns() - start);
  };
  time(1);  // what only the first costs
  std::size_t count = 1;
  for (;;) {
    // The best of three: an interruption must not look like a slow operation.
    const double best = std::max(1.0, std::min({time(count), time(count), time(count)}));
    if (best >= target / 4) {
      count = std::max<std::size_t>(1, static_cast<std::size_t>(static_cast<double>(count) * target / best));
      break;
    }
    const double factor = std::min(100.0, target / 2 / best);
    count = static_cast<std::size_t>(static_cast<double>(count) * factor) + 1;
  }
  return median_ns(9, [&] { body(count); }) / static_cast<double>(count);
}

}  // namespace bench
