#include "heap/size_classes.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/bits.h"

namespace nh {
namespace {

TEST(SizeClasses, TheTableIsInOrder) {
  EXPECT_EQ(kSizeClassTable[1].bytes, 8u);
  EXPECT_EQ(kSizeClassTable[kSizeClasses - 1].bytes, kMaxSmallSize);
  for (unsigned c = 1; c < kSizeClasses; c++) {
    const SizeClass& k = kSizeClassTable[c];
    const std::size_t span = k.pages * kPageSize;
    EXPECT_GT(k.bytes, kSizeClassTable[c - 1].bytes);
    EXPECT_EQ(k.bytes % 8, 0u);
    EXPECT_EQ(k.objects, span / k.bytes);
    EXPECT_LE(k.objects, kMaxObjectsPerSpan);
    EXPECT_GE(k.objects, 4u);
    EXPECT_LE(k.pages, 64u);
    const std::size_t tail = span - std::size_t{k.objects} * k.bytes;
    EXPECT_LE(tail * 8, span) << "class " << c << ": more than 12.5 % behind the last object";
    EXPECT_TRUE(tail == 0 || tail >= 16) << "class " << c << ": no room for the mark in the tail";
  }
}

TEST(SizeClasses, TheTableIsWhatTheScriptWrites) {
  const std::string source = NH_SOURCE_DIR;
  const std::string command =
      source + "/scripts/size-classes --check " + source + "/src/heap/size_classes.inc > /dev/null";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

// Every byte of every span, against division.
TEST(SizeClasses, IndexAndStartOfEveryOffset) {
  for (unsigned c = 1; c < kSizeClasses; c++) {
    const SizeClass& k = kSizeClassTable[c];
    const auto span = static_cast<std::uint32_t>(k.pages * kPageSize);
    unsigned wrong = 0;
    for (std::uint32_t offset = 0; offset < span; offset++) {
      wrong += object_index(k, offset) != offset / k.bytes;
      wrong += is_object_start(k, offset) != (offset % k.bytes == 0);
    }
    EXPECT_EQ(wrong, 0u) << "class " << c;
  }
}

TEST(SizeClasses, EveryRequestGetsTheSmallestFittingClass) {
  for (std::size_t bytes = 0; bytes <= kMaxSmallSize; bytes++) {
    unsigned plain = 2, noscan = 1;
    while (kSizeClassTable[plain].bytes < bytes || kSizeClassTable[plain].bytes % 16 != 0) plain++;
    while (kSizeClassTable[noscan].bytes < bytes) noscan++;
    ASSERT_EQ(class_for(bytes), make_span_class(plain, false)) << bytes;
    ASSERT_EQ(noscan_class_for(bytes), make_span_class(noscan, true)) << bytes;
  }
}

TEST(SizeClasses, AlignedRequests) {
  for (std::size_t alignment = 1; alignment <= 2 * kPageSize; alignment *= 2) {
    for (std::size_t bytes = 0; bytes <= kMaxSmallSize + 10; bytes += bytes < 600 ? 1 : 37) {
      unsigned want = 0;
      for (unsigned c = 2; c < kSizeClasses && want == 0; c++) {
        const std::size_t size = kSizeClassTable[c].bytes;
        if (alignment <= kPageSize && size >= bytes && size % alignment == 0 && size % 16 == 0) want = c;
      }
      for (const bool noscan : {false, true}) {
        const SpanClass got = class_for_aligned(bytes, alignment, noscan);
        if (want == 0) {
          ASSERT_TRUE(got.none()) << bytes << " aligned to " << alignment;
        } else if (alignment >= 16) {
          ASSERT_EQ(got, make_span_class(want, noscan)) << bytes << " aligned to " << alignment;
        } else {
          ASSERT_GE(size_class(got).bytes, bytes);
        }
      }
    }
  }
}

TEST(SizeClasses, WhereRoundingAligns) {
  unsigned alignments = 0;
  for (std::size_t alignment = 0; alignment <= 4 * kPageSize; alignment++) {
    if (!rounding_aligns(alignment)) continue;
    ASSERT_TRUE(is_pow2(alignment)) << alignment;
    ASSERT_LE(alignment, kPageSize);
    alignments++;
    for (std::size_t bytes = 1; bytes <= kMaxSmallSize; bytes++) {
      ASSERT_LE(align_up(bytes, alignment), kMaxSmallSize);
      ASSERT_EQ(class_for(align_up(bytes, alignment)), class_for_aligned(bytes, alignment < 16 ? 16 : alignment, false))
          << bytes << " aligned to " << alignment;
    }
  }
  EXPECT_GE(alignments, 10u) << "1 to 128, 4 KiB and 8 KiB";
  EXPECT_FALSE(rounding_aligns(256)) << "2560 bytes go to the class of 2688";
}

TEST(SizeClasses, CodesPastTheClasses) {
  EXPECT_EQ(size_class(kTinyClass).bytes, 16u);
  EXPECT_GT(kLargeClass.list(), kTinyClass.list());
  EXPECT_EQ(make_span_class(67, true).list(), kSpanClasses - 1);
}

TEST(SizeClasses, EveryClassIsOfOneSort) {
  EXPECT_TRUE(SpanClass().none());
  for (unsigned list = 2; list < kClassCodes; list++) {
    const SpanClass c(list);
    EXPECT_FALSE(c.none());
    EXPECT_EQ(c.is_small() + c.is_tiny() + c.is_large(), 1) << list;
    EXPECT_FALSE(c.is_placed());
    if (c.is_bin()) {
      EXPECT_TRUE(c.is_large());
      EXPECT_EQ(SpanClass::bin(c.row() - kSizeClasses, c.noscan()), c);
    }
    if (c.is_small()) {
      EXPECT_EQ(SpanClass::small(c.row(), c.noscan()), c);
    }
    if (!c.is_tiny() && c != kLargeClass) {
      EXPECT_EQ(c.noscan(), list % 2 == 1);
    }
  }
  EXPECT_TRUE(kTinyClass.is_tiny() && kTinyClass.noscan());
  EXPECT_FALSE(kLargeClass.is_bin());
}

TEST(SizeClasses, APlaceIsABitAboveTheClass) {
  for (unsigned code = 2; code < kSpanClasses; code++) {
    const auto c = static_cast<SpanClass>(code);
    const SpanClass placed = make_placed(c);
    EXPECT_FALSE(is_placed(c));
    EXPECT_TRUE(is_placed(placed));
    EXPECT_EQ(placed.list(), c.list());
    EXPECT_NE(placed, c);
    EXPECT_EQ(placed.noscan(), code % 2 == 1);
    EXPECT_EQ(size_class_of(placed), size_class_of(c));
    EXPECT_FALSE(is_large(placed)) << "whatever the code";
  }
}

TEST(SizeClasses, Batches) {
  for (unsigned c = 2; c < kSpanClasses; c++) {
    const unsigned n = batch_objects(static_cast<SpanClass>(c));
    const std::size_t bytes = n * std::size_t{size_class(static_cast<SpanClass>(c)).bytes};
    EXPECT_GE(n, 2u);
    EXPECT_LE(n, 256u);
    EXPECT_LE(bytes, 64 * KiB);
  }
}

}  // namespace
}  // namespace nh
