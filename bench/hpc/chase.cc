// Pointer chase: every load gives the address of the next one, so nothing overlaps and the full latency shows.
//
// chase/array: one large block, the translation of addresses at its worst.
// chase/nodes: a linked list of nodes that were allocated one by one. Here the allocator decides how densely small
// objects lie (headers cost cache lines) and whether they, too, are on huge pages.
#include <numeric>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

// 0 ... count - 1 in random order.
Array<std::uint32_t> shuffled(std::size_t count) {
  Array<std::uint32_t> order = make_array<std::uint32_t>(count);
  std::iota(order.get(), order.get() + count, 0u);
  Random random(7);
  for (std::size_t i = count - 1; i > 0; i--) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

struct alignas(64) Line {
  const Line* next;
  std::uint64_t index;
};

struct Node {
  const Node* next;
  std::uint64_t index;
  double load[4];  // 48 bytes in all
};

// Follows the circle a part of the way in each repetition, always onwards: no part is met twice while it is cached.
template <class Item>
Result chase(const Item* item, std::size_t hops) {
  std::uint64_t sum = 0;
  const double ns = median_ns(5, [&] {
    for (std::size_t i = 0; i < hops; i++) {
      item = item->next;
      sum += item->index;
    }
  });
  Checksum checksum;
  checksum.add(sum);
  return {ns / static_cast<double>(hops), checksum.text()};
}

Result chase_array(const Run& run) {
  constexpr std::size_t kCount = 512 * kMiB / sizeof(Line);
  const auto raw = make_array<char>(kCount * sizeof(Line) + alignof(Line));
  void* start = raw.get();
  std::size_t space = kCount * sizeof(Line) + alignof(Line);
  auto* const lines = static_cast<Line*>(std::align(alignof(Line), kCount * sizeof(Line), start, space));
  const Array<std::uint32_t> order = shuffled(kCount);
  for (std::size_t i = 0; i < kCount; i++) lines[i].index = i;
  for (std::size_t i = 0; i < kCount; i++) lines[order[i]].next = &lines[order[(i + 1) % kCount]];
  sample_memory();
  return chase(lines, run.scaled(1'200'000));
}

Result chase_nodes(const Run& run) {
  constexpr std::size_t kCount = 6'000'000;
  std::vector<Node*> nodes(kCount);
  for (std::size_t i = 0; i < kCount; i++) {
    nodes[i] = make_array<Node>(1).release();
    *nodes[i] = {nullptr, i, {}};
  }
  {
    const Array<std::uint32_t> order = shuffled(kCount);
    for (std::size_t i = 0; i < kCount; i++) nodes[order[i]]->next = nodes[order[(i + 1) % kCount]];
    sample_memory();
  }
  const Result result = chase(nodes[0], run.scaled(1'200'000));
  for (Node* const node : nodes) std::free(node);
  return result;
}

}  // namespace

void add_chase(Table& table) {
  table.push_back(
      {"chase/array", "ns/hop", "a random circle through the cache lines of a block of 512 MiB", chase_array});
  table.push_back(
      {"chase/nodes", "ns/hop", "a random circle through 6 million nodes of 48 bytes, each from malloc", chase_nodes});
}

}  // namespace bench
