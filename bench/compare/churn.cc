// A steady state: a fixed number of live objects, one of which is replaced at each step.
#include <algorithm>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// The live objects of one thread. They outlive the thread: the memory is measured when all threads are through.
class Slots {
 public:
  explicit Slots(std::size_t count) : slots_(count, nullptr) {}
  Slots(Slots&& other) noexcept : slots_(std::move(other.slots_)) { other.slots_.clear(); }
  Slots(const Slots&) = delete;
  ~Slots() {
    for (void* const slot : slots_) std::free(slot);
  }

  // The sum of the words found in what was freed.
  std::uint64_t replace(const MixedSizes& sizes, std::size_t steps, std::uint64_t seed) {
    Random random(seed);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < steps; i++) {
      const std::uint64_t r = random.next();
      void*& slot = slots_[static_cast<std::size_t>(((r >> 32) * slots_.size()) >> 32)];
      if (slot != nullptr) {
        sum += word_of(slot);
        std::free(slot);
      }
      slot = allocate(sizes(r));
      set_word(slot, r);
    }
    return sum;
  }

 private:
  std::vector<void*> slots_;
};

// `steps` and `live` are totals, shared out among the threads. The value is CPU time per step.
Result churn(const Run& run, std::size_t threads, std::size_t live, std::size_t steps) {
  const MixedSizes sizes;
  const std::size_t steps_each = run.scaled(steps) / threads;
  std::vector<Slots> slots;
  for (std::size_t i = 0; i < threads; i++) slots.emplace_back(live / threads);
  std::vector<std::uint64_t> sums(threads);
  // Each round goes on with the objects of the one before; the first is for warming up.
  std::vector<double> times;
  for (std::size_t round = 0; round < 4; round++) {
    const double ns = run_threads(threads, threads == cpu_count() && threads > 1, [&](std::size_t i) {
      sums[i] += slots[i].replace(sizes, steps_each, 1 + i + 1000 * round);
    });
    if (round > 0) times.push_back(ns);
  }
  sample_memory();
  Checksum sum;
  for (const std::uint64_t s : sums) sum.add(s);
  const auto cpus = static_cast<double>(std::min(threads, cpu_count()));
  return {median(times) * cpus / static_cast<double>(steps_each * threads), sum.text()};
}

}  // namespace

void add_churn(Table& table) {
  constexpr std::size_t kSteps = 4'000'000;
  const auto add = [&](const char* name, const char* what, std::size_t threads, std::size_t live) {
    table.push_back({name, "ns/op", what, [=](const Run& run) { return churn(run, threads, live, kSteps); }});
  };
  add("churn/1-thread", "mixed sizes, 4096 live objects, a random one replaced at a time", 1, 4096);
  add("churn/2-threads", "the same on two threads with 4096 objects each; CPU time", 2, 8192);
  add("crowd/2-threads", "32768 live objects shared out among 2 threads; CPU time", 2, 32768);
  add("crowd/8-threads", "32768 live objects shared out among 8 threads; CPU time", 8, 32768);
  add("crowd/32-threads", "32768 live objects shared out among 32 threads; CPU time", 32, 32768);
}

}  // namespace bench
