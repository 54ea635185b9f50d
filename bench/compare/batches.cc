// A thousand objects allocated, then freed in one of three orders.
#include <algorithm>
#include <numeric>

#include "compare/blocks.h"
#include "compare/rows.h"
#include "compare/timing.h"

namespace bench {
namespace {

constexpr std::size_t kBatch = 1000;

enum class Order { lifo, fifo, random };

// In which order the objects are freed, by their number of allocation.
std::vector<std::uint32_t> positions(Order order) {
  std::vector<std::uint32_t> out(kBatch);
  std::iota(out.begin(), out.end(), 0u);
  if (order == Order::lifo) std::reverse(out.begin(), out.end());
  if (order == Order::random) {
    Random random(7);
    for (std::size_t i = kBatch - 1; i > 0; i--) std::swap(out[i], out[random.below(i + 1)]);
  }
  return out;
}

Result batches(const Run& run, Order order, const std::vector<std::size_t>& sizes) {
  const std::vector<std::uint32_t> freed = positions(order);
  std::vector<void*> objects(kBatch);
  std::string wrong;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      for (std::size_t k = 0; k < kBatch; k++) {
        objects[k] = allocate(sizes[k]);
        set_word(objects[k], k);
      }
      for (const std::uint32_t k : freed) {
        if (word_of(objects[k]) != k) [[unlikely]] wrong = "overwritten";
        std::free(objects[k]);
      }
    }
  });
  return {ns / kBatch, wrong.empty() ? "intact" : wrong};
}

}  // namespace

void add_batches(Table& table) {
  const std::vector<std::size_t> equal(kBatch, 64);
  std::vector<std::size_t> mixed(kBatch);
  const MixedSizes sizes;
  Random random(11);
  for (std::size_t& size : mixed) size = sizes(random.next() >> 32);
  const auto add = [&](const char* name, const char* what, Order order, const std::vector<std::size_t>& of) {
    table.push_back({name, "ns/op", what, [=](const Run& run) { return batches(run, order, of); }});
  };
  add("batch/lifo-64", "1000 objects of 64 bytes, the last freed first", Order::lifo, equal);
  add("batch/fifo-64", "1000 objects of 64 bytes, the first freed first", Order::fifo, equal);
  add("batch/random-64", "1000 objects of 64 bytes, freed in random order", Order::random, equal);
  add("batch/lifo-mixed", "1000 objects of mixed sizes, the last freed first", Order::lifo, mixed);
  add("batch/fifo-mixed", "1000 objects of mixed sizes, the first freed first", Order::fifo, mixed);
  add("batch/random-mixed", "1000 objects of mixed sizes, freed in random order", Order::random, mixed);
}

}  // namespace bench
