// The class of a span: how large its objects are, whether they hold no pointers, and who may have them. Its number is also
// that of the list in a CPU's cache on which its free objects lie, and what the page map says of the span's pages.
//
//   small   a size class, scan or noscan: objects of at most 32 KiB, from an mcentral
//   tiny    blocks of 16 bytes that the tiny allocator fills
//   bin     a large object of a size that CPUs keep, scan or noscan, one per span
//   large   any other large object
//   placed  the same as a small one, for objects that were asked for on a certain node: they have spans, mcentrals and lists
//           of their own, since realloc() must know them and an object has no header that could tell
//
// Zero-initialised it is none of these.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace nh {

inline constexpr unsigned kSizeClasses = 68;    // 0 = large
inline constexpr unsigned kSpanClasses = 136;   // size class << 1 | noscan
inline constexpr unsigned kLargeBins = 52;      // sizes of large objects that CPU caches keep (heap/size_classes.h)
inline constexpr std::size_t kMaxKeptBytes = 32 * MiB;  // no larger object waits in a CPU's cache
inline constexpr unsigned kCachedClasses = 137;  // lists of classes whose objects come from an mcentral
inline constexpr unsigned kFirstBinList = 138;  // from here on: bin << 1 | noscan
inline constexpr unsigned kClassCodes = kFirstBinList + 2 * kLargeBins;  // numbers of lists
static_assert(kClassCodes <= 256);

class SpanClass {
 public:
  constexpr SpanClass() = default;
  // What list() said of a class that was not placed.
  explicit constexpr SpanClass(unsigned list) : code_(static_cast<std::uint16_t>(list)) {}
  static constexpr SpanClass small(unsigned size_class, bool noscan) { return SpanClass(size_class << 1 | (noscan ? 1 : 0)); }
  static constexpr SpanClass tiny() { return SpanClass(kSpanClasses); }
  static constexpr SpanClass large() { return SpanClass(kSpanClasses + 1); }
  static constexpr SpanClass bin(unsigned bin, bool noscan) { return SpanClass(kFirstBinList + bin * 2 + (noscan ? 1 : 0)); }
  constexpr SpanClass placed() const { return SpanClass(unsigned{code_} | kPlacedBit); }

  constexpr bool none() const { return list() < 2; }
  constexpr bool is_small() const { return !none() && list() < kSpanClasses; }
  constexpr bool is_tiny() const { return list() == tiny().list(); }
  constexpr bool is_large() const { return list() >= large().list(); }
  constexpr bool is_bin() const { return list() >= kFirstBinList; }
  constexpr bool is_placed() const { return (code_ & kPlacedBit) != 0; }
  // Of small classes and bins; a large object without a bin keeps it elsewhere (MSpan::noscan).
  constexpr bool noscan() const { return is_tiny() || (code_ & 1) != 0; }

  // The list of its objects; the same for placed ones, which lie in another set of lists.
  constexpr unsigned list() const { return code_ & (kPlacedBit - 1); }
  // Its row in kSizeClassTable, where the bins follow the size classes.
  constexpr unsigned row() const {
    if (is_bin()) return kSizeClasses + (list() - kFirstBinList) / 2;
    return is_tiny() ? 2 : list() / 2;
  }

  friend constexpr bool operator==(SpanClass, SpanClass) = default;

 private:
  static constexpr unsigned kPlacedBit = 0x100;

  std::uint16_t code_ = 0;
};

inline constexpr SpanClass kTinyClass = SpanClass::tiny();
inline constexpr SpanClass kLargeClass = SpanClass::large();

constexpr SpanClass make_span_class(unsigned size_class, bool noscan) { return SpanClass::small(size_class, noscan); }
constexpr SpanClass make_placed(SpanClass c) { return c.placed(); }
constexpr bool is_placed(SpanClass c) { return c.is_placed(); }
constexpr unsigned without_place(SpanClass c) { return c.list(); }
constexpr bool is_large(SpanClass c) { return c.is_large(); }
constexpr bool is_bin(SpanClass c) { return c.is_bin(); }
constexpr unsigned size_class_of(SpanClass c) { return c.row(); }

}  // namespace nh
