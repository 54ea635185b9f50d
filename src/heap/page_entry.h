// What the page map says of a page, in 32 bits, in the form in which free() needs it.
//
//   bits  0 - 21   where the free list of its heap and class lies in a CPU's cache
//   bits 22 - 31   its kind: the class of its span, and how many of the span's pages come before this one
//
// Spans of small objects have few pages and large objects are known by their first page only, so there are a few hundred
// kinds. Their number is the index of the tables of cache/page_kinds.h.
//
// Of the caches this layer knows no more than where a list lies, since the entry is made when a span is published.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "heap/mspan.h"
#include "heap/size_classes.h"

namespace nh {

using PageEntry = std::uint32_t;  // 0 = the page is not in use

// A CPU's cache has two sets of lists per heap, the second for placed objects, and in a set one list per class.
inline constexpr unsigned kListSetsPerHeap = 2;
inline constexpr std::size_t kListBytes = 16;
inline constexpr std::size_t kListSetBytes = kClassCodes * kListBytes;
constexpr unsigned list_set(HeapId h, bool placed) { return h.value * kListSetsPerHeap + (placed ? 1 : 0); }
constexpr std::size_t offset_in_set(SpanClass c) { return c.list() * kListBytes; }
// From a CPU's first set.
constexpr std::size_t list_offset(HeapId h, SpanClass c) {
  return list_set(h, c.is_placed()) * kListSetBytes + offset_in_set(c);
}

inline constexpr unsigned kEntryListBits = 22;
static_assert(list_offset(HeapId(kMaxHeaps), SpanClass()) <= std::size_t{1} << kEntryListBits);

struct PageKind {
  std::uint8_t list;   // of its span's class; 0 = not in use
  std::uint8_t index;  // pages of the span before this one
  constexpr SpanClass span_class() const { return SpanClass(list); }  // but for the place
};

namespace detail {
constexpr unsigned kinds_of(SpanClass c) { return c.none() || c.is_large() ? 1 : size_class(c).pages; }
// List -> its first kind; behind the last list, the number of all.
inline constexpr auto kFirstKind = [] {
  std::array<std::uint16_t, kClassCodes + 1> first{};
  for (unsigned list = 0; list < kClassCodes; list++) {
    first[list + 1] = static_cast<std::uint16_t>(first[list] + kinds_of(SpanClass(list)));
  }
  return first;
}();
}  // namespace detail

inline constexpr unsigned kPageKindCount = detail::kFirstKind[kClassCodes];
static_assert(kPageKindCount <= 1 << (32 - kEntryListBits));

inline constexpr auto kPageKinds = [] {
  std::array<PageKind, kPageKindCount> kinds{};
  for (unsigned list = 0; list < kClassCodes; list++) {
    for (unsigned i = 0; i < detail::kinds_of(SpanClass(list)); i++) {
      kinds[detail::kFirstKind[list] + i] = {static_cast<std::uint8_t>(list), static_cast<std::uint8_t>(i)};
    }
  }
  return kinds;
}();

// How many pages of a span of this class the map names.
constexpr unsigned named_pages(SpanClass c) { return detail::kinds_of(c); }

// Of the page of a span of class c that has `index` pages of the span before it.
constexpr PageEntry make_page_entry(HeapId h, SpanClass c, unsigned index) {
  const std::size_t kind = detail::kFirstKind[c.list()] + std::size_t{index};
  return static_cast<PageEntry>(list_offset(h, c) | kind << kEntryListBits);
}
constexpr std::size_t entry_list(PageEntry e) { return e & ((PageEntry{1} << kEntryListBits) - 1); }
constexpr std::size_t entry_kind(PageEntry e) { return e >> kEntryListBits; }
constexpr SpanClass entry_class(PageEntry e) {
  const SpanClass c = kPageKinds[entry_kind(e)].span_class();
  return (entry_list(e) / kListSetBytes) % kListSetsPerHeap != 0 ? c.placed() : c;
}
constexpr unsigned entry_index(PageEntry e) { return kPageKinds[entry_kind(e)].index; }

}  // namespace nh
