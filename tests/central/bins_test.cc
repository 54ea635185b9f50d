// The sizes of large objects that CPU caches keep, and which objects get one.
#include <gtest/gtest.h>

#include <set>

#include "central/central_world.h"
#include "heap/size_classes.h"

namespace nh::test {
namespace {

std::size_t bytes_of(SpanClass c) { return size_class(c).bytes; }

// ---- geometry --------------------------------------------------------------------------------------------------------

// Every number of pages, and the bytes around its ends.
template <typename Visit>
void for_each_size(Visit visit) {
  for (std::size_t pages = kMaxSmallSize / kPageSize; pages < kMaxBinBytes / kPageSize; pages++) {
    for (const std::size_t size : {pages * kPageSize + 1, pages * kPageSize + kPageSize / 2, (pages + 1) * kPageSize}) visit(size);
  }
}

TEST(Bins, EverySizeFitsAndWastesAnEighthAtMost) {
  SpanClass last(kFirstBinList);
  for_each_size([&](std::size_t size) {
    const SpanClass c = bin_class(size, false);
    ASSERT_TRUE(is_bin(c)) << size;
    ASSERT_TRUE(is_large(c));
    ASSERT_GE(bytes_of(c), size);
    ASSERT_LE(bytes_of(c) - size, size / 8 + kPageSize) << size;
    ASSERT_GE(c.list(), last.list()) << "larger sizes never get smaller bins";
    ASSERT_LE(c.list() - last.list(), 2u) << "no bin is left out";
    last = c;
    ASSERT_EQ(bin_class(size, true), SpanClass(c.list() + 1));
    ASSERT_TRUE(bin_class(size, true).noscan());
    ASSERT_FALSE(c.noscan());
    ASSERT_EQ(bin_class(bytes_of(c), false), c) << "a bin's own size is in it";
  });
  EXPECT_EQ(last.list(), kClassCodes - 2);
  EXPECT_EQ(bin_class(kMaxSmallSize + 1, false).list(), kFirstBinList);
}

TEST(Bins, ExactUpTo16Pages) {
  for (std::size_t pages = kMaxSmallSize / kPageSize + 1; pages <= kExactBinPages; pages++) {
    EXPECT_EQ(bytes_of(bin_class(pages * kPageSize, false)), pages * kPageSize);
  }
}

TEST(Bins, CodesAreOfTheirOwnAndFitAByte) {
  EXPECT_GT(kFirstBinList, kLargeClass.list());
  EXPECT_GT(kFirstBinList, kTinyClass.list());
  EXPECT_GE(kFirstBinList, kCachedClasses);
  EXPECT_LE(kClassCodes, 256u);
  std::set<std::size_t> sizes;
  for (unsigned c = kFirstBinList; c < kClassCodes; c += 2) {
    const SizeClass& k = size_class(static_cast<SpanClass>(c));
    EXPECT_EQ(&k, &size_class(static_cast<SpanClass>(c + 1)));
    EXPECT_EQ(k.bytes, k.pages * kPageSize);
    EXPECT_EQ(k.objects, 1);
    sizes.insert(k.bytes);
    const PageEntry entry = make_page_entry(HeapId(kMaxHeaps - 1), static_cast<SpanClass>(c + 1), 0);
    EXPECT_EQ(entry_class(entry), SpanClass(c + 1));
    EXPECT_EQ(entry_index(entry), 0u);
    // Only the start of a span is the start of an object.
    EXPECT_TRUE(is_object_start(k, 0));
    for (const std::uint32_t offset : {std::uint32_t{1}, std::uint32_t{16}, std::uint32_t{kPageSize}, k.bytes - 1}) {
      EXPECT_FALSE(is_object_start(k, offset)) << c << " " << offset;
    }
  }
  EXPECT_EQ(sizes.size(), kLargeBins);
  EXPECT_FALSE(is_bin(kLargeClass));
  EXPECT_TRUE(is_large(kLargeClass));
  EXPECT_FALSE(is_large(kTinyClass));
}

// ---- who gets one ----------------------------------------------------------------------------------------------------

struct Objects {
  MSpan* alloc(std::size_t bytes, bool noscan = false, std::size_t alignment = kPageSize, HeapId h = HeapId(0)) {
    return w.heaps.alloc_large(h, bytes, alignment, noscan, Help::kNeighbours);
  }
  // What the page map says is what free() goes by.
  void expect_class(const MSpan* span, SpanClass c, std::size_t bytes) {
    EXPECT_EQ(span->span_class, c);
    EXPECT_EQ(entry_class(w.space.entry(start_of(span))), c);
    EXPECT_EQ(w.space.entry(start_of(span) + kPageSize), 0) << "only the first page is named";
    EXPECT_EQ(span->elem_size, bytes);
    EXPECT_EQ(span->pages().bytes(), bytes);
  }
  CentralWorld w{{.first_touch = true}};
};

TEST(LargeObjects, UpTo4MiBGetTheirBin) {
  Objects o;
  std::size_t n = 0, bytes = 0;
  for (const std::size_t size : {kMaxSmallSize + 1, 64 * KiB, 100 * KiB, 129 * KiB, MiB + 1, 3 * MiB, kMaxBinBytes}) {
    for (const bool noscan : {false, true}) {
      const SpanClass c = bin_class(size, noscan);
      MSpan* span = o.alloc(size, noscan);
      ASSERT_NE(span, nullptr);
      o.expect_class(span, c, bytes_of(c));
      EXPECT_EQ(span->noscan(), noscan);
      EXPECT_EQ(span->use, SpanUse::kInUse);
      n++;
      bytes += bytes_of(c);
    }
  }
  EXPECT_EQ(o.w.heap().stats().large_objects, n);
  EXPECT_EQ(o.w.heap().stats().large_bytes, bytes);
  EXPECT_TRUE(o.w.heaps.check());
}

TEST(LargeObjects, OthersGetNone) {
  Objects o;
  o.expect_class(o.alloc(kMaxBinBytes + 1), kLargeClass, kMaxBinBytes + kPageSize);
  o.expect_class(o.alloc(9 * MiB, true), kLargeClass, 9 * MiB);
  // A small one that is aligned to more than a page.
  MSpan* aligned = o.alloc(100, false, 64 * KiB);
  EXPECT_EQ(aligned->span_class, kLargeClass);
  EXPECT_EQ(aligned->npages, 1u);
  EXPECT_TRUE(is_aligned(aligned->start_addr, 64 * KiB));
}

TEST(LargeObjects, AlignedOnesGetTheirBin) {
  Objects o;
  for (std::size_t alignment = kPageSize; alignment <= 8 * MiB; alignment *= 4) {
    MSpan* span = o.alloc(700 * KiB, false, alignment);
    ASSERT_NE(span, nullptr);
    EXPECT_TRUE(is_aligned(span->start_addr, alignment));
    o.expect_class(span, bin_class(700 * KiB, false), bytes_of(bin_class(700 * KiB, false)));
  }
}

TEST(LargeObjects, ExtentsOfWholeUnitsHaveNoBin) {
  Objects o;
  for (const std::size_t size : {64 * KiB, MiB, 4 * MiB, 5 * MiB}) {
    MSpan* span = o.alloc(size, false, kPageSize, HeapId(1));
    ASSERT_NE(span, nullptr);
    o.expect_class(span, kLargeClass, align_up(size, kHugeSize));
    EXPECT_TRUE(o.w.heaps.resize_large(span, 10 * KiB * 5));
    o.expect_class(span, kLargeClass, kHugeSize);
  }
}

TEST(LargeObjects, ResizingGoesFromBinToBin) {
  Objects o;
  for (const bool noscan : {false, true}) {
    MSpan* span = o.alloc(6 * MiB, noscan);
    char* const start = start_of(span);
    for (const std::size_t size : {4 * MiB, 3 * MiB + 5, 40 * KiB + 1, MiB, 5 * MiB, 33 * KiB, 4 * MiB + 1, 64 * KiB}) {
      ASSERT_TRUE(o.w.heaps.resize_large(span, size)) << size;
      EXPECT_EQ(start_of(span), start);
      const bool binned = size <= kMaxBinBytes;
      o.expect_class(span, binned ? bin_class(size, noscan) : kLargeClass,
                     binned ? bytes_of(bin_class(size, noscan)) : align_up(size, kPageSize));
      EXPECT_EQ(span->noscan(), noscan);
      EXPECT_EQ(o.w.heap().stats().large_bytes, span->elem_size);
      ASSERT_TRUE(o.w.heaps.check());
    }
    o.w.heaps.free_large(span);
  }
  EXPECT_EQ(o.w.heap().stats().in_use_bytes, 0u);
}

TEST(LargeObjects, ARefusedResizeChangesNothing) {
  Objects o;
  MSpan* span = o.alloc(MiB);
  MSpan* behind = o.alloc(MiB);
  ASSERT_EQ(behind->start_addr, span->end_addr());
  EXPECT_FALSE(o.w.heaps.resize_large(span, 2 * MiB));
  o.expect_class(span, bin_class(MiB, false), MiB);
  EXPECT_TRUE(o.w.heaps.resize_large(span, MiB - 5)) << "the same bin";
  EXPECT_TRUE(o.w.heaps.check());
}

}  // namespace
}  // namespace nh::test
