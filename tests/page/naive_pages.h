// What the page layer's tests stand on: memory for a PageAlloc that enforces its storage contract, and a naive model.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/bits.h"
#include "base/units.h"
#include "page/page_alloc.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace nh {

// A PageAlloc with its arrays in reserved address space. grow() makes writable what needed_storage() asks for and
// nothing more: whoever reads past that faults (to the byte under AddressSanitizer, to the OS page without it).
class PageWorld {
 public:
  explicit PageWorld(PageCount region) : layout_(PageAllocLayout::covering(region)) {
    void* summaries[kTreeLevels];
    bitmaps_ = reserve(layout_.bitmap_bytes);
    for (unsigned level = 0; level < kTreeLevels; level++) {
      summaries[level] = summaries_[level] = reserve(layout_.summary_bytes[level]);
    }
    alloc.init(region, bitmaps_, summaries);
  }
  PageWorld(const PageWorld&) = delete;
  PageWorld& operator=(const PageWorld&) = delete;
  ~PageWorld() {
    release(bitmaps_, layout_.bitmap_bytes);
    for (unsigned level = 0; level < kTreeLevels; level++) release(summaries_[level], layout_.summary_bytes[level]);
  }

  void grow(std::size_t first, std::size_t n) {
    const PageAllocLayout need = PageAlloc::needed_storage(PageId(first + n));
    open(bitmaps_, need.bitmap_bytes);
    for (unsigned level = 0; level < kTreeLevels; level++) open(summaries_[level], need.summary_bytes[level]);
    alloc.grow(PageId(first), PageCount(n));
  }

  // The arrays themselves, to plant corruption in.
  std::uint64_t* bitmap() { return reinterpret_cast<std::uint64_t*>(bitmaps_); }
  std::uint64_t* summaries(unsigned level) { return reinterpret_cast<std::uint64_t*>(summaries_[level]); }

  PageAlloc alloc;

 private:
  static std::size_t os_pages(std::size_t bytes) { return align_up(bytes, kOsPageSize); }
  static char* reserve(std::size_t bytes) {
    void* p = mmap(nullptr, os_pages(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("mmap");
      std::abort();
    }
    return static_cast<char*>(p);
  }
  static void open(char* p, std::size_t bytes) {
    if (mprotect(p, os_pages(bytes), PROT_READ | PROT_WRITE) != 0) {
      std::perror("mprotect");
      std::abort();
    }
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    ASAN_POISON_MEMORY_REGION(p + bytes, os_pages(bytes) - bytes);
#endif
  }
  static void release(char* p, std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(p, os_pages(bytes));
#endif
    munmap(p, os_pages(bytes));
  }

  PageAllocLayout layout_;
  char* bitmaps_;
  char* summaries_[kTreeLevels];
};

// The same allocator as loops over an array of pages. Page numbers are those of the region; only the pages of
// [start, start + pages) can exist, which keeps the loops short where a test sits at a boundary far up.
class NaivePages {
 public:
  static constexpr std::size_t kNone = SIZE_MAX;

  NaivePages(std::size_t start, std::size_t pages) : start_(start), page_(pages) {}

  std::size_t start() const { return start_; }
  std::size_t end() const { return start_ + page_.size(); }
  bool is_free(std::size_t p) const { return p >= start_ && p < end() && page_[p - start_].free; }
  bool is_scavenged(std::size_t p) const { return p >= start_ && p < end() && page_[p - start_].scavenged; }
  bool all_free(std::size_t first, std::size_t n) const {
    for (std::size_t p = first; p < first + n; p++) {
      if (!is_free(p)) return false;
    }
    return true;
  }
  std::size_t scavenged_in(std::size_t first, std::size_t n) const {
    std::size_t sum = 0;
    for (std::size_t p = first; p < first + n; p++) sum += is_scavenged(p);
    return sum;
  }
  std::size_t free_pages() const {
    std::size_t sum = 0;
    for (const Page& p : page_) sum += p.free;
    return sum;
  }
  std::size_t scavenged_pages() const { return scavenged_in(start_, page_.size()); }

  // The lowest fit at or above `from`.
  std::size_t first_fit(std::size_t n, std::size_t align = 1, std::size_t from = 0) const {
    std::size_t run = 0;
    for (std::size_t p = from > start_ ? from : start_; p < end(); p++) {
      run = is_free(p) ? run + 1 : 0;
      // Ends here: the run's last n pages are [p - n + 1, p].
      if (run >= n && (p - n + 1) % align == 0) return p - n + 1;
    }
    return kNone;
  }
  // The highest 256-page unit at or below `limit` that is free and not all scavenged.
  std::size_t free_unit_below(std::size_t limit) const {
    for (std::size_t top = align_down(limit < end() ? limit : end(), kPagesPerHuge); top >= start_ + kPagesPerHuge;
         top -= kPagesPerHuge) {
      const std::size_t unit = top - kPagesPerHuge;
      if (all_free(unit, kPagesPerHuge) && scavenged_in(unit, kPagesPerHuge) != kPagesPerHuge) return unit;
    }
    return kNone;
  }

  void grow(std::size_t first, std::size_t n) { mark(first, n, true, true); }
  // Allocates; how many of the pages were scavenged.
  std::size_t take(std::size_t first, std::size_t n) {
    const std::size_t scavenged = scavenged_in(first, n);
    mark(first, n, false, false);
    return scavenged;
  }
  void free(std::size_t first, std::size_t n) { mark(first, n, true, false); }
  void set_free(std::size_t p, bool free) { page_[p - start_].free = free; }
  void set_scavenged(std::size_t p, bool scavenged) { page_[p - start_].scavenged = scavenged; }

 private:
  struct Page {
    bool free = false;
    bool scavenged = false;
  };
  void mark(std::size_t first, std::size_t n, bool free, bool scavenged) {
    for (std::size_t p = first; p < first + n; p++) page_[p - start_] = {free, scavenged};
  }

  std::size_t start_;
  std::vector<Page> page_;
};

// A small generator whose sequence a seed fixes on every machine (xorshift64*, Vigna 2016).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019) {}
  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  // 0 .. n - 1.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() >> 11) % n; }

 private:
  std::uint64_t state_;
};

}  // namespace nh
