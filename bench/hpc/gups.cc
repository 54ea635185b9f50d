// Random access (GUPS): a word of a table far larger than the caches is updated, then another one somewhere else.
//
// Shows the translation of addresses. With base pages nearly every update misses the TLB and reads page-table entries
// from memory, in a virtual machine those of guest and host; with huge pages the table's entries fit. The allocator
// decides by what backs a large malloc.
#include <unistd.h>

#include <array>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

// The update sequence of the HPC Challenge: 128 streams from a shift register with feedback, so that many updates are
// under way at once. One thread: updates of several would need atomic instructions, which do not overlap, or lose some.
class Streams {
 public:
  Streams() {
    Random random(1);
    for (std::uint64_t& value : values_) value = random.next();
  }

  void update(std::uint64_t* table, std::size_t mask, std::size_t rounds) {
    for (std::size_t round = 0; round < rounds; round++) {
      for (std::uint64_t& value : values_) value = (value << 1) ^ ((value >> 63) * 7);
      for (const std::uint64_t value : values_) table[value & mask] ^= value;
    }
  }

  static constexpr std::size_t kCount = 128;

 private:
  std::array<std::uint64_t, kCount> values_;
};

Result gups(const Run& run, std::size_t bytes) {
  const std::size_t words = bytes / sizeof(std::uint64_t);
  const std::size_t rounds = run.scaled(150'000);
  const Array<std::uint64_t> table = make_array<std::uint64_t>(words);
  for (std::size_t i = 0; i < words; i++) table[i] = i;
  sample_memory();
  Streams streams;
  const double ns = median_ns(5, [&] { streams.update(table.get(), words - 1, rounds); });
  Checksum sum;
  for (std::size_t i = 0; i < words; i += 61) sum.add(table[i]);
  return {ns / static_cast<double>(rounds * Streams::kCount), sum.text()};
}

// A table that fills more than two thirds of the machine would measure its neighbours.
bool fits(std::size_t bytes) {
  return bytes / 2 * 3 <=
         static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

void add_gups(Table& table) {
  for (const std::size_t gib : {2u, 4u, 8u}) {
    if (!fits(gib * kGiB)) continue;
    table.push_back({"gups/" + std::to_string(gib) + "g", "ns/update",
                     "random 8-byte updates of a table of " + std::to_string(gib) + " GiB",
                     [gib](const Run& run) { return gups(run, gib * kGiB); }});
  }
}

}  // namespace bench
