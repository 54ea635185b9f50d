// Monte Carlo transport's inner loop: cross sections of a material at a random energy. A binary search in one grid of
// all energies gives the place in each nuclide's own table, two neighbouring entries of which are interpolated.
//
// Shows page size for scattered reads of a few cache lines: the grid's index is one block of 300 MiB, the nuclides'
// tables are 96 blocks of 384 KiB, as a program gets them that reads one nuclide after the other.
#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kNuclides = 96;
constexpr std::size_t kEntries = 8192;
constexpr std::size_t kReactions = 5;

struct Entry {
  double energy;
  double sections[kReactions];
};

struct Tables {
  std::array<std::vector<Entry>, kNuclides> nuclides;  // each by rising energy
  std::vector<double> grid;                            // every energy of all nuclides
  Array<std::uint32_t> index;  // per energy of the grid and nuclide: its last entry at or below, at most kEntries - 2
};

Tables make_tables() {
  Tables tables;
  Random random(5);
  for (std::vector<Entry>& nuclide : tables.nuclides) {
    nuclide.resize(kEntries);
    for (Entry& entry : nuclide) {
      entry.energy = random_real(random);
      for (double& section : entry.sections) section = random_real(random);
    }
    std::sort(nuclide.begin(), nuclide.end(), [](const Entry& a, const Entry& b) { return a.energy < b.energy; });
    nuclide.front().energy = 0;
    for (const Entry& entry : nuclide) tables.grid.push_back(entry.energy);
  }
  std::sort(tables.grid.begin(), tables.grid.end());
  tables.index = make_array<std::uint32_t>(tables.grid.size() * kNuclides);
  std::array<std::uint32_t, kNuclides> at{};
  for (std::size_t point = 0; point < tables.grid.size(); point++) {
    for (std::size_t n = 0; n < kNuclides; n++) {
      while (at[n] + 2 < kEntries && tables.nuclides[n][at[n] + 1].energy <= tables.grid[point]) at[n]++;
      tables.index[point * kNuclides + n] = at[n];
    }
  }
  return tables;
}

// How many nuclides a material has and how often particles are in it: fuel, cladding, water, steel, air.
struct Material {
  std::size_t nuclides;
  std::size_t percent;
};
constexpr Material kMaterials[] = {{64, 14}, {5, 18}, {4, 38}, {25, 20}, {12, 10}};

const Material& pick_material(Random& random) {
  std::size_t percent = random.below(100);
  for (const Material& material : kMaterials) {
    if (percent < material.percent) return material;
    percent -= material.percent;
  }
  return kMaterials[0];
}

std::uint64_t look_up(const Tables& tables, std::uint64_t particle) {
  Random random(particle);
  const double energy = random_real(random);
  const std::size_t nuclides = pick_material(random).nuclides;
  const std::size_t first = random.below(kNuclides - nuclides + 1);
  const auto above = std::upper_bound(tables.grid.begin() + 1, tables.grid.end(), energy);
  const auto point = static_cast<std::size_t>(above - tables.grid.begin()) - 1;
  const std::uint32_t* const index = &tables.index[point * kNuclides];
  double totals[kReactions] = {};
  for (std::size_t n = first; n < first + nuclides; n++) {
    const Entry& low = tables.nuclides[n][index[n]];
    const Entry& high = tables.nuclides[n][index[n] + 1];
    const double share = (energy - low.energy) / (high.energy - low.energy);
    for (std::size_t r = 0; r < kReactions; r++) {
      totals[r] += low.sections[r] + share * (high.sections[r] - low.sections[r]);
    }
  }
  return std::bit_cast<std::uint64_t>(std::accumulate(totals, totals + kReactions, 0.0));
}

Result lookups(const Run& run) {
  const Tables tables = make_tables();
  sample_memory();
  pin_team();
  const std::size_t count = run.scaled(800'000);
  std::uint64_t particle = 1, sum = 0;
  const double ns = median_ns(5, [&] {
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (std::size_t i = particle; i < particle + count; i++) sum += look_up(tables, i);
    particle += count;
  });
  Checksum checksum;
  checksum.add(sum);
  return {ns / static_cast<double>(count), checksum.text()};
}

}  // namespace

void add_lookup(Table& table) {
  table.push_back(
      {"lookup/cross-sections", "ns/lookup", "Monte Carlo lookups on all CPUs in 350 MiB of tables", lookups});
}

}  // namespace bench
