// The tables that free() looks things up in, against division and the search for a class.
#include "cache/page_kinds.h"

#include <gtest/gtest.h>

namespace nh {
namespace {

// The kind of page `index` of a span of class c.
std::size_t kind_of(SpanClass c, unsigned index) { return entry_kind(make_page_entry(HeapId(0), c, index)); }

// Whatever lies in such a page takes the slow path.
bool never_starts(std::size_t kind) {
  for (std::uintptr_t p = 0; p < kPageSize; p++) {
    if (kStartTest[kind](p)) return false;
  }
  return kSizesOfKind.most[kind] == 0;
}

TEST(PageKinds, AnEntryNamesHeapClassAndPage) {
  for (const unsigned heap : {0u, 1u, kMaxHeaps - 1}) {
    for (unsigned code = 2; code < kClassCodes; code++) {
      const auto c = static_cast<SpanClass>(code);
      for (unsigned i = 0; i < named_pages(c); i++) {
        const PageEntry e = make_page_entry(HeapId(heap), c, i);
        ASSERT_EQ(entry_class(e), c);
        ASSERT_EQ(entry_index(e), i);
        ASSERT_EQ(entry_list(e), list_offset(HeapId(heap), c));
        ASSERT_NE(entry_kind(e), 0u);
        if (is_large(c)) continue;
        const PageEntry placed = make_page_entry(HeapId(heap), make_placed(c), i);
        ASSERT_EQ(entry_class(placed), make_placed(c));
        ASSERT_EQ(entry_kind(placed), entry_kind(e));
        ASSERT_EQ(entry_list(placed), entry_list(e) + kListSetBytes);
      }
    }
  }
}

// Every byte of every span of small objects, wherever the span lies.
TEST(PageKinds, AnObjectStartsAtMultiplesOfItsSize) {
  for (unsigned code = 2; code < kSpanClasses; code++) {
    const auto c = static_cast<SpanClass>(code);
    const SizeClass& size = size_class(c);
    for (unsigned i = 0; i < size.pages; i++) {
      const std::size_t kind = kind_of(c, i);
      if (!has_mark(c)) {
        EXPECT_TRUE(never_starts(kind));
        continue;
      }
      unsigned wrong = 0;
      for (std::uintptr_t at = 0; at < kPageSize; at++) {
        const bool start = (i * kPageSize + at) % size.bytes == 0;
        wrong += kStartTest[kind](at) != start;
        wrong += kStartTest[kind](0x7f1234560000 + at) != start;
      }
      EXPECT_EQ(wrong, 0u) << "class " << code << " page " << i;
    }
  }
}

TEST(PageKinds, ALargeObjectOfABinStartsWithItsPage) {
  for (unsigned code = kFirstBinList; code < kClassCodes; code++) {
    const std::size_t kind = kind_of(static_cast<SpanClass>(code), 0);
    EXPECT_TRUE(kStartTest[kind](5 * kPageSize));
    for (std::uintptr_t at = 1; at < kPageSize; at++) ASSERT_FALSE(kStartTest[kind](at)) << code << " " << at;
  }
}

TEST(PageKinds, OthersNeverStart) {
  EXPECT_TRUE(never_starts(0)) << "not in use";
  EXPECT_TRUE(never_starts(kind_of(kTinyClass, 0)));
  EXPECT_TRUE(never_starts(kind_of(kLargeClass, 0)));
}

bool may_be_deleted_as(SpanClass c, std::size_t size) {
  const std::size_t kind = kind_of(c, 0);
  return size > kSizesOfKind.below[kind] && size <= kSizesOfKind.most[kind];
}

// A sized delete goes by it; size 0 takes the slow path.
TEST(PageKinds, OneClassForEverySize) {
  for (std::size_t size = 1; size <= kMaxBinBytes; size += size < 2 * kMaxSmallSize ? 1 : 509) {
    const bool small = size <= kMaxSmallSize;
    const SpanClass right = small ? class_for(size) : bin_class(size, false);
    ASSERT_TRUE(may_be_deleted_as(right, size)) << size;
    ASSERT_TRUE(may_be_deleted_as(SpanClass(right.list() | 1), size)) << size << " noscan";
    ASSERT_FALSE(may_be_deleted_as(right, size + (std::size_t{1} << 32))) << size << " all 64 bits count";
    for (unsigned code = 2; code < kClassCodes; code++) {
      const auto c = static_cast<SpanClass>(code);
      ASSERT_EQ(may_be_deleted_as(c, size), (code | 1) == (right.list() | 1)) << size << " as " << code;
    }
  }
  EXPECT_FALSE(may_be_deleted_as(class_for(0), 0));
}

}  // namespace
}  // namespace nh
