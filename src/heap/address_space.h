// One reservation of address space, cut into equal power-of-two regions, one per heap; and the two flat tables that
// tell what every page of it is.
//
// The heap that owns a pointer is (p - base) >> region_shift: no lookup, any number of nodes. The tables cost address
// space only: page_map (4 bytes a page) is readable everywhere from the start and says "nothing of ours" until a page
// is in use; both become writable arena by arena.
//
// Thread safety: the entries of a span's pages are written by whoever owns the pages; readers see entries of objects
// that they were given, so no ordering is needed beyond the one that gave them the object.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "heap/mspan.h"
#include "heap/page_entry.h"
#include "os/os.h"

namespace nh {

class AddressSpace {
 public:
  struct Config {
    unsigned regions = 1;
    std::size_t region_bytes = 0;      // wanted, a power of two of at least kArenaSize
    std::size_t min_region_bytes = 0;  // below this, fail
    bool sparse_readable = true;       // false under mlockall(MCL_FUTURE), which would fault in all that is accessible
  };

  // Reserves, halving the region size while the OS refuses. False where even the smallest does not fit.
  bool init(const OsOps& os, const Config& config);
  // Gives everything back (tests).
  void destroy();

  bool contains(const void* p) const { return address(p) - base_ < bytes_; }
  HeapId heap_of(const void* p) const { return HeapId((address(p) - base_) >> region_shift_); }
  std::uintptr_t region_start(HeapId h) const { return base_ + (std::uintptr_t{h.value} << region_shift_); }
  std::size_t region_bytes() const { return std::size_t{1} << region_shift_; }
  unsigned region_shift() const { return region_shift_; }
  unsigned regions() const { return regions_; }
  std::uintptr_t base() const { return base_; }
  std::size_t bytes() const { return bytes_; }
  PageEntry* page_map() const { return page_map_; }

  // Makes the tables writable for the pages of [start, start + bytes), whole arenas. 0 or an errno value.
  int prepare(std::uintptr_t start, std::size_t bytes);

  // p must be contained.
  PageEntry entry(const void* p) const { return __atomic_load_n(&page_map_[index(address(p))], __ATOMIC_RELAXED); }

  // The span that p lies in, nullptr where its page is not in use. For a large object only its first page knows.
  MSpan* span_of(const void* p) const {
    if (!contains(p)) return nullptr;
    const PageEntry e = entry(p);
    if (e == 0) return nullptr;
    const std::size_t page = index(address(p));
    return __atomic_load_n(&spans_[page - entry_index(e)], __ATOMIC_RELAXED);
  }
  // For span_of() soon after. p must be contained.
  void prefetch_span_of(const void* p) const {
    __builtin_prefetch(&page_map_[index(address(p))]);
    __builtin_prefetch(&spans_[index(address(p))]);
  }
  // The same for any address inside a large object: walks back page by page. For error messages only.
  MSpan* span_around(const void* p) const;

  void publish(MSpan* span);
  void retract(MSpan* span);

  // Calls visit(MSpan*) for every span in use in [start, end), both multiples of a page. The caller keeps them from changing.
  template <typename Visit>
  void for_each_span(std::uintptr_t start, std::uintptr_t end, Visit&& visit) const {
    for (std::size_t i = index(start); i < index(end);) {
      MSpan* span = page_map_[i] == 0 ? nullptr : spans_[i - entry_index(page_map_[i])];
      if (span == nullptr) {
        i++;
        continue;
      }
      visit(span);
      i = index(span->end_addr());
    }
  }

 private:
  std::size_t index(std::uintptr_t a) const { return (a - base_) >> kPageShift; }

  const OsOps* os_ = nullptr;
  std::uintptr_t base_ = 0;
  std::size_t bytes_ = 0;
  unsigned region_shift_ = 0;
  unsigned regions_ = 0;
  PageEntry* page_map_ = nullptr;
  MSpan** spans_ = nullptr;
};

}  // namespace nh
