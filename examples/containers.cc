// Standard containers at places of one's choice.
#include <cstdio>
#include <map>
#include <memory_resource>
#include <numaheap/numaheap.hpp>
#include <numeric>
#include <string>
#include <vector>

namespace {

struct Particle {
  double position[3];
  double velocity[3];
};

// A table that all threads of all nodes read: spread over the nodes.
template <typename T>
using spread_vector = std::vector<T, numaheap::interleaved_allocator<T>>;

// What one thread works on: on that thread's node.
template <typename T>
using node_vector = std::vector<T, numaheap::node_allocator<T>>;

}  // namespace

// Particle holds no pointers. Said once, small arrays of it are packed more densely, in every container.
template <>
struct numaheap::is_noscan<Particle> : std::true_type {};

int main() {
  const int node = numaheap_local_node();
  if (node < 0) {
    std::fputs("no memory for a heap\n", stderr);
    return 1;
  }

  spread_vector<double> table(1'000'000);
  std::iota(table.begin(), table.end(), 0.0);

  node_vector<Particle> particles(10'000, Particle{}, numaheap::node_allocator<Particle>(node));
  for (std::size_t i = 0; i < particles.size(); i++) particles[i].position[0] = table[i * 100];

  // A map's nodes are allocated through the same allocator, rebound to the type of the nodes.
  using Entry = std::pair<const int, std::size_t>;
  std::map<int, std::size_t, std::less<int>, numaheap::allocator<Entry>> cells;
  for (const Particle& p : particles) cells[static_cast<int>(p.position[0] / 100'000)]++;

  // Where the type of a container must not change: a memory resource. Its strings are on the node, too.
  numaheap::memory_resource fast(numaheap::placement::bandwidth());
  std::pmr::vector<std::pmr::string> names(&fast);
  for (const auto& [cell, count] : cells) names.emplace_back("cell " + std::to_string(cell));

  std::printf("%zu particles on node %d in %zu cells, the last of which is %s\n", particles.size(), node, cells.size(),
              names.back().c_str());
  return 0;
}
