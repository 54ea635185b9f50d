// The wave equation on a cube of points, fourth neighbours in each direction, by all threads.
//
// Shows page size where access is regular but wide: every point reads 9 planes that lie 800 KiB apart, so each thread
// works on some 20 pages at once, in arrays of which each is one malloc.
#include <bit>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kSide = 320;
constexpr std::size_t kPlane = kSide * kSide;
constexpr std::size_t kPoints = kSide * kPlane;
constexpr std::size_t kRadius = 4;
constexpr double kWeights[kRadius + 1] = {-205.0 / 72, 8.0 / 5, -1.0 / 5, 8.0 / 315, -1.0 / 560};  // second derivative

// One step in time: `past` becomes the future.
void step(double* past, const double* now, const double* speed) {
#pragma omp parallel for schedule(static)
  for (std::size_t z = kRadius; z < kSide - kRadius; z++) {
    for (std::size_t y = kRadius; y < kSide - kRadius; y++) {
      const std::size_t row = z * kPlane + y * kSide;
#pragma omp simd
      for (std::size_t i = row + kRadius; i < row + kSide - kRadius; i++) {
        double laplacian = 3 * kWeights[0] * now[i];
        for (std::size_t r = 1; r <= kRadius; r++) {
          laplacian += kWeights[r] * (now[i - r] + now[i + r] + now[i - r * kSide] + now[i + r * kSide] +
                                      now[i - r * kPlane] + now[i + r * kPlane]);
        }
        past[i] = 2 * now[i] - past[i] + speed[i] * laplacian;
      }
    }
  }
}

Result wave(const Run& run) {
  const Array<double> first = make_array<double>(kPoints), second = make_array<double>(kPoints);
  const Array<double> speeds = make_array<double>(kPoints);
  double* past = first.get();
  double* now = second.get();
  double* const speed = speeds.get();
  pin_team();
#pragma omp parallel for schedule(static)
  for (std::size_t z = 0; z < kSide; z++) {  // as the steps share it out
    for (std::size_t i = z * kPlane; i < (z + 1) * kPlane; i++) {
      past[i] = now[i] = static_cast<double>(i % 61) * 1e-3;
      speed[i] = 0.05 + static_cast<double>(i % 7) * 1e-3;
    }
  }
  sample_memory();
  const double ns = median_ns(static_cast<int>(run.choose(11, 3)), [&] {
    step(past, now, speed);
    std::swap(past, now);
  });
  Checksum sum;
  for (std::size_t i = 0; i < kPoints; i += 997) sum.add(std::bit_cast<std::uint64_t>(now[i]));
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_stencil(Table& table) {
  table.push_back({"stencil/wave", "ms/step", "25-point stencil on all CPUs, three arrays of 250 MiB", wave});
}

}  // namespace bench
