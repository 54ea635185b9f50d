// Finds free pages in a region: address-ordered first fit over a bitmap, through a radix tree of run summaries.
//
// The bitmap is cut into chunks of 512 pages (4 MiB). A leaf of the tree summarises one chunk (page_summary.h), each
// level above merges eight nodes of the level below, and a node of level 0 covers 16 GiB; level 0 is as long as the
// region needs and is scanned. A search climbs from the lowest page that may be free and descends into the first node
// whose longest run suffices, so it costs a few cache lines per level, whatever the size of the heap.
//
// Each chunk has a second bitmap: a scavenged page was not written since the OS last gave it as zero. It reads as zero,
// whether or not memory stands behind it. Pages become scavenged by grow() and release_claim(), and stop being so when
// they are allocated.
//
// Contract. No system calls, no locks, no allocation: the caller serialises all calls of one PageAlloc and provides its
// arrays (PageAllocLayout, below). Pages are numbered from the start of the region. Counts are at least 1 unless said
// otherwise. Zero-initialised memory followed by init() is a PageAlloc without pages.
//
// The algorithm is that of the Go runtime (mpagealloc.go, mpallocbits.go, mpagecache.go); the code is ours. Unlike
// there, a set bit means a free page, so that zeroed bitmaps say "nothing here" just as zeroed summaries do, and the
// bitmaps alone are enough to rebuild everything else.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "page/page_bits.h"
#include "page/page_summary.h"

namespace nh {

class PageCache;

inline constexpr unsigned kTreeLevels = 5;
inline constexpr unsigned kFanoutShift = 3;
inline constexpr std::size_t kFanout = std::size_t{1} << kFanoutShift;
// log2 of the pages that one node of a level covers: 16 GiB, 2 GiB, 256 MiB, 32 MiB, 4 MiB.
inline constexpr unsigned kNodeShift[kTreeLevels] = {21, 18, 15, 12, 9};
static_assert(kNodeShift[0] == Summary::kFieldBits && kNodeShift[kTreeLevels - 1] == kChunkShift);

// How many bytes of each array are in use, from its start, when the heap reaches up to some page. The same question
// asked for a whole region gives the address space that each array needs.
//
// Arrays only ever grow at their end. A level is counted in whole groups of eight siblings, because the code reads a
// group wherever it reads one of its nodes. Sizes are not rounded to OS pages.
struct PageAllocLayout {
  std::size_t bitmap_bytes = 0;
  std::size_t summary_bytes[kTreeLevels] = {};

  static PageAllocLayout covering(PageCount pages);
};

class PageAlloc {
 public:
  struct Run {
    PageId first;
    PageCount scavenged;  // how many pages of the run were scavenged; if all were, it reads as zero
    bool ok = false;      // false: no such run, nothing changed
  };

  // ---- set-up ----------------------------------------------------------------------------------------------------
  // Arrays of PageAllocLayout::covering(region) bytes, aligned to 64, that read as zero until written. Neither read
  // nor written before grow() covers them.
  void init(PageCount region, void* bitmaps, void* const summaries[kTreeLevels]);
  // What must be readable and writable, from the start of each array, before the heap grows up to page `end`.
  static PageAllocLayout needed_storage(PageId end) { return PageAllocLayout::covering(PageCount(end.value)); }
  // Adds pages, free and scavenged. Both arguments are multiples of a chunk; first is not below end() (a gap is
  // allowed, its pages simply do not exist).
  void grow(PageId first, PageCount n);

  // ---- allocation ------------------------------------------------------------------------------------------------
  // The lowest run of n free pages.
  Run alloc(PageCount n);
  // A run of n free pages that begins at a multiple of align_pages, a power of two. Finds one wherever one exists. It
  // is the lowest one unless kAlignedTries runs in a row were long enough but lay wrong: then it is cut out of the
  // lowest run of n + align_pages - 1, whose search costs no more than any other. Only where not even such a run
  // exists are all candidates tried, at the cost of one search each; the alternative then is to grow the heap.
  Run alloc_aligned(PageCount n, std::size_t align_pages);
  static constexpr unsigned kAlignedTries = 32;
  // Allocates exactly [end, end + n) if all of it is free: growth in place of the run that ends at `end`.
  bool extend(PageId end, PageCount n, PageCount* scavenged);
  // Makes pages free and not scavenged. Fatal where one of them is free already, claimed with its scavenged bit set, or
  // beyond the heap.
  void free(PageId first, PageCount n);
  // All free pages of the lowest 64-page aligned group that has one; an empty cache where no page is free.
  PageCache allocate_to_cache();

