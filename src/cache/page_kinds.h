// What free() looks up by the kind of a page (heap/page_entry.h): whether an address in it is the start of an object, and
// which sizes may be named when one of its objects is deleted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "heap/page_entry.h"

namespace nh {

// An object begins where its offset in the span, times the reciprocal of the object size, is small modulo 2^32
// (is_object_start() in heap/size_classes.h). The bias is the reciprocal times the bytes of the span before this page.
struct StartTest {
  std::uint32_t multiplier;
  std::uint32_t bias;
  // A start's product is at most its offset, any other's at least the reciprocal of 32 KiB: one bound serves all sizes. A
  // test tries every address of every kind.
  static constexpr std::uint32_t kBound = 1 << 17;
  constexpr bool operator()(std::uintptr_t p) const {
    return static_cast<std::uint32_t>(p % kPageSize) * multiplier + bias < kBound;
  }
};

// False for every address where free() must take its slow path: large objects without a bin, tiny and 8-byte objects,
// pages not in use.
inline constexpr auto kStartTest = [] {
  std::array<StartTest, kPageKindCount> table{};
  for (unsigned kind = 0; kind < kPageKindCount; kind++) {
    const SpanClass c = kPageKinds[kind].span_class();
    if (c.none() || !has_mark(c)) {
      table[kind] = {0, StartTest::kBound};
    } else if (c.is_bin()) {
      table[kind] = {StartTest::kBound * 4, 0};  // multiples of a page only, and a large object has one page in the map
      static_assert(StartTest::kBound * std::uint64_t{4} * kPageSize == std::uint64_t{1} << 32);
    } else {
      const std::uint32_t reciprocal = size_class(c).reciprocal;
      table[kind] = {reciprocal, static_cast<std::uint32_t>(kPageKinds[kind].index * kPageSize) * reciprocal};
    }
  }
  return table;
}();

// The sizes that malloc() serves from the class of the kind, or would if it were not a noscan or placed one: more than
// `below` (0 itself is left to the slow path), at most `most`. None: 0, 0.
struct SizeRange {
  std::array<std::uint64_t, kPageKindCount> below;
  std::array<std::uint64_t, kPageKindCount> most;
};
inline constexpr auto kSizesOfKind = [] {
  SizeRange range{};
  for (unsigned kind = 0; kind < kPageKindCount; kind++) {
    const SpanClass c = kPageKinds[kind].span_class();
    if (c.none() || !has_mark(c) || size_class(c).bytes % 16 != 0) continue;
    unsigned smaller = c.row() - 1;
    while (kSizeClassTable[smaller].bytes % 16 != 0) smaller--;
    range.below[kind] = kSizeClassTable[smaller].bytes;
    range.most[kind] = size_class(c).bytes;
  }
  return range;
}();

}  // namespace nh
