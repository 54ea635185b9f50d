// What the page map says of a page, in 32 bits, in the form in which free() needs it.
//
//   bits  0 - 21   where the free lists of its heap and class lie in a CPU's cache: heap and class are numbered through,
//                  and kListBytes apart
//   bits 22 - 31   its kind: the class of its span, and how many of the span's pages come before this one
//
// Spans of small objects have few pages and large objects are known by their first page only, so there are a few hundred
// kinds. Their number is the index of the tables of cache/page_kinds.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "heap/mspan.h"
#include "heap/size_classes.h"

namespace nh {

using PageEntry = std::uint32_t;  // 0 = the page is not in use

inline constexpr std::size_t kListBytes = 16;
inline constexpr unsigned kEntryListBits = 22;
static_assert(std::size_t{kMaxHeaps} * kClassCodes * kListBytes <= std::size_t{1} << kEntryListBits);

struct PageKind {
  std::uint8_t code;   // span class, kPlacedCode for every placed one; 0 = not in use
  std::uint8_t index;  // pages of the span before this one
};

namespace detail {
constexpr unsigned kinds_of(unsigned code) {
  if (code == 0 || code >= kLargeClass) return 1;
  return code == kPlacedCode ? kMaxSpanPages : size_class(static_cast<SpanClass>(code)).pages;
}
// Code -> its first kind; behind the last code, the number of all.
inline constexpr auto kFirstKind = [] {
  std::array<std::uint16_t, kClassCodes + 1> first{};
  for (unsigned code = 0; code < kClassCodes; code++) first[code + 1] = static_cast<std::uint16_t>(first[code] + kinds_of(code));
  return first;
}();
}  // namespace detail

inline constexpr unsigned kPageKindCount = detail::kFirstKind[kClassCodes];
static_assert(kPageKindCount <= 1 << (32 - kEntryListBits));

inline constexpr auto kPageKinds = [] {
  std::array<PageKind, kPageKindCount> kinds{};
  for (unsigned code = 0; code < kClassCodes; code++) {
    for (unsigned i = 0; i < detail::kinds_of(code); i++) {
      kinds[detail::kFirstKind[code] + i] = {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(i)};
    }
  }
  return kinds;
}();

// How many pages of a span of this class the map names.
constexpr unsigned named_pages(SpanClass c, unsigned pages) { return is_large(c) ? 1 : pages; }
// Whether a span of this class may have so many pages.
constexpr bool can_name(SpanClass c, unsigned pages) {
  return named_pages(c, pages) <= detail::kinds_of(is_placed(c) ? kPlacedCode : c);
}

// Of the page of a span of class c that has `index` pages of the span before it.
constexpr PageEntry make_page_entry(HeapId h, SpanClass c, unsigned index) {
  const unsigned code = is_placed(c) ? kPlacedCode : c;
  const std::size_t list = (std::size_t{h.value} * kClassCodes + code) * kListBytes;
  return static_cast<PageEntry>(list | std::size_t{detail::kFirstKind[code] + index} << kEntryListBits);
}
constexpr std::size_t entry_list(PageEntry e) { return e & ((PageEntry{1} << kEntryListBits) - 1); }
constexpr std::size_t entry_kind(PageEntry e) { return e >> kEntryListBits; }
constexpr SpanClass entry_class(PageEntry e) { return kPageKinds[entry_kind(e)].code; }  // or kPlacedCode
constexpr unsigned entry_index(PageEntry e) { return kPageKinds[entry_kind(e)].index; }

}  // namespace nh
