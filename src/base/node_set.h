// A set of NUMA nodes, laid out as the kernel's node masks are (bit n of word n / 64).
#pragma once

#include <bit>
#include <cstdint>

#include "base/units.h"

namespace nh {

class NodeSet {
 public:
  static constexpr unsigned kBits = 1024;  // the kernel's MAX_NUMNODES on x86-64

  constexpr void add(NodeId n) { word_[index(n)] |= bit(n); }
  constexpr void remove(NodeId n) { word_[index(n)] &= ~bit(n); }
  constexpr bool has(NodeId n) const { return n.valid() && n.value < int{kBits} && (word_[index(n)] & bit(n)) != 0; }
  constexpr unsigned count() const {
    unsigned n = 0;
    for (const std::uint64_t w : word_) n += static_cast<unsigned>(std::popcount(w));
    return n;
  }
  constexpr bool empty() const { return count() == 0; }
  // The first member at or after n, or an invalid id.
  constexpr NodeId next(NodeId n) const {
    for (int i = n.value < 0 ? 0 : n.value; i < int{kBits}; i++) {
      if (has(NodeId(i))) return NodeId(i);
    }
    return NodeId();
  }
  constexpr NodeId first() const { return next(NodeId(0)); }
  constexpr const std::uint64_t* words() const { return word_; }
  constexpr std::uint64_t* words() { return word_; }
  constexpr bool operator==(const NodeSet&) const = default;
  static constexpr NodeSet of(NodeId n) {
    NodeSet s;
    s.add(n);
    return s;
  }

 private:
  static constexpr unsigned index(NodeId n) { return static_cast<unsigned>(n.value) / 64; }
  static constexpr std::uint64_t bit(NodeId n) { return std::uint64_t{1} << (static_cast<unsigned>(n.value) % 64); }
  std::uint64_t word_[kBits / 64] = {};
};

}  // namespace nh
