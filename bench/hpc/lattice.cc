// A lattice Boltzmann sweep (19 directions): each point gathers 19 values from 19 arrays, relaxes them towards their
// mean, and writes 19 others. All arrays have the same size, each is one malloc.
//
// Shows where an allocator puts equal large blocks. 38 streams that advance together compete for the same sets of every
// cache if their blocks begin at the same offset within a page: one thread of an EPYC (Zen 5) took 170 ms a sweep with
// all blocks on boundaries of 2 MiB, and 114 ms with each shifted by one more cache line of 64 B.
#include <array>
#include <bit>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kDirections = 19;
constexpr std::size_t kSide = 144;
constexpr std::size_t kPlane = kSide * kSide;
constexpr std::size_t kPoints = kSide * kPlane;  // 22.8 MiB

using Lattice = std::array<Array<double>, kDirections>;

// The offsets to the point itself, its 6 neighbours across faces and its 12 across edges.
std::array<std::ptrdiff_t, kDirections> offsets() {
  std::array<std::ptrdiff_t, kDirections> found{};
  std::size_t count = 0;
  for (int z = -1; z <= 1; z++) {
    for (int y = -1; y <= 1; y++) {
      for (int x = -1; x <= 1; x++) {
        if (x * x + y * y + z * z > 2) continue;
        found[count++] = (z * static_cast<std::ptrdiff_t>(kSide) + y) * static_cast<std::ptrdiff_t>(kSide) + x;
      }
    }
  }
  return found;
}

void sweep(const Lattice& from, const Lattice& to) {
  static const std::array<std::ptrdiff_t, kDirections> neighbour = offsets();
#pragma omp parallel for schedule(static)
  for (std::size_t z = 1; z < kSide - 1; z++) {
    for (std::size_t y = 1; y < kSide - 1; y++) {
      const std::size_t row = z * kPlane + y * kSide;
      for (std::size_t i = row + 1; i < row + kSide - 1; i++) {
        double values[kDirections];
        double sum = 0;
        for (std::size_t d = 0; d < kDirections; d++) {
          values[d] = from[d][i - static_cast<std::size_t>(neighbour[d])];
          sum += values[d];
        }
        const double mean = sum / kDirections;
        for (std::size_t d = 0; d < kDirections; d++) to[d][i] = values[d] + 0.6 * (mean - values[d]);
      }
    }
  }
}

Lattice make_lattice() {
  Lattice lattice;
  for (Array<double>& array : lattice) array = make_array<double>(kPoints);
#pragma omp parallel for schedule(static)
  for (std::size_t z = 0; z < kSide; z++) {
    for (std::size_t d = 0; d < kDirections; d++) {
      for (std::size_t i = z * kPlane; i < (z + 1) * kPlane; i++) lattice[d][i] = static_cast<double>((i + d) % 97);
    }
  }
  return lattice;
}

Result lattice(const Run& run) {
  pin_team();
  const Lattice even = make_lattice(), odd = make_lattice();
  sample_memory();
  bool forth = true;
  const double ns = median_ns(static_cast<int>(run.choose(15, 3)), [&] {
    sweep(forth ? even : odd, forth ? odd : even);
    forth = !forth;
  });
  Checksum sum;
  for (const Lattice* const each : {&even, &odd}) {
    for (const Array<double>& array : *each) {
      for (std::size_t i = 0; i < kPoints; i += 9973) sum.add(std::bit_cast<std::uint64_t>(array[i]));
    }
  }
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_lattice(Table& table) {
  table.push_back({"stencil/lattice", "ms/sweep", "lattice Boltzmann on all CPUs, 38 arrays of 23 MiB each", lattice});
}

}  // namespace bench
