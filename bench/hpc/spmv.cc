// Sparse matrix times vector, compressed rows, random columns: the core of iterative solvers on unstructured meshes.
//
// Shows page size where one stream (values and columns) is regular and the other (the vector) is gathered from random
// places of 64 MiB: the gathers miss the TLB on base pages, and their walks compete with the streams for the caches.
#include <bit>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kRows = 8'000'000;

struct Matrix {
  Array<std::size_t> starts;  // kRows + 1
  Array<std::uint32_t> columns;
  Array<double> values;
};

// Rows of 3 to 11 elements.
Matrix make_matrix() {
  Matrix matrix{make_array<std::size_t>(kRows + 1), {}, {}};
  Random random(3);
  matrix.starts[0] = 0;
  for (std::size_t row = 0; row < kRows; row++) matrix.starts[row + 1] = matrix.starts[row] + 3 + random.below(9);
  matrix.columns = make_array<std::uint32_t>(matrix.starts[kRows]);
  matrix.values = make_array<double>(matrix.starts[kRows]);
#pragma omp parallel for schedule(static)
  for (std::size_t row = 0; row < kRows; row++) {
    Random own(row);
    for (std::size_t i = matrix.starts[row]; i < matrix.starts[row + 1]; i++) {
      matrix.columns[i] = static_cast<std::uint32_t>(own.below(kRows));
      matrix.values[i] = 1.0 / static_cast<double>(1 + i % 17);
    }
  }
  return matrix;
}

void multiply(const Matrix& matrix, const double* x, double* y) {
  const std::size_t* const starts = matrix.starts.get();
  const std::uint32_t* const columns = matrix.columns.get();
  const double* const values = matrix.values.get();
#pragma omp parallel for schedule(static)
  for (std::size_t row = 0; row < kRows; row++) {
    double sum = 0;
    for (std::size_t i = starts[row]; i < starts[row + 1]; i++) sum += values[i] * x[columns[i]];
    y[row] = sum;
  }
}

Result spmv(const Run& run) {
  pin_team();
  const Matrix matrix = make_matrix();
  const Array<double> x = make_array<double>(kRows), y = make_array<double>(kRows);
#pragma omp parallel for schedule(static)
  for (std::size_t row = 0; row < kRows; row++) {
    x[row] = static_cast<double>(row % 31);
    y[row] = 0;
  }
  sample_memory();
  const double ns = median_ns(static_cast<int>(run.choose(9, 1)), [&] { multiply(matrix, x.get(), y.get()); });
  Checksum sum;
  for (std::size_t row = 0; row < kRows; row += 97) sum.add(std::bit_cast<std::uint64_t>(y[row]));
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_spmv(Table& table) {
  table.push_back(
      {"spmv/random-columns", "ms", "sparse matrix times vector on all CPUs, 8 million rows of 7 elements", spmv});
}

}  // namespace bench
