#include "heap/heap_arenas.h"

#include <cstring>

#include "base/bits.h"
#include "base/check.h"

namespace nh {
namespace {

// Half of the numbers may be left out.
std::size_t most_arenas(std::size_t window_bytes) { return 2 * (window_bytes >> kArenaShift); }

// Sizes of all tables for so many arenas, in the order in which they lie.
struct Sizes {
  std::size_t places;
  std::size_t units;
  PageAllocLayout pages;
  explicit Sizes(std::size_t arenas)
      : places(arenas * sizeof(std::uint32_t)),
        units(arenas * kUnitsPerArena * sizeof(Unit)),
        pages(PageAllocLayout::covering(PageCount(arenas * kPagesPerArena))) {}
  std::size_t summaries(unsigned level) const { return pages.summary_bytes[level]; }
};

constexpr std::size_t planned(std::size_t bytes) { return align_up(bytes, WindowTable::kStep); }

}  // namespace

std::size_t HeapArenas::table_bytes(std::size_t window_bytes) {
  const Sizes most(most_arenas(window_bytes));
  std::size_t sum = planned(most.places) + planned(most.units) + planned(most.pages.bitmap_bytes);
  for (unsigned level = 0; level < kTreeLevels; level++) sum += planned(most.summaries(level));
  return sum;
}

void HeapArenas::init(const OsOps& os, AddressSpace& space, HeapId id, NodeId node) {
  space_ = &space;
  const std::size_t arenas = most_arenas(space.max_bytes());
  const Sizes most(arenas);
  std::uintptr_t place = space.heap_tables(id);
  const auto cut = [&](WindowTable& table, std::size_t bytes) {
    table.init(os, place, planned(bytes));
    if (node.valid()) table.prefer_node(node);
    place += planned(bytes);
    return table.data();
  };
  cut(places_, most.places);
  cut(units_, most.units);
  void* bitmaps = cut(bitmaps_, most.pages.bitmap_bytes);
  void* summaries[kTreeLevels];
  for (unsigned level = 0; level < kTreeLevels; level++) summaries[level] = cut(summaries_[level], most.summaries(level));
  pages_.init(PageCount(arenas * kPagesPerArena), bitmaps, summaries);
}

void HeapArenas::unmap_tables() {
  for (WindowTable* table : {&places_, &units_, &bitmaps_}) table->unmap();
  for (WindowTable& table : summaries_) table.unmap();
}

int HeapArenas::prepare(std::size_t count) {
  const Sizes need(end_ + 1 + count);  // one number may be left out
  int error = places_.extend(need.places);
  if (error == 0) error = units_.extend(need.units);
  if (error == 0) error = bitmaps_.extend(need.pages.bitmap_bytes);
  for (unsigned level = 0; level < kTreeLevels && error == 0; level++) {
    error = summaries_[level].extend(need.summaries(level));
  }
  return error;
}

void HeapArenas::add(ArenaIndex first, std::size_t count) {
  const std::size_t number = space_->owner(reinterpret_cast<const void*>(space_->arena_address(first))).number();
  NH_ASSERT(number == end_ || number == end_ + 1);
  auto* places = static_cast<std::uint32_t*>(places_.data());
  for (std::size_t i = 0; i < count; i++) places[number + i] = first + static_cast<std::uint32_t>(i) + 1;
  pages_.grow(PageId(number * kPagesPerArena), PageCount(count * kPagesPerArena));
  count_ += count;
  end_ = number + count;
}

void HeapArenas::repair_after_fork() {
  for (WindowTable* table : {&places_, &units_, &bitmaps_}) table->repair_after_fork();
  for (WindowTable& table : summaries_) table.repair_after_fork();
}

void HeapArenas::forget_half_added() {
  const Sizes used(end_);
  const auto clear_behind = [](const WindowTable& table, std::size_t end) {
    if (end < table.bytes()) std::memset(static_cast<char*>(table.data()) + end, 0, table.bytes() - end);
  };
  clear_behind(places_, used.places);
  clear_behind(bitmaps_, used.pages.bitmap_bytes);
  for (unsigned level = 0; level < kTreeLevels; level++) clear_behind(summaries_[level], used.summaries(level));
  count_ = 0;
  for (std::size_t number = 0; number < end_; number++) count_ += exists(number);
  pages_.rebuild_summaries(PageId(end_ * kPagesPerArena));
}

}  // namespace nh
