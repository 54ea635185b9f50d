// A set of CPUs, as NodeSet is one of nodes. 1 KiB.
#pragma once

#include <bit>
#include <cstdint>

#include "base/units.h"

namespace nh {

class CpuSet {
 public:
  static constexpr unsigned kBits = kMaxCpus;

  static constexpr bool holds(CpuId c) { return c.value >= 0 && c.value < int{kBits}; }

  // c must be one that holds().
  constexpr void add(CpuId c) { word_[index(c)] |= bit(c); }
  constexpr void remove(CpuId c) { word_[index(c)] &= ~bit(c); }
  constexpr bool has(CpuId c) const { return holds(c) && (word_[index(c)] & bit(c)) != 0; }
  constexpr unsigned count() const {
    unsigned n = 0;
    for (const std::uint64_t w : word_) n += static_cast<unsigned>(std::popcount(w));
    return n;
  }
  constexpr bool empty() const { return !first().valid(); }
  // The first member at or after c, or an invalid id.
  constexpr CpuId next(CpuId c) const {
    const unsigned from = c.value < 0 ? 0 : static_cast<unsigned>(c.value);
    if (from >= kBits) return CpuId();
    std::uint64_t word = word_[from / 64] & (~std::uint64_t{0} << (from % 64));
    for (unsigned w = from / 64;;) {
      if (word != 0) return CpuId(static_cast<int>(w * 64 + static_cast<unsigned>(std::countr_zero(word))));
      if (++w == kBits / 64) return CpuId();
      word = word_[w];
    }
  }
  constexpr CpuId first() const { return next(CpuId(0)); }
  constexpr bool operator==(const CpuSet&) const = default;

 private:
  static constexpr unsigned index(CpuId c) { return static_cast<unsigned>(c.value) / 64; }
  static constexpr std::uint64_t bit(CpuId c) { return std::uint64_t{1} << (static_cast<unsigned>(c.value) % 64); }
  std::uint64_t word_[kBits / 64] = {};
};

}  // namespace nh
