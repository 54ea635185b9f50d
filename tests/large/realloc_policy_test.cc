// realloc()'s decision, row by row.
#include "large/realloc_policy.h"

#include <gtest/gtest.h>

#include <ostream>

#include "cache/page_kinds.h"

namespace nh {
namespace {

constexpr std::size_t kStay = 0;  // in place of a size to resize to or to move to

// As on a machine with the default options: bins up to 4 MiB, first touch from there on.
constexpr LargeRoute kDefault = {4 * MiB - 1, 4 * MiB, 32 * MiB};
// NUMAHEAP_LARGE=local: no first touch.
constexpr LargeRoute kLocal = {4 * MiB, SIZE_MAX, 0};
// A process that spans nodes: touched pages from 128 KiB on, extents from 800 MiB on.
constexpr LargeRoute kSpans = {.bin_max = 128 * KiB - 1, .extent_min = 800 * MiB, .extent_max = 0, .pages_min = 128 * KiB,
                               .pages_end = 800 * MiB, .leave_from = 128 * KiB};
// One that is bound to a node.
constexpr LargeRoute kBound = {.bin_max = 4 * MiB - 1, .extent_min = 4 * MiB, .extent_max = 32 * MiB, .leave_from = 4 * MiB};
// Before start, or NUMAHEAP_LARGE_MIN at its least: no bins.
constexpr LargeRoute kNoBins = {};
constexpr LargeRoute kBest = {.bin_max = MiB - 1, .best_min = MiB, .best_max = 4 * MiB};
constexpr LargeRoute with_best(LargeRoute route, std::size_t from, std::size_t to) {
  route.best_min = from;
  route.best_max = to;
  return route;
}
constexpr LargeRoute kSpansBest = with_best(kSpans, MiB, 16 * MiB);

constexpr ReallocObject small(std::size_t usable, std::size_t below) { return {usable, below, false, false}; }
constexpr ReallocObject large(std::size_t usable) { return {usable, usable, false, false}; }
constexpr ReallocObject extent(std::size_t usable) { return {usable, usable, false, true}; }
constexpr ReallocObject placed(ReallocObject object) {
  object.placed = true;
  return object;
}

struct Row {
  const char* what;
  ReallocObject object;
  std::size_t size;
  LargeRoute route;
  bool stays;
  std::size_t resize_to, move_to;
};
std::ostream& operator<<(std::ostream& out, const Row& row) { return out << row.what; }

const Row kRows[] = {
    // Small objects.
    {"same size", small(112, 96), 112, kDefault, true, kStay, kStay},
    {"same class", small(112, 96), 97, kDefault, true, kStay, kStay},
    {"more than half", small(112, 96), 57, kDefault, true, kStay, kStay},
    {"half", small(112, 96), 56, kDefault, false, 0, 56},
    {"the smallest has no smaller one", small(16, 0), 1, kDefault, true, kStay, kStay},
    {"of no class of malloc's, more than half", small(24, 24), 13, kDefault, true, kStay, kStay},
    {"of no class of malloc's, half", small(24, 24), 12, kDefault, false, 0, 12},
    {"grows by a byte: a quarter more", small(112, 96), 113, kDefault, false, 0, 140},
    {"grows past a quarter", small(112, 96), 200, kDefault, false, 0, 200},
    {"grows to 16 KiB: still small", small(14336, 13568), 16384, kDefault, false, 0, 17920},
    {"grows above 16 KiB: the smallest large one", small(16384, 14336), 16385, kDefault, false, 0, 32769},
    {"the same without bins", small(16384, 14336), 16385, kNoBins, false, 0, 20480},
    {"the same, placed", placed(small(16384, 14336)), 16385, kDefault, false, 0, 20480},
    {"a quarter more would be large", small(28672, 27264), 28673, kNoBins, false, 0, 28673},
    {"grows to a large one", small(32768, 28672), 40000, kDefault, false, 0, 40000},

    // Large objects in bins, which sizes from 16 KiB on keep.
    {"bin: same size", {40960, 32768, false, false}, 40000, kDefault, true, kStay, kStay},
    {"bin: small, but above 16 KiB", {40960, 32768, false, false}, 16385, kDefault, true, kStay, kStay},
    {"bin: 16 KiB", {40960, 32768, false, false}, 16384, kDefault, false, 0, 16384},
    {"bin: shrinks to another", {106496, 98304, false, false}, 50000, kDefault, false, 50000, 50000},
    {"bin: grows", {106496, 98304, false, false}, 106497, kDefault, false, 106497, 106497},

    // Large objects that know no class.
    {"grows by pages", large(10 * MiB), 11 * MiB, kLocal, false, 11 * MiB, 11 * MiB},
    {"shrinks by pages", large(10 * MiB), 5 * MiB, kLocal, false, 5 * MiB, 5 * MiB},
    {"shrinks to the least by pages", large(10 * MiB), 16385, kLocal, false, 32769, 16385},
    {"shrinks to a small one", large(10 * MiB), 16384, kLocal, false, 0, 16384},

    // First touch: what fills less than half of a unit leaves.
    {"extent grows", extent(8 * MiB), 9 * MiB, kDefault, false, 9 * MiB, 9 * MiB},
    {"extent shrinks", extent(8 * MiB), 3 * MiB, kDefault, false, 3 * MiB, 3 * MiB},
    {"extent keeps more than half a unit", extent(8 * MiB), MiB + 1, kDefault, false, MiB + 1, MiB + 1},
    {"extent leaves", extent(8 * MiB), MiB, kDefault, false, 0, MiB},
    {"a size that is first touch's by option stays", extent(8 * MiB), MiB, {64 * KiB - 1, 64 * KiB, 32 * MiB}, false, MiB, MiB},

    // A process that spans nodes.
    {"grows up to the limit", large(98304), 128 * KiB - 1, kSpans, false, 128 * KiB - 1, 128 * KiB - 1},
    {"grows past the limit: moves", large(98304), 128 * KiB, kSpans, false, 0, 128 * KiB},
    {"touched pages grow", extent(256 * KiB), 64 * MiB, kSpans, false, 64 * MiB, 64 * MiB},
    {"touched pages grow where they are into what new objects have extents for", extent(700 * MiB), 900 * MiB, kSpans, false,
     900 * MiB, 900 * MiB},
    {"touched pages shrink a little", extent(256 * KiB), 100000, kSpans, false, 100000, 100000},
    {"touched pages leave", extent(256 * KiB), 65536, kSpans, false, 0, 65536},
    {"extent shrinks to what would be touched pages", extent(900 * MiB), 256 * KiB, kSpans, false, 256 * KiB, 256 * KiB},
    {"placed: grows where it was asked for", placed(large(98304)), MiB, kSpans, false, MiB, MiB},
    {"older than that the process spans nodes: shrinks", large(2 * MiB), MiB, kSpans, false, MiB, MiB},
    {"bound: grows past the limit", large(3 * MiB), 4 * MiB, kBound, false, 0, 4 * MiB},
    {"bound: grows below it", large(3 * MiB), 4 * MiB - 1, kBound, false, 4 * MiB - 1, 4 * MiB - 1},

    {"placed: stays where it was asked for", placed(extent(8 * MiB)), MiB, kDefault, false, MiB, MiB},
    {"placed: becomes small", placed(extent(8 * MiB)), 1000, kDefault, false, 0, 1000},

    // Sizes that have memory of their own: what grows into them moves there, and what lies there stays.
    {"grows into the best", {106496, 98304, false, false}, 2 * MiB, kBest, false, 0, 2 * MiB},
    {"grows past the best", {106496, 98304, false, false}, 5 * MiB, kBest, false, 5 * MiB, 5 * MiB},
    {"grows within the best", large(2 * MiB), 3 * MiB, kBest, false, 3 * MiB, 3 * MiB},
    {"placed: stays out of the best", placed(large(512 * KiB)), 2 * MiB, kBest, false, 2 * MiB, 2 * MiB},
    {"touched pages grow into the best", extent(512 * KiB), 2 * MiB, kSpansBest, false, 0, 2 * MiB},
    {"grows within the best beside touched pages", large(2 * MiB), 3 * MiB, kSpansBest, false, 3 * MiB, 3 * MiB},
    {"grows past the best to touched pages", large(16 * MiB), 17 * MiB, kSpansBest, false, 0, 17 * MiB},
    {"touched pages shrink a little where theirs are the best", extent(900 * MiB), 100000, with_best(kSpans, 64 * KiB, MiB), false,
     100000, 100000},
};

class Decides : public testing::TestWithParam<Row> {};

TEST_P(Decides, AsTheTableSays) {
  const Row& row = GetParam();
  const ReallocPlan plan = plan_realloc(row.object, row.size, row.route);
  EXPECT_EQ(plan.stay, row.stays);
  if (row.stays) return;
  EXPECT_EQ(plan.resize_to, row.resize_to);
  EXPECT_EQ(plan.move_to, row.move_to);
}
INSTANTIATE_TEST_SUITE_P(Realloc, Decides, testing::ValuesIn(kRows));

// What holds for every object and every size.
TEST(Realloc, PlansAreSound) {
  for (const LargeRoute& route : {kDefault, kLocal, kNoBins, kSpans, kBound, kSpansBest}) {
    for (std::size_t kind = 0; kind < kPageKindCount; kind++) {
      if (kSizesOfKind.most[kind] == 0) continue;
      const ReallocObject object = {kSizesOfKind.most[kind], kSizesOfKind.below[kind], false, false};
      for (std::size_t size = 1; size < 8 * MiB; size += size / 16 + 1) {
        const ReallocPlan plan = plan_realloc(object, size, route);
        if (plan.stay) { EXPECT_LE(size, object.usable); }
        if (size > object.below && size <= object.usable) { EXPECT_TRUE(plan.stay) << object.usable << " -> " << size; }
        if (plan.resize_to != 0) { EXPECT_TRUE(plan.resize_to >= size && object.usable > kMaxSmallSize); }
        EXPECT_GE(plan.move_to, size);
        EXPECT_LE(plan.move_to, size <= kMaxSmallSize ? kMaxSmallSize + 1 : size);
      }
    }
  }
}

}  // namespace
}  // namespace nh
