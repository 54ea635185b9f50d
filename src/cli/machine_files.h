// What /proc and /sys say of pools, nodes and settings, for the commands that show or change them. `root` is the
// directory that stands for "/"; "" is the real one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "numa/topology.h"

namespace nh::cli {

// A whole file, white space at its end removed; nothing where it cannot be read. At most 64 KiB of it.
std::optional<std::string> text_of(const std::string& path);
std::optional<std::uint64_t> number_in(const std::string& path);
// The word in brackets, as in "always [madvise] never"; empty where there is none.
std::string chosen_word(const std::string& path);

// The sizes of huge pages that this kernel has pools for, in KiB, ascending.
std::vector<std::uint64_t> pool_sizes(const std::string& root);

// The pool of a size on a node, in pages.
struct NodePool {
  int node = 0;
  std::string directory;  // where its counters are
  std::uint64_t total = 0, free = 0, surplus = 0;
  std::uint64_t lasting() const { return total > surplus ? total - surplus : 0; }  // what nr_hugepages was set to
};
// By node; one entry for the whole machine where the kernel knows no nodes.
std::vector<NodePool> node_pools(const std::string& root, std::uint64_t kib);
// The counters that only the whole pool has.
struct PoolPromises {
  std::int64_t reserved = 0;  // below zero by a fault of the kernel
  std::uint64_t overcommit = 0;
};
PoolPromises pool_promises(const std::string& root, std::uint64_t kib);

struct NodeState {
  std::uint64_t total = 0, free = 0;
  std::uint64_t to_be_had = 0;    // free, and half of what is pages of files
  std::uint64_t free_pieces = 0;  // of the free memory that in pieces of 2 MiB or more
};
NodeState node_state(const std::string& root, int node);

// 2M, 1G, 64K.
std::string size_name(std::uint64_t bytes);
// 1.5 GiB.
std::string human(std::uint64_t bytes);
// "0-3,5".
std::string node_list(const NodeSet& nodes);

}  // namespace nh::cli
