// Structures that are built, walked and torn down.
#include <memory>
#include <queue>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// --- Trees ----------------------------------------------------------------------------------------------------------

struct Node {
  std::unique_ptr<Node> left, right;
};

std::unique_ptr<Node> tree(int depth) {
  auto node = std::make_unique<Node>();
  if (depth > 0) {
    node->left = tree(depth - 1);
    node->right = tree(depth - 1);
  }
  return node;
}

std::uint64_t nodes(const Node& node) { return node.left == nullptr ? 1 : 1 + nodes(*node.left) + nodes(*node.right); }

// One tree lives on while smaller ones of growing depth come and go.
Result trees(const Run& run) {
  const int depth = run.quick ? 15 : 18;
  Checksum sum;
  const double ns = median_ns(3, [&] {
    const std::unique_ptr<Node> lasting = tree(depth);
    for (int d = 4; d <= depth; d += 2) {
      const std::size_t count = (std::size_t{1} << depth) >> d;
      for (std::size_t i = 0; i < count; i++) sum.add(nodes(*tree(d)));
    }
    sum.add(nodes(*lasting));
  });
  return {ns / 1e6, sum.text()};
}

// --- Graphs ---------------------------------------------------------------------------------------------------------

struct Vertex {
  std::vector<Vertex*> edges;
  std::uint32_t distance = UINT32_MAX;
};

// A random graph whose vertices have vectors of edges, searched breadth first.
Result graph(const Run& run) {
  const std::size_t vertices = run.scaled(200'000);
  constexpr std::size_t kEdges = 6;  // per vertex, on average
  Checksum sum;
  const double ns = median_ns(3, [&] {
    Random random(23);
    std::vector<std::unique_ptr<Vertex>> all(vertices);
    for (auto& vertex : all) vertex = std::make_unique<Vertex>();
    for (std::size_t i = 0; i < vertices * kEdges; i++) {
      all[random.below(vertices)]->edges.push_back(all[random.below(vertices)].get());
    }
    std::queue<Vertex*> todo;
    all[0]->distance = 0;
    todo.push(all[0].get());
    std::uint64_t total = 0;
    for (; !todo.empty(); todo.pop()) {
      const Vertex* const from = todo.front();
      total += from->distance;
      for (Vertex* const to : from->edges) {
        if (to->distance != UINT32_MAX) continue;
        to->distance = from->distance + 1;
        todo.push(to);
      }
    }
    sum.add(total);
  });
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_graphs(Table& table) {
  table.push_back({"graphs/trees", "ms", "binary trees of many depths come and go beside one that stays", trees});
  table.push_back({"graphs/search", "ms", "a graph with vectors of edges built, searched, torn down", graph});
}

}  // namespace bench