  // ---- scavenger -------------------------------------------------------------------------------------------------
  bool is_free(PageId first, PageCount n) const;
  PageCount scavenged_in(PageId first, PageCount n) const;
  // Takes exactly this range if all of it is free, so that nobody else allocates it while the OS is at work on it.
  // Leaves its scavenged bits alone; the pages must come back through release_claim(), not free().
  bool claim(PageId first, PageCount n);
  // Makes a claimed range free again, as it was or, with now_scavenged, all of it scavenged.
  void release_claim(PageId first, PageCount n, bool now_scavenged);
  // The highest 2 MiB unit (256 pages, aligned) that ends at or below `limit`, is wholly free and not wholly
  // scavenged. True: *out is its first page. False: *out is where to go on; all units that end above it were ruled
  // out, and it is 0 when there is none at all. Takes at most max_steps steps: one unit looked at or one subtree
  // without a free unit passed by each. What a search from the top ruled out is not looked at again until pages are
  // freed, so asking in vain is cheap.
  bool find_free_unit_below(PageId limit, PageId* out, std::size_t max_steps = SIZE_MAX);

  // ---- facts -----------------------------------------------------------------------------------------------------
  PageCount free_pages() const { return PageCount(free_); }
  // Scavenged pages, claimed ones included; pages in a PageCache count neither as free nor as scavenged.
  PageCount scavenged_pages() const { return PageCount(scavenged_); }
  PageId end() const { return PageId(end_); }
  // No page below is free; for tests.
  PageId search_address() const { return PageId(search_); }

  // ---- repair and audit ------------------------------------------------------------------------------------------
  // Recomputes from the bitmaps all there is besides them, for a heap that reaches up to `end`. For the child of a
  // fork that happened while another thread was inside a call: what that call had taken stays taken, nothing else is
  // lost.
  void rebuild_summaries(PageId end);
  // Audit: every summary against its bitmap, both search limits, the counters. Walks the whole heap.
  bool check() const;

 private:
  friend class PageCache;

  struct Chunk {
    PageBits free;
    PageBits scavenged;
  };
  static_assert(sizeof(Chunk) == 128);

  // What a search found. `low`: no page from the search's start up to it is free.
  struct Found {
    std::size_t first;
    std::size_t low;
  };
  static constexpr std::size_t kNowhere = SIZE_MAX;
  static constexpr unsigned kLeaf = kTreeLevels - 1;

  template <typename Fn>
  static bool each_chunk(std::size_t first, std::size_t n, Fn fn);
  Found find(std::size_t n, std::size_t from) const;
  Found descend(unsigned level, std::size_t index, std::size_t n, std::size_t low) const;
  Found find_aligned(std::size_t n, std::size_t align) const;
  void prefetch(std::size_t first, std::size_t n) const;
  bool all_free(std::size_t first, std::size_t n) const;
  std::size_t take(std::size_t first, std::size_t n);
  void put_back(std::size_t first, std::size_t n);
  void advance(const Found& at, std::size_t n);
  template <typename Leaf>
  void update(std::size_t first, std::size_t n, Leaf leaf);
  void update_after_free(std::size_t first, std::size_t n);
  void update_after_take(std::size_t first, std::size_t n);
  void update_chunk(std::size_t page);
  void update_parents(std::size_t first_leaf, std::size_t last_leaf);
  void note_free(std::size_t first, std::size_t n);

  Chunk* chunks_ = nullptr;
  Summary* tree_[kTreeLevels] = {};
  std::size_t region_ = 0;      // pages that the arrays have room for
  std::size_t end_ = 0;         // pages at or above do not exist
  std::size_t search_ = 0;      // no page below is free
  std::size_t unit_limit_ = 0;  // no unit that ends above is wholly free without being wholly scavenged
  std::size_t free_ = 0;
  std::size_t scavenged_ = 0;
};

}  // namespace nh
