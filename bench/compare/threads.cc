// Threads that come and go: what an allocator does when a thread starts and ends.
#include <thread>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// Four at a time, each of which allocates and frees `objects` objects.
Result thread_churn(const Run& run, std::size_t objects) {
  constexpr std::size_t kAtOnce = 4;
  const std::size_t groups = run.scaled(400);
  const MixedSizes sizes;
  std::uint64_t sums[kAtOnce] = {};
  const auto work = [&](std::size_t index, std::uint64_t seed) {
    Random random(seed);
    std::vector<void*> live(objects);
    for (void*& object : live) {
      const std::uint64_t r = random.next();
      object = allocate(sizes(r));
      set_word(object, r);
    }
    std::uint64_t sum = 0;
    for (void* const object : live) {
      sum += word_of(object);
      std::free(object);
    }
    sums[index] += sum;
  };
  const double ns = median_ns(3, [&] {
    for (std::size_t group = 0; group < groups; group++) {
      std::thread threads[kAtOnce];
      for (std::size_t i = 0; i < kAtOnce; i++) threads[i] = std::thread(work, i, 1 + i + kAtOnce * group);
      for (std::thread& thread : threads) thread.join();
    }
  });
  Checksum sum;
  for (const std::uint64_t s : sums) sum.add(s);
  return {ns / 1e3 / static_cast<double>(groups * kAtOnce), sum.text()};
}

}  // namespace

void add_threads(Table& table) {
  table.push_back({"threads/short", "us/op", "a thread that allocates and frees 10 objects, four at once",
                   [](const Run& run) { return thread_churn(run, 10); }});
  table.push_back({"threads/longer", "us/op", "a thread that allocates and frees 1000 objects, four at once",
                   [](const Run& run) { return thread_churn(run, 1000); }});
}

}  // namespace bench
