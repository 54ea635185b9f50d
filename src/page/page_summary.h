// What a node of the page allocator's radix tree knows about its pages: three run lengths packed into one word.
//
//   start  free pages at the low end     [####____####__]   start 0, max 4, end 2   (_ = free)
//   max    the longest run of free pages
//   end    free pages at the high end
//
// A run never exceeds the 2^21 pages of a root node, so 21 bits each hold every value but 2^21 itself. That value
// occurs only where the whole root node is free, all three at once, and bit 63 stands for it. All-zero is a node
// without a free page: what zeroed memory says about pages that the heap does not have yet.
//
// The representation and the tree are those of the Go runtime's page allocator (mpagealloc.go); the code is ours.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace nh {

class Summary {
 public:
  static constexpr unsigned kFieldBits = 21;
  static constexpr std::size_t kMaxRun = std::size_t{1} << kFieldBits;

  constexpr Summary() = default;
  // start, end <= max <= kMaxRun; where max == kMaxRun, so are the other two.
  constexpr Summary(std::size_t start, std::size_t max, std::size_t end)
      : bits_(max == kMaxRun ? kWhole : start | max << kFieldBits | end << (2 * kFieldBits)) {}

  constexpr std::size_t start() const { return bits_ & kWhole ? kMaxRun : bits_ & kFieldMask; }
  constexpr std::size_t max() const { return bits_ & kWhole ? kMaxRun : (bits_ >> kFieldBits) & kFieldMask; }
  constexpr std::size_t end() const { return bits_ & kWhole ? kMaxRun : (bits_ >> (2 * kFieldBits)) & kFieldMask; }
  // No free page below this node.
  constexpr bool none() const { return bits_ == 0; }
  constexpr bool operator==(const Summary&) const = default;

 private:
  static constexpr std::uint64_t kWhole = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kFieldMask = kMaxRun - 1;

  std::uint64_t bits_ = 0;
};

static_assert(sizeof(Summary) == 8, "eight siblings fill one cache line");
static_assert(3 * Summary::kFieldBits == 63);

// The summary of `count` neighbours, each of which covers `pages` pages.
constexpr Summary merge(const Summary* children, std::size_t count, std::size_t pages) {
  std::size_t start = 0;
  std::size_t max = 0;
  std::size_t run = 0;  // free pages that end where the next child begins
  bool leading = true;  // only wholly free children so far
  for (std::size_t i = 0; i < count; i++) {
    const Summary child = children[i];
    const std::size_t child_start = child.start();
    if (child_start == pages) {
      run += pages;
      continue;
    }
    run += child_start;
    if (leading) start = run;
    leading = false;
    if (run > max) max = run;
    if (child.max() > max) max = child.max();
    run = child.end();
  }
  if (leading) start = run;
  if (run > max) max = run;
  return Summary(start, max, run);
}

}  // namespace nh
