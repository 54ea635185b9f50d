// Units as types, so that pages, bytes, CPUs and nodes cannot be mixed up.
//
// A page is 8 KiB, what the page allocator counts in. It is not the kernel's page (4 KiB here). A unit is one huge page of
// 2 MiB, what memory is backed and given back in. An arena is 64 MiB, what a heap takes address space in.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace nh {

inline constexpr std::size_t KiB = std::size_t{1} << 10;
inline constexpr std::size_t MiB = std::size_t{1} << 20;
inline constexpr std::size_t GiB = std::size_t{1} << 30;
inline constexpr std::size_t TiB = std::size_t{1} << 40;

inline constexpr unsigned kPageShift = 13;
inline constexpr std::size_t kPageSize = std::size_t{1} << kPageShift;

// A unit.
inline constexpr unsigned kHugeShift = 21;
inline constexpr std::size_t kHugeSize = std::size_t{1} << kHugeShift;
inline constexpr std::size_t kPagesPerHuge = kHugeSize >> kPageShift;  // 256

// An arena.
inline constexpr unsigned kArenaShift = 26;
inline constexpr std::size_t kArenaSize = std::size_t{1} << kArenaShift;
inline constexpr std::size_t kPagesPerArena = kArenaSize >> kPageShift;  // 8192
inline constexpr std::size_t kUnitsPerArena = kArenaSize >> kHugeShift;  // 32
inline constexpr std::size_t kArenasPerGiB = GiB >> kArenaShift;         // 16

// What the kernel maps: x86-64 base pages.
inline constexpr std::size_t kOsPageSize = 4096;

// A number of pages.
struct PageCount {
  std::size_t value = 0;
  constexpr PageCount() = default;
  constexpr explicit PageCount(std::size_t pages) : value(pages) {}
  // The pages needed to hold `bytes`, rounded up. bytes must be at most SIZE_MAX - kPageSize.
  static constexpr PageCount holding(std::size_t bytes) { return PageCount((bytes + kPageSize - 1) >> kPageShift); }
  constexpr std::size_t bytes() const { return value << kPageShift; }
  constexpr auto operator<=>(const PageCount&) const = default;
  constexpr PageCount& operator+=(PageCount o) { value += o.value; return *this; }
  constexpr PageCount& operator-=(PageCount o) { value -= o.value; return *this; }
};
constexpr PageCount operator+(PageCount a, PageCount b) { return PageCount(a.value + b.value); }
constexpr PageCount operator-(PageCount a, PageCount b) { return PageCount(a.value - b.value); }

// The number of a page, counted from the start of something that the context names (the pages of a heap, mostly).
struct PageId {
  std::size_t value = 0;
  constexpr PageId() = default;
  constexpr explicit PageId(std::size_t index) : value(index) {}
  constexpr auto operator<=>(const PageId&) const = default;
};
constexpr PageId operator+(PageId p, PageCount n) { return PageId(p.value + n.value); }
constexpr PageId operator-(PageId p, PageCount n) { return PageId(p.value - n.value); }
constexpr PageCount operator-(PageId a, PageId b) { return PageCount(a.value - b.value); }

// A number of units.
struct UnitCount {
  std::size_t value = 0;
  constexpr UnitCount() = default;
  constexpr explicit UnitCount(std::size_t units) : value(units) {}
  // The units needed to hold `bytes`, rounded up. bytes must be at most SIZE_MAX - kHugeSize.
  static constexpr UnitCount holding(std::size_t bytes) { return UnitCount((bytes + kHugeSize - 1) >> kHugeShift); }
  constexpr std::size_t bytes() const { return value << kHugeShift; }
  constexpr PageCount pages() const { return PageCount(value * kPagesPerHuge); }
  constexpr auto operator<=>(const UnitCount&) const = default;
  constexpr UnitCount& operator+=(UnitCount o) { value += o.value; return *this; }
};

// The number of a unit, counted as its pages are.
struct UnitId {
  std::size_t value = 0;
  constexpr UnitId() = default;
  constexpr explicit UnitId(std::size_t index) : value(index) {}
  static constexpr UnitId of(PageId p) { return UnitId(p.value / kPagesPerHuge); }
  constexpr PageId first_page() const { return PageId(value * kPagesPerHuge); }
  constexpr std::size_t arena() const { return value / kUnitsPerArena; }
  constexpr UnitId& operator++() { value++; return *this; }
  constexpr auto operator<=>(const UnitId&) const = default;
};
constexpr UnitId operator+(UnitId u, UnitCount n) { return UnitId(u.value + n.value); }
constexpr UnitCount operator-(UnitId a, UnitId b) { return UnitCount(a.value - b.value); }

// Units side by side: [first, end).
struct UnitRange {
  UnitId first;
  UnitId end;
  constexpr UnitCount count() const { return end - first; }
  constexpr std::size_t bytes() const { return count().bytes(); }
  constexpr bool empty() const { return !(first < end); }
  constexpr bool operator==(const UnitRange&) const = default;
  // The units that pages lie in, and those that consist of these pages alone. There is at least one page.
  static constexpr UnitRange around(PageId first, PageCount n) {
    return {UnitId::of(first), UnitId::of(first + n - PageCount(1)) + UnitCount(1)};
  }
  static constexpr UnitRange inside(PageId first, PageCount n) {
    const UnitId begin = UnitId::of(first + PageCount(kPagesPerHuge - 1)), end = UnitId::of(first + n);
    return {begin, begin < end ? end : begin};
  }
};

// A NUMA node as the kernel numbers it (sparse numbers occur). -1 = no node in particular.
struct NodeId {
  int value = -1;
  constexpr NodeId() = default;
  constexpr explicit NodeId(int node) : value(node) {}
  constexpr bool valid() const { return value >= 0; }
  constexpr auto operator<=>(const NodeId&) const = default;
};

// A CPU as the kernel numbers it.
struct CpuId {
  int value = -1;
  constexpr CpuId() = default;
  constexpr explicit CpuId(int cpu) : value(cpu) {}
  constexpr bool valid() const { return value >= 0; }
  constexpr auto operator<=>(const CpuId&) const = default;
};

// The index of a heap, dense from 0: one per NUMA node with memory, the first-touch heap, the interleaved heap, those of the
// other ways to spread memory that the machine has a use for, and then for each of these in the same order its paged twin
// (HeapKind::kPaged). Also the index of its lists in every CPU's cache.
struct HeapId {
  unsigned value = 0;
  constexpr HeapId() = default;
  constexpr explicit HeapId(unsigned index) : value(index) {}
  constexpr auto operator<=>(const HeapId&) const = default;
};

inline constexpr unsigned kMaxNodes = 256;   // nodes with memory that get a heap
inline constexpr unsigned kMaxCpus = 8192;   // the kernel's own upper bound on x86-64
inline constexpr unsigned kMaxHeaps = 2 * (kMaxNodes + 4);

static_assert(kPagesPerHuge == 256 && kPagesPerArena == 8192 && kUnitsPerArena == 32);

}  // namespace nh
