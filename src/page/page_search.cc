// Where free runs are: address-ordered first fit, aligned runs, free huge-page units.
#include "base/bits.h"
#include "base/check.h"
#include "page/page_alloc.h"

namespace nh {
namespace {

// A walk over nodes in address order, of any levels, that looks for a run of n free pages.
struct Walk {
  enum Verdict {
    kPassed,    // no such run ends in this node
    kEndsHere,  // one does that began `run` pages before it
    kInside,    // the node has one
  };

  std::size_t n;
  std::size_t run = 0;         // free pages right before the next node
  std::size_t low = SIZE_MAX;  // lower bound of the first free page seen, exact but for nodes passed by

  Verdict look(Summary s, std::size_t base, unsigned shift) {
    if (s.none()) {
      run = 0;
      return kPassed;
    }
    if (low == SIZE_MAX) low = base;
    const std::size_t start = s.start();
    if (run + start >= n) return kEndsHere;  // lies before anything inside the node
    if (s.max() >= n) return kInside;
    run = start >> shift != 0 ? run + start : s.end();
    return kPassed;
  }
};

}  // namespace

// The lowest run of n free pages at or above `from`. Nodes right of `from` are looked at level by level on the way up,
// the next groups of siblings, until one of them has or completes a run.
PageAlloc::Found PageAlloc::find(std::size_t n, std::size_t from) const {
  if (from >= end_) return {kNowhere, from};
  Walk walk{n};
  std::size_t index = from / kChunkPages;
  if (const Summary leaf = tree_[kLeaf][index]; !leaf.none()) {
    // Of the first chunk only the part from `from` on counts, which its summary does not describe.
    const PageBits& bits = chunks_[index].free;
    const std::size_t offset = from % kChunkPages;
    const std::size_t base = from - offset;
    const std::size_t first_free = bits.find_first(offset);
    if (first_free != PageBits::kNone) walk.low = base + first_free;
    if (leaf.max() >= n) {
      const std::size_t at = bits.find_run(n, offset);
      if (at != PageBits::kNone) return {base + at, walk.low};
    }
    walk.run = leaf.end() < kChunkPages - offset ? leaf.end() : kChunkPages - offset;
  }
  index++;
  for (unsigned level = kLeaf;; level--, index >>= kFanoutShift) {
    const unsigned shift = kNodeShift[level];
    const std::size_t last = level == 0 ? div_up(end_, std::size_t{1} << shift) : align_up(index, kFanout);
    for (; index < last; index++) {
      const std::size_t base = index << shift;
      const Walk::Verdict verdict = walk.look(tree_[level][index], base, shift);
      if (verdict == Walk::kEndsHere) return {base - walk.run, walk.low};
      if (verdict == Walk::kInside) return descend(level, index, n, walk.low == base ? kNowhere : walk.low);
    }
    if (level == 0) return {kNowhere, walk.low == SIZE_MAX ? end_ : walk.low};
  }
}

// The lowest run of n free pages inside a node that has one. low: as in Walk, kNowhere if the node comes first.
PageAlloc::Found PageAlloc::descend(unsigned level, std::size_t index, std::size_t n, std::size_t low) const {
  while (level < kLeaf) {
    level++;
    index <<= kFanoutShift;
    const std::size_t last = index + kFanout;
    const unsigned shift = kNodeShift[level];
    Walk walk{n, 0, low};
    for (;; index++) {
      NH_CHECK(index < last, "a page summary promises more than the nodes below it have");
      const std::size_t base = index << shift;
      const Walk::Verdict verdict = walk.look(tree_[level][index], base, shift);
      if (verdict == Walk::kEndsHere) return {base - walk.run, walk.low};
      if (verdict != Walk::kInside) continue;
      low = walk.low == base ? kNowhere : walk.low;
      break;
    }
  }
  const PageBits& bits = chunks_[index].free;
  const std::size_t at = bits.find_run(n, 0);
  NH_CHECK(at != PageBits::kNone, "a page summary promises more than its bitmap has");
  const std::size_t base = index * kChunkPages;
  return {base + at, low == kNowhere ? base + bits.find_first(0) : low};
}

PageAlloc::Found PageAlloc::find_aligned(std::size_t n, std::size_t align) const {
  std::size_t low = kNowhere;
  std::size_t from = search_;
  for (unsigned tries = 0;; tries++) {
    if (tries == kAlignedTries) {
      const Found roomy = find(n + align - 1, search_);
      if (roomy.first != kNowhere) return {align_up(roomy.first, align), low};
    }
    const Found at = find(n, from);
    if (low == kNowhere) low = at.low;
    if (at.first == kNowhere) return {kNowhere, low};
    // Nothing below at.first is long enough, so the first aligned page from there on is the next that can do.
    const std::size_t aligned = align_up(at.first, align);
    if (aligned == at.first || all_free(aligned, n)) return {aligned, low};
    from = aligned + align;
  }
}

bool PageAlloc::find_free_unit_below(PageId limit, PageId* out, std::size_t max_steps) {
  const std::size_t from = align_down(limit.value < unit_limit_ ? limit.value : unit_limit_, kPagesPerHuge);
  const bool from_top = from == unit_limit_;  // then what this search rules out stays ruled out until pages are freed
  std::size_t top = from;                     // units that end above are ruled out
  bool hit = false;
  while (top != 0 && !hit && max_steps-- != 0) {
    // Pass by the largest node that ends at `top` and has no room for a unit.
    std::size_t next = top;
    for (unsigned level = kLeaf;; level--) {
      const unsigned shift = kNodeShift[level];
      if (!is_aligned(top, std::size_t{1} << shift)) break;
      const std::size_t index = (top - 1) >> shift;
      if (tree_[level][index].max() >= kPagesPerHuge) break;
      next = index << shift;
      if (level == 0) break;
    }
    if (next != top) {
      top = next;
      continue;
    }
    const std::size_t unit = top - kPagesPerHuge;
    const Chunk& chunk = chunks_[unit / kChunkPages];
    const std::size_t at = unit % kChunkPages;
    if (chunk.free.all_set(at, kPagesPerHuge) && !chunk.scavenged.all_set(at, kPagesPerHuge)) {
      hit = true;
    } else {
      top = unit;
    }
  }
  if (from_top) unit_limit_ = top;
  *out = PageId(hit ? top - kPagesPerHuge : top);
  return hit;
}

}  // namespace nh
