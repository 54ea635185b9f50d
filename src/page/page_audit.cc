// Rebuilding the tree from the bitmaps, and the walker that compares the two.
#include "base/bits.h"
#include "base/check.h"
#include "page/page_alloc.h"

namespace nh {

void PageAlloc::rebuild_summaries(PageId end) {
  NH_CHECK(end.value % kChunkPages == 0 && end.value <= region_, "a heap ends with a whole chunk");
  end_ = end.value;
  free_ = scavenged_ = 0;
  search_ = end_;
  unit_limit_ = end_;  // the next search for a unit lowers it
  const std::size_t chunks = end_ / kChunkPages;
  for (std::size_t c = chunks; c-- > 0;) {
    const Chunk& chunk = chunks_[c];
    tree_[kLeaf][c] = chunk.free.summary();
    free_ += chunk.free.count();
    scavenged_ += chunk.scavenged.count();
    const std::size_t first_free = chunk.free.find_first(0);
    if (first_free != PageBits::kNone) search_ = c * kChunkPages + first_free;
  }
  for (std::size_t c = chunks; c % kFanout != 0; c++) tree_[kLeaf][c] = Summary();
  for (unsigned level = kLeaf; level-- > 0;) {
    const std::size_t nodes = div_up(end_, std::size_t{1} << kNodeShift[level]);
    for (std::size_t i = 0; i < nodes; i++) {
      tree_[level][i] = merge(&tree_[level + 1][i << kFanoutShift], kFanout, std::size_t{1} << kNodeShift[level + 1]);
    }
    // The rest of the last group stands for pages that do not exist (level 0 has no groups).
    for (std::size_t i = nodes; level != 0 && i % kFanout != 0; i++) tree_[level][i] = Summary();
  }
}

bool PageAlloc::check() const {
  if (end_ > region_ || end_ % kChunkPages != 0 || search_ > end_ || unit_limit_ > end_) return false;
  std::size_t free = 0;
  std::size_t scavenged = 0;
  const std::size_t chunks = end_ / kChunkPages;
  for (std::size_t c = 0; c < chunks; c++) {
    const Chunk& chunk = chunks_[c];
    if (!(tree_[kLeaf][c] == chunk.free.summary())) return false;
    free += chunk.free.count();
    scavenged += chunk.scavenged.count();
    const std::size_t base = c * kChunkPages;
    const std::size_t first_free = chunk.free.find_first(0);
    if (first_free != PageBits::kNone && base + first_free < search_) return false;
    for (std::size_t at = 0; at < kChunkPages; at += kPagesPerHuge) {
      if (base + at + kPagesPerHuge > unit_limit_ && chunk.free.all_set(at, kPagesPerHuge) &&
          !chunk.scavenged.all_set(at, kPagesPerHuge)) {
        return false;
      }
    }
  }
  if (free != free_ || scavenged != scavenged_) return false;
  for (unsigned level = 0; level < kTreeLevels; level++) {
    const std::size_t nodes = div_up(end_, std::size_t{1} << kNodeShift[level]);
    if (level != kLeaf) {
      for (std::size_t i = 0; i < nodes; i++) {
        const Summary s =
            merge(&tree_[level + 1][i << kFanoutShift], kFanout, std::size_t{1} << kNodeShift[level + 1]);
        if (!(tree_[level][i] == s)) return false;
      }
    }
    for (std::size_t i = nodes; level != 0 && i % kFanout != 0; i++) {
      if (!tree_[level][i].none()) return false;
    }
  }
  return true;
}

}  // namespace nh
