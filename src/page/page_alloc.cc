// Taking pages and giving them back: the bitmaps, and the summaries above what changed. Searches: page_search.cc.
#include "page/page_alloc.h"

#include "base/bits.h"
#include "base/check.h"

namespace nh {

PageAllocLayout PageAllocLayout::covering(PageCount pages) {
  PageAllocLayout s;
  s.bitmap_bytes = div_up(pages.value, kChunkPages) * 2 * sizeof(PageBits);
  for (unsigned level = 0; level < kTreeLevels; level++) {
    const std::size_t nodes = div_up(pages.value, std::size_t{1} << kNodeShift[level]);
    s.summary_bytes[level] = (level == 0 ? nodes : align_up(nodes, kFanout)) * sizeof(Summary);
  }
  return s;
}

void PageAlloc::init(PageCount region, void* bitmaps, void* const summaries[kTreeLevels]) {
  *this = PageAlloc();
  chunks_ = static_cast<Chunk*>(bitmaps);
  for (unsigned level = 0; level < kTreeLevels; level++) tree_[level] = static_cast<Summary*>(summaries[level]);
  region_ = region.value;
  NH_ASSERT(is_aligned(address(bitmaps), 64) && is_aligned(address(summaries[kLeaf]), 64));
}

// fn(chunk index, position in the chunk, count) for each chunk that the range touches, until it returns false; whether
// it never did.
template <typename Fn>
bool PageAlloc::each_chunk(std::size_t first, std::size_t n, Fn fn) {
  while (n != 0) {
    const std::size_t at = first % kChunkPages;
    const std::size_t here = n < kChunkPages - at ? n : kChunkPages - at;
    if (!fn(first / kChunkPages, at, here)) return false;
    first += here;
    n -= here;
  }
  return true;
}

void PageAlloc::grow(PageId first, PageCount n) {
  NH_CHECK(first.value % kChunkPages == 0 && n.value % kChunkPages == 0, "a heap grows by whole chunks");
  NH_CHECK(first.value >= end_ && first.value <= region_ && n.value <= region_ - first.value,
           "a heap grows upward, inside its region");
  if (n.value == 0) return;
  const std::size_t last = (first.value + n.value) / kChunkPages;
  for (std::size_t c = first.value / kChunkPages; c < last; c++) {
    chunks_[c].scavenged.set(0, kChunkPages);
    chunks_[c].free.set(0, kChunkPages);
  }
  end_ = first.value + n.value;
  free_ += n.value;
  scavenged_ += n.value;
  if (first.value < search_) search_ = first.value;
  update_after_free(first.value, n.value);
}

PageAlloc::Run PageAlloc::alloc(PageCount n) {
  NH_ASSERT(n.value != 0);
  const Found at = find(n.value, search_);
  advance(at, n.value);
  if (at.first == kNowhere) return {};
  return {PageId(at.first), PageCount(take(at.first, n.value)), true};
}

PageAlloc::Run PageAlloc::alloc_aligned(PageCount n, std::size_t align_pages) {
  NH_ASSERT(n.value != 0 && is_pow2(align_pages));
  const Found at = align_pages == 1 ? find(n.value, search_) : find_aligned(n.value, align_pages);
  advance(at, n.value);
  if (at.first == kNowhere) return {};
  return {PageId(at.first), PageCount(take(at.first, n.value)), true};
}

bool PageAlloc::extend(PageId end, PageCount n, PageCount* scavenged) {
  if (!all_free(end.value, n.value)) return false;
  *scavenged = PageCount(take(end.value, n.value));
  return true;
}

void PageAlloc::free(PageId first, PageCount n) {
  NH_CHECK(first.value < end_ && n.value <= end_ - first.value, "freed pages lie beyond the heap");
  prefetch(first.value, n.value);
  each_chunk(first.value, n.value, [this](std::size_t c, std::size_t at, std::size_t count) {
    NH_CHECK(chunks_[c].free.none_set(at, count), "freed pages are free already");
    // Allocated pages are not scavenged, claimed ones may be; those would be taken for zero while they are written.
    NH_CHECK(chunks_[c].scavenged.none_set(at, count), "freed pages are claimed");
    return true;
  });
  put_back(first.value, n.value);
}

// Fetches what a change of this range will touch. Frees come from anywhere in the heap, so in a large one each of these
// lines is a cache miss; asked for together, they cost about one.
void PageAlloc::prefetch(std::size_t first, std::size_t n) const {
  const std::size_t c = first / kChunkPages;
  const std::size_t last = (first + n - 1) / kChunkPages;
  __builtin_prefetch(&chunks_[c].free, 1);
  __builtin_prefetch(&chunks_[c].scavenged);
  if (last != c) {
    __builtin_prefetch(&chunks_[last].free, 1);
    __builtin_prefetch(&chunks_[last].scavenged);
  }
  for (unsigned level = 0; level < kTreeLevels; level++) {
    __builtin_prefetch(&tree_[level][first >> kNodeShift[level]], 1);
  }
}

bool PageAlloc::is_free(PageId first, PageCount n) const { return all_free(first.value, n.value); }

PageCount PageAlloc::scavenged_in(PageId first, PageCount n) const {
  NH_ASSERT(first.value <= end_ && n.value <= end_ - first.value);
  std::size_t sum = 0;
  each_chunk(first.value, n.value, [this, &sum](std::size_t c, std::size_t at, std::size_t count) {
    sum += chunks_[c].scavenged.count(at, count);
    return true;
  });
  return PageCount(sum);
}

bool PageAlloc::claim(PageId first, PageCount n) {
  if (!all_free(first.value, n.value)) return false;
  each_chunk(first.value, n.value, [this](std::size_t c, std::size_t at, std::size_t count) {
    chunks_[c].free.clear(at, count);
    return true;
  });
  free_ -= n.value;
  update_after_take(first.value, n.value);
  return true;
}

void PageAlloc::release_claim(PageId first, PageCount n, bool now_scavenged) {
  NH_CHECK(first.value < end_ && n.value <= end_ - first.value, "claimed pages lie beyond the heap");
  each_chunk(first.value, n.value, [this, now_scavenged](std::size_t c, std::size_t at, std::size_t count) {
    NH_CHECK(chunks_[c].free.none_set(at, count), "claimed pages are free already");
    if (now_scavenged) {
      scavenged_ += count - chunks_[c].scavenged.count(at, count);
      chunks_[c].scavenged.set(at, count);
    }
    return true;
  });
  put_back(first.value, n.value);
}

bool PageAlloc::all_free(std::size_t first, std::size_t n) const {
  if (first >= end_ || n > end_ - first) return false;
  return each_chunk(first, n, [this](std::size_t c, std::size_t at, std::size_t count) {
    return chunks_[c].free.all_set(at, count);
  });
}

// Allocates a range that is free; how many of its pages were scavenged.
std::size_t PageAlloc::take(std::size_t first, std::size_t n) {
  std::size_t scavenged = 0;
  each_chunk(first, n, [this, &scavenged](std::size_t c, std::size_t at, std::size_t count) {
    NH_ASSERT(chunks_[c].free.all_set(at, count));
    chunks_[c].free.clear(at, count);
    scavenged += chunks_[c].scavenged.take(at, count);
    return true;
  });
  free_ -= n;
  scavenged_ -= scavenged;
  update_after_take(first, n);
  return scavenged;
}

// Marks an allocated range free; its scavenged bits are right already.
void PageAlloc::put_back(std::size_t first, std::size_t n) {
  each_chunk(first, n, [this](std::size_t c, std::size_t at, std::size_t count) {
    chunks_[c].free.set(at, count);
    return true;
  });
  free_ += n;
  note_free(first, n);
  update_after_free(first, n);
}

// Keeps both search limits true when a range became free.
void PageAlloc::note_free(std::size_t first, std::size_t n) {
  if (first < search_) search_ = first;
  const std::size_t unit_end = align_up(first + n, kPagesPerHuge);
  if (unit_end > unit_limit_) unit_limit_ = unit_end;
}

// Moves the search limit past what a search from search_ has seen, n pages at at.first being taken next.
void PageAlloc::advance(const Found& at, std::size_t n) {
  search_ = at.low == at.first && at.first != kNowhere ? at.first + n : at.low;
}

// Gives each leaf that the range touches the summary leaf(bits, old summary, position, count), then its ancestors.
template <typename Leaf>
void PageAlloc::update(std::size_t first, std::size_t n, Leaf leaf) {
  bool changed = false;
  each_chunk(first, n, [this, &changed, &leaf](std::size_t c, std::size_t at, std::size_t count) {
    const Summary old = tree_[kLeaf][c];
    const Summary s = leaf(chunks_[c].free, old, at, count);
    if (!(s == old)) {
      tree_[kLeaf][c] = s;
      changed = true;
    }
    return true;
  });
  if (changed) update_parents(first / kChunkPages, (first + n - 1) / kChunkPages);
}

void PageAlloc::update_after_free(std::size_t first, std::size_t n) {
  update(first, n, [](const PageBits& bits, Summary old, std::size_t at, std::size_t count) {
    return bits.summary_after_set(old, at, count);
  });
}

void PageAlloc::update_after_take(std::size_t first, std::size_t n) {
  update(first, n, [](const PageBits& bits, Summary old, std::size_t at, std::size_t count) {
    return bits.summary_after_clear(old, at, count);
  });
}

// After bits of a single chunk changed anyhow.
void PageAlloc::update_chunk(std::size_t page) {
  update(page, 1, [](const PageBits& bits, Summary, std::size_t, std::size_t) { return bits.summary(); });
}

// Most changes die out within a level or two: a node whose summary stays as it was ends the climb.
void PageAlloc::update_parents(std::size_t first_leaf, std::size_t last_leaf) {
  std::size_t first = first_leaf;
  std::size_t last = last_leaf;
  for (unsigned level = kLeaf; level-- > 0;) {
    first >>= kFanoutShift;
    last >>= kFanoutShift;
    bool changed = false;
    for (std::size_t i = first; i <= last; i++) {
      const Summary s = merge(&tree_[level + 1][i << kFanoutShift], kFanout, std::size_t{1} << kNodeShift[level + 1]);
      if (tree_[level][i] == s) continue;
      tree_[level][i] = s;
      changed = true;
    }
    if (!changed) return;
  }
}

}  // namespace nh
