#include "page/page_cache.h"

namespace nh {

static_assert(PageCache::kPages == 64 && kChunkPages % PageCache::kPages == 0, "a group is one word of a bitmap");

PageCache PageAlloc::allocate_to_cache() {
  const Found at = find(1, search_);
  advance(at, 1);
  if (at.first == kNowhere) return {};
  const std::size_t base = align_down(at.first, PageCache::kPages);
  Chunk& chunk = chunks_[base / kChunkPages];
  const std::size_t word = base % kChunkPages / 64;
  const std::uint64_t free = chunk.free.word(word);
  const std::uint64_t scavenged = chunk.scavenged.word(word) & free;  // others may be claimed
  chunk.free.word(word) = 0;
  chunk.scavenged.word(word) &= ~free;
  free_ -= static_cast<unsigned>(std::popcount(free));
  scavenged_ -= static_cast<unsigned>(std::popcount(scavenged));
  search_ = base + PageCache::kPages;  // the group was the lowest with a free page, and it has none any more
  update_chunk(base);
  return PageCache(base, free, scavenged);
}

void PageCache::flush(PageAlloc& pages) {
  if (free_ == 0) return;
  NH_CHECK(base_ < pages.end_, "a page cache lies beyond the heap");
  PageAlloc::Chunk& chunk = pages.chunks_[base_ / kChunkPages];
  const std::size_t word = base_ % kChunkPages / 64;
  NH_CHECK((chunk.free.word(word) & free_) == 0, "cached pages are free already");
  chunk.scavenged.word(word) |= scavenged_;
  chunk.free.word(word) |= free_;
  pages.free_ += free_pages().value;
  pages.scavenged_ += scavenged_pages().value;
  pages.note_free(base_ + static_cast<unsigned>(std::countr_zero(free_)),
                  static_cast<unsigned>(std::bit_width(free_) - std::countr_zero(free_)));
  pages.update_chunk(base_);
  *this = PageCache();
}

}  // namespace nh
