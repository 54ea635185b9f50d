// Up to 64 pages taken out of a PageAlloc at once, so that small runs need neither its lock nor its tree.
//
// Holds the pages of one 64-page aligned group that were free when allocate_to_cache() took them. Plain data: zeroed
// memory is an empty cache, and copying one moves its pages (the source must then be forgotten). The caller serialises
// the calls of one cache.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "base/check.h"
#include "base/units.h"
#include "page/page_alloc.h"

namespace nh {

class PageCache {
 public:
  static constexpr std::size_t kPages = 64;

  constexpr PageCache() = default;

  bool empty() const { return free_ == 0; }
  PageCount free_pages() const { return PageCount(static_cast<unsigned>(std::popcount(free_))); }
  PageCount scavenged_pages() const { return PageCount(static_cast<unsigned>(std::popcount(scavenged_))); }
  // Bit i is page base() + i.
  PageId base() const { return PageId(base_); }
  std::uint64_t free_mask() const { return free_; }
  std::uint64_t scavenged_mask() const { return scavenged_; }

  // The lowest run of n pages in the cache; not ok where there is none. n in 1 .. 64.
  PageAlloc::Run alloc(PageCount n) {
    NH_ASSERT(n.value >= 1 && n.value <= kPages);
    const auto count = static_cast<unsigned>(n.value);
    const std::uint64_t starts = starts_of_runs(free_, count);
    if (starts == 0) return {};
    const auto at = static_cast<unsigned>(std::countr_zero(starts));
    const std::uint64_t run = low_bits(count) << at;
    const auto scavenged = static_cast<unsigned>(std::popcount(scavenged_ & run));
    free_ &= ~run;
    scavenged_ &= ~run;
    return {PageId(base_ + at), PageCount(scavenged), true};
  }

  // Gives what is left back, scavenged pages as such, to the PageAlloc it came from; the cache is empty then.
  void flush(PageAlloc& pages);

 private:
  friend class PageAlloc;
  constexpr PageCache(std::size_t base, std::uint64_t free, std::uint64_t scavenged)
      : base_(base), free_(free), scavenged_(scavenged) {}

  std::size_t base_ = 0;  // first page of the group
  std::uint64_t free_ = 0;
  std::uint64_t scavenged_ = 0;  // a subset of free_
};

}  // namespace nh
