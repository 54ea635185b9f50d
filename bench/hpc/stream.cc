// STREAM triad: a = b + s * c over arrays far larger than the caches, by all threads, each array from malloc and first
// touched by the thread that works on it.
//
// Shows two things. The arrays' pages: a hardware prefetcher stops at the end of a page, and every base page costs a
// translation. And on several nodes the placement: an allocator that touches, clears or binds a large block on the node
// of the thread that called malloc makes the others work remotely.
#include <bit>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

Result triad(const Run& run) {
  constexpr std::size_t kCount = 256 * kMiB / sizeof(double);
  const Array<double> a = make_array<double>(kCount), b = make_array<double>(kCount), c = make_array<double>(kCount);
  double* const pa = a.get();
  double* const pb = b.get();
  double* const pc = c.get();
  pin_team();
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < kCount; i++) {
    pa[i] = 0;
    pb[i] = static_cast<double>(i % 1000);
    pc[i] = 0.5;
  }
  sample_memory();
  const double ns = median_ns(static_cast<int>(run.choose(41, 7)), [&] {
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < kCount; i++) pa[i] = pb[i] + 3.0 * pc[i];
  });
  Checksum sum;
  for (std::size_t i = 0; i < kCount; i += 997) sum.add(std::bit_cast<std::uint64_t>(pa[i]));
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_stream(Table& table) {
  table.push_back({"stream/triad", "ms/pass", "a = b + s * c on all CPUs, three arrays of 256 MiB", triad});
}

}  // namespace bench
