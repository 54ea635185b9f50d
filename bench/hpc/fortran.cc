// Fortran programs that allocate in their time loop; the loops are in fortran_work.f90.
//
// fortran/work-arrays: three work arrays of 8 KiB to 16 MiB per step, written, read, given back. Shows whether an
// allocator keeps such blocks or returns them to the kernel, to be faulted in and cleared at the next step.
// fortran/small-arrays: temporaries of 250 bytes to 1.6 KB that the compiler makes, in the order of a stack.
// Shows the fast path as Fortran sees it.
#include <bit>

#include "hpc/arrays.h"
#include "hpc/rows.h"

extern "C" {
double nh_fortran_work_arrays(std::int64_t steps, std::int64_t least, std::int64_t most);
double nh_fortran_small_arrays(std::int64_t steps);
}

namespace bench {
namespace {

// The value is per step; `calls` repetitions of `steps` steps each.
template <class Kernel>
Result timed(int calls, std::int64_t steps, Kernel&& kernel) {
  Checksum sum;
  const double ns = median_ns(calls, [&] { sum.add(std::bit_cast<std::uint64_t>(kernel(steps))); });
  return {ns / static_cast<double>(steps), sum.text()};
}

Result work_arrays(const Run& run) {
  constexpr std::int64_t kLeast = 1024, kMost = 2 * 1024 * 1024, kSizes = 12;
  Result result = timed(static_cast<int>(run.choose(11, 3)), 3 * kSizes,
                        [](std::int64_t steps) { return nh_fortran_work_arrays(steps, kLeast, kMost); });
  result.value /= 1e3;
  return result;
}

Result small_arrays(const Run& run) {
  return timed(static_cast<int>(run.choose(11, 3)), 2'000, nh_fortran_small_arrays);
}

}  // namespace

void add_fortran(Table& table) {
  table.push_back(
      {"fortran/work-arrays", "us/step", "three arrays of 8 KiB to 16 MiB allocated and freed per step", work_arrays});
  table.push_back(
      {"fortran/small-arrays", "ns/step", "temporaries of 250 bytes to 1.6 KB for 64 rows of a matrix", small_arrays});
}

}  // namespace bench
