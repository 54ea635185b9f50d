// The 68 size classes and how a request finds its class.
//
// The table is chosen by scripts/size-classes, which prints it with waste figures. Requests of malloc get memory aligned
// to 16, so the 8- and 24-byte classes serve noscan requests only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "base/units.h"
#include "heap/mspan.h"

namespace nh {

inline constexpr std::size_t kMaxSmallSize = 32768;

struct SizeClass {
  std::uint32_t bytes;       // per object
  std::uint16_t pages;       // per span
  std::uint16_t objects;     // per span
  std::uint32_t reciprocal;  // ceil(2^32 / bytes)
};

namespace detail {
constexpr SizeClass size_class_row(std::uint32_t bytes, unsigned pages, unsigned objects) {
  return {bytes, static_cast<std::uint16_t>(pages), static_cast<std::uint16_t>(objects),
          static_cast<std::uint32_t>(((std::uint64_t{1} << 32) + bytes - 1) / bytes)};
}
}  // namespace detail

// Bins: the sizes of large objects that CPU caches keep, one object per span. Every number of pages up to 16, then eight
// per doubling up to 4 MiB, so that at most an eighth of a bin's pages are not asked for.
inline constexpr unsigned kExactBinPages = 16;
inline constexpr std::size_t kMaxBinBytes = 4 * MiB;

namespace detail {
inline constexpr unsigned kFirstBinPages = kMaxSmallSize / kPageSize + 1;
inline constexpr unsigned kExactBins = kExactBinPages - kFirstBinPages + 1;
constexpr unsigned pages_of_bin(unsigned bin) {
  if (bin < kExactBins) return kFirstBinPages + bin;
  const unsigned step = bin - kExactBins;
  return (9 + step % 8) << (1 + step / 8);
}
static_assert(pages_of_bin(kLargeBins - 1) * kPageSize == kMaxBinBytes);
}  // namespace detail

// The bin of a large object of at most kMaxBinBytes.
constexpr unsigned large_bin(std::size_t bytes) {
  const std::size_t pages = PageCount::holding(bytes).value;
  if (pages <= kExactBinPages) return static_cast<unsigned>(pages) - detail::kFirstBinPages;
  const unsigned shift = log2_floor(pages - 1) - 3;
  return detail::kExactBins + (shift - 1) * 8 + static_cast<unsigned>((pages - 1) >> shift) - 8;
}
constexpr SpanClass bin_class(std::size_t bytes, bool noscan) {
  return SpanClass::bin(large_bin(bytes), noscan);
}

inline constexpr auto kSizeClassTable = [] {
  std::array<SizeClass, kSizeClasses + kLargeBins> table = {{
      {0, 0, 0, 0},
#define NH_SIZE_CLASS(number, bytes, pages, objects) detail::size_class_row(bytes, pages, objects),
#include "heap/size_classes.inc"
#undef NH_SIZE_CLASS
  }};
  for (unsigned bin = 0; bin < kLargeBins; bin++) {
    const unsigned pages = detail::pages_of_bin(bin);
    // With a reciprocal of 1 only offset 0 is the start of an object.
    table[kSizeClasses + bin] = {static_cast<std::uint32_t>(pages * kPageSize), static_cast<std::uint16_t>(pages), 1, 1};
  }
  return table;
}();

constexpr const SizeClass& size_class(SpanClass c) { return kSizeClassTable[c.row()]; }

// The index of the object at `offset` in a span: one multiplication. Exact for offsets inside a span, because offset *
// (error of the reciprocal) stays below 2^32 / bytes; a test tries every offset of every class.
constexpr unsigned object_index(const SizeClass& c, std::size_t offset) {
  return static_cast<unsigned>(offset * c.reciprocal >> 32);
}
// Whether an object begins at `offset`: a multiple of n has a product with ceil(2^32 / n) that is small modulo 2^32
// (Lemire, Kaser, Kurz: "Faster remainder by direct computation", 2019).
constexpr bool is_object_start(const SizeClass& c, std::uint32_t offset) {
  return static_cast<std::uint32_t>(offset * c.reciprocal) < c.reciprocal;
}

// Whether free objects of the class carry a mark (central/free_mark.h). Bins have one, too.
constexpr bool has_mark(SpanClass c) { return c != kTinyClass && c != kLargeClass && size_class(c).bytes >= 16; }

// Class of a request, by (bytes + 15) / 16, for memory aligned to 16.
inline constexpr auto kAlignedClass = [] {
  std::array<std::uint8_t, kMaxSmallSize / 16 + 1> table{};
  for (unsigned i = 0, c = 2; i < table.size(); i++) {
    while (kSizeClassTable[c].bytes < i * 16 || kSizeClassTable[c].bytes % 16 != 0) c++;
    table[i] = static_cast<std::uint8_t>(c);
  }
  return table;
}();

// Class of a noscan request, by (bytes + 7) / 8: aligned to 8 at least, to 16 where the class size is a multiple of it.
inline constexpr auto kNoscanClass = [] {
  std::array<std::uint8_t, kMaxSmallSize / 8 + 1> table{};
  for (unsigned i = 0, c = 1; i < table.size(); i++) {
    while (kSizeClassTable[c].bytes < i * 8) c++;
    table[i] = static_cast<std::uint8_t>(c);
  }
  return table;
}();

// bytes at most kMaxSmallSize.
constexpr SpanClass class_for(std::size_t bytes) { return make_span_class(kAlignedClass[(bytes + 15) / 16], false); }
constexpr SpanClass noscan_class_for(std::size_t bytes) { return make_span_class(kNoscanClass[(bytes + 7) / 8], true); }

namespace detail {
// log2 of an alignment, class -> the first class from there on that is a multiple of it; 0 where none is.
inline constexpr auto kNextAligned = [] {
  std::array<std::array<std::uint8_t, kSizeClasses>, kPageShift + 1> table{};
  for (unsigned shift = 0; shift <= kPageShift; shift++) {
    for (unsigned c = kSizeClasses - 1, next = 0; c > 0; c--) {
      if (kSizeClassTable[c].bytes % (1u << shift) == 0) next = c;
      table[shift][c] = static_cast<std::uint8_t>(next);
    }
  }
  return table;
}();
}  // namespace detail

// The smallest class whose objects all lie at multiples of `alignment`, a power of two up to kPageSize; none() where none
// is large enough. Spans begin at a page, so it is the class size that decides.
constexpr SpanClass class_for_aligned(std::size_t bytes, std::size_t alignment, bool noscan) {
  if (bytes > kMaxSmallSize || alignment > kPageSize) return {};
  const unsigned c = detail::kNextAligned[log2_floor(alignment)][kAlignedClass[(bytes + 15) / 16]];
  return c == 0 ? SpanClass() : SpanClass::small(c, noscan);
}

// For most alignments rounding the size up is enough: the class of the rounded size is class_for_aligned() of the size. Not
// so for 0 bytes. These alignments, as bits of one mask; up to 16 nothing is rounded.
static_assert(kMaxSmallSize % kPageSize == 0, "a rounded size is at most that, too");
inline constexpr std::size_t kRoundedAlignments = [] {
  std::size_t mask = 16 - 1;
  for (std::size_t alignment = 16; alignment <= kPageSize; alignment *= 2) {
    bool enough = true;
    for (std::size_t bytes = alignment; bytes <= kMaxSmallSize; bytes += alignment) {
      enough = enough && kSizeClassTable[kAlignedClass[bytes / 16]].bytes % alignment == 0;
    }
    if (enough) mask |= alignment;
  }
  return mask;
}();
static_assert((kRoundedAlignments & 64) != 0 && (kRoundedAlignments & 4096) != 0, "cache lines and pages");
constexpr bool rounding_aligns_below_page(std::size_t alignment) {
  return (alignment & (alignment - 1)) == 0 && (alignment & kRoundedAlignments & (kOsPageSize - 1)) != 0;
}
constexpr bool rounding_aligns_to_pages(std::size_t alignment) {
  return (alignment & (alignment - 1)) == 0 && (alignment & kRoundedAlignments & ~(kOsPageSize - 1)) != 0;
}
// False for what is no power of two.
constexpr bool rounding_aligns(std::size_t alignment) {
  return (alignment & (alignment - 1)) == 0 && (alignment & kRoundedAlignments) != 0;
}

// Objects that move at once between a CPU's cache and the mcentral: about 16 KiB.
constexpr unsigned batch_objects(SpanClass c) {
  const std::size_t n = 16 * KiB / size_class(c).bytes;
  return static_cast<unsigned>(n < 2 ? 2 : n > 256 ? 256 : n);
}

}  // namespace nh
