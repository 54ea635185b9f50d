// Buffers of megabytes that are filled and freed, over and over.
#include "compare/blocks.h"
#include "compare/rows.h"
#include "compare/timing.h"

namespace bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// One buffer at a time.
Result one_buffer(const Run& run, std::size_t size) {
  const double ns = ns_per_operation(run, [size](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      void* const p = allocate(size);
      std::memset(p, static_cast<int>(i), size);
      keep(p);
      std::free(p);
    }
  });
  return {ns / 1e3, size_name(size)};
}

// Eight live buffers of 1 to 32 MiB, a random one replaced at a time: holes of all sizes come about.
Result mixed_buffers(const Run& run) {
  constexpr std::size_t kLive = 8;
  const std::size_t steps = run.scaled(64);
  unsigned char* live[kLive] = {};
  std::uint64_t total = 0;
  Random random(5);
  const double ns = median_ns(3, [&] {
    for (std::size_t i = 0; i < steps; i++) {
      unsigned char*& slot = live[random.below(kLive)];
      if (slot != nullptr) total += slot[kMiB / 2];
      std::free(slot);
      const std::size_t size = kMiB + random.below(31 * kMiB);
      slot = static_cast<unsigned char*>(allocate(size));
      std::memset(slot, static_cast<int>(i), size);
    }
  });
  sample_memory();
  for (void* const p : live) std::free(p);
  Checksum sum;
  sum.add(total);
  return {ns / 1e3 / static_cast<double>(steps), sum.text()};
}

}  // namespace

void add_large(Table& table) {
  for (const std::size_t size : {kMiB, 4 * kMiB, 8 * kMiB, 32 * kMiB}) {
    table.push_back({"large/" + size_name(size), "us/op", "malloc, fill, free",
                     [size](const Run& run) { return one_buffer(run, size); }});
  }
  table.push_back({"large/mixed", "us/op", "eight live buffers of 1 to 32 MiB, a random one replaced and filled",
                   mixed_buffers});
}

}  // namespace bench
