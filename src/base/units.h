// Units as types, so that pages, bytes, CPUs and nodes cannot be mixed up.
//
// A page is 8 KiB, the unit of the page allocator. It is not the kernel's page (4 KiB here) and not a huge page.
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

// The unit in which memory is backed and given back: one huge page of 2 MiB.
inline constexpr unsigned kHugeShift = 21;
inline constexpr std::size_t kHugeSize = std::size_t{1} << kHugeShift;
inline constexpr std::size_t kPagesPerHuge = kHugeSize >> kPageShift;  // 256

// The unit in which a heap takes address space: 64 MiB.
inline constexpr unsigned kArenaShift = 26;
inline constexpr std::size_t kArenaSize = std::size_t{1} << kArenaShift;
inline constexpr std::size_t kPagesPerArena = kArenaSize >> kPageShift;  // 8192
inline constexpr std::size_t kHugePerArena = kArenaSize >> kHugeShift;   // 32

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

// The index of a page, counted from the start of some address range that the context names (a heap's region, mostly).
struct PageId {
  std::size_t value = 0;
  constexpr PageId() = default;
  constexpr explicit PageId(std::size_t index) : value(index) {}
  constexpr auto operator<=>(const PageId&) const = default;
};
constexpr PageId operator+(PageId p, PageCount n) { return PageId(p.value + n.value); }
constexpr PageId operator-(PageId p, PageCount n) { return PageId(p.value - n.value); }
constexpr PageCount operator-(PageId a, PageId b) { return PageCount(a.value - b.value); }

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

// The index of a heap, dense from 0: one per NUMA node with memory, then the first-touch heap, then the interleaved
// one. Also the index of the heap's region in the address space and of its lists in every CPU's cache.
struct HeapId {
  unsigned value = 0;
  constexpr HeapId() = default;
  constexpr explicit HeapId(unsigned index) : value(index) {}
  constexpr auto operator<=>(const HeapId&) const = default;
};

inline constexpr unsigned kMaxNodes = 256;   // nodes with memory that get a heap
inline constexpr unsigned kMaxCpus = 8192;   // the kernel's own upper bound on x86-64
inline constexpr unsigned kMaxHeaps = kMaxNodes + 2;

static_assert(kPagesPerHuge == 256 && kPagesPerArena == 8192 && kHugePerArena == 32);

}  // namespace nh
