// Particles in cells (direct simulation Monte Carlo): in every step the particles of each cell collide in random pairs,
// move, and change cells. A million particles, a vector per cell, all CPUs.
//
// Shows a heap in the middle of a parallel computation. Per step and cell a list of pairs and one of leavers come and
// go, and the vectors of cells grow and shrink on whichever thread has the cell: small and medium sizes, mixed, freed
// on other threads than they came from. And locality: what an allocator hands out next is what the next cell works on.
#include <algorithm>
#include <bit>
#include <cmath>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kSide = 32;
constexpr std::size_t kCells = kSide * kSide * kSide;
constexpr std::size_t kParticles = 1'000'000;

// In units of a cell; space is periodic. Nothing moves further than a cell in one step.
struct Particle {
  double place[3];
  double velocity[3];
  double weight;
  std::uint64_t id;
};

struct Leaver {
  std::size_t cell;  // where it goes
  Particle particle;
};

using Cell = std::vector<Particle>;

double wrapped(double place) {
  constexpr double kLength = kSide;
  if (place < 0) place += kLength;
  return place >= kLength ? place - kLength : place;
}

std::size_t cell_of(const Particle& p) {
  const auto part = [](double place) { return std::min(static_cast<std::size_t>(place), kSide - 1); };
  return (part(p.place[2]) * kSide + part(p.place[1])) * kSide + part(p.place[0]);
}

// Random pairs exchange their velocities' component along a random axis.
void collide(Cell& cell, Random& random) {
  struct Pair {
    std::size_t first, second;
    int axis;
  };
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < cell.size() / 2; i++) {
    const Pair pair{random.below(cell.size()), random.below(cell.size()), static_cast<int>(random.below(3))};
    if (pair.first != pair.second) pairs.push_back(pair);
  }
  for (const Pair& pair : pairs) {
    std::swap(cell[pair.first].velocity[pair.axis], cell[pair.second].velocity[pair.axis]);
  }
}

// Moves the particles of a cell; those that leave it are taken out and returned. A swirl around the middle and a pull
// towards it change the density from place to place and from step to step.
std::vector<Leaver> drift(Cell& cell, std::size_t index) {
  constexpr double kMiddle = kSide / 2.0, kStep = 0.1;
  std::vector<Leaver> leavers;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < cell.size(); i++) {
    Particle p = cell[i];
    const double x = p.place[0] - kMiddle, y = p.place[1] - kMiddle, z = p.place[2] - kMiddle;
    p.velocity[0] += kStep * (-y - x) / kSide;
    p.velocity[1] += kStep * (x - y) / kSide;
    p.velocity[2] -= kStep * z / kSide;
    for (int axis = 0; axis < 3; axis++) {
      p.velocity[axis] = std::clamp(p.velocity[axis], -9.0, 9.0);
      p.place[axis] = wrapped(p.place[axis] + kStep * p.velocity[axis]);
    }
    const std::size_t target = cell_of(p);
    if (target == index) {
      cell[kept++] = p;
    } else {
      leavers.push_back({target, p});
    }
  }
  cell.resize(kept);
  if (cell.capacity() > 2 * kept + 8) cell.shrink_to_fit();
  return leavers;
}

// Takes in what leaves the neighbours for this cell, always in the same order.
void arrive(Cell& cell, std::size_t index, const std::vector<std::vector<Leaver>>& leaving) {
  const std::size_t x = index % kSide, y = index / kSide % kSide, z = index / kSide / kSide;
  for (std::size_t dz = kSide - 1; dz <= kSide + 1; dz++) {
    for (std::size_t dy = kSide - 1; dy <= kSide + 1; dy++) {
      for (std::size_t dx = kSide - 1; dx <= kSide + 1; dx++) {
        const std::size_t from = ((z + dz) % kSide * kSide + (y + dy) % kSide) * kSide + (x + dx) % kSide;
        for (const Leaver& leaver : leaving[from]) {
          if (leaver.cell == index) cell.push_back(leaver.particle);
        }
      }
    }
  }
}

void step(std::vector<Cell>& cells, std::size_t number) {
  std::vector<std::vector<Leaver>> leaving(kCells);
#pragma omp parallel
  {
#pragma omp for schedule(dynamic, 64)
    for (std::size_t i = 0; i < kCells; i++) {
      Random random(number * kCells + i);
      collide(cells[i], random);
      leaving[i] = drift(cells[i], i);
    }
#pragma omp for schedule(dynamic, 64)
    for (std::size_t i = 0; i < kCells; i++) arrive(cells[i], i, leaving);
#pragma omp for schedule(dynamic, 64)
    for (std::size_t i = 0; i < kCells; i++) std::vector<Leaver>().swap(leaving[i]);
  }
}

Result particles(const Run& run) {
  std::vector<Cell> cells(kCells);
  Random random(11);
  for (std::size_t id = 0; id < kParticles; id++) {
    Particle p{{}, {}, 1.0, id};
    for (int axis = 0; axis < 3; axis++) {
      p.place[axis] = kSide * (random_real(random) + random_real(random)) / 2;  // denser in the middle
      p.velocity[axis] = 4 * random_real(random) - 2;
    }
    cells[cell_of(p)].push_back(p);
  }
  pin_team();
  std::size_t number = 0;
  const double ns = median_ns(static_cast<int>(run.choose(25, 5)), [&] { step(cells, number++); });
  sample_memory();
  Checksum sum;
  for (const Cell& cell : cells) {
    for (const Particle& p : cell) {
      sum.add(p.id);
      sum.add(std::bit_cast<std::uint64_t>(p.place[0]));
    }
  }
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_particles(Table& table) {
  table.push_back(
      {"particles/cells", "ms/step", "a million particles in 32768 vectors that grow and shrink, all CPUs", particles});
}

}  // namespace bench
