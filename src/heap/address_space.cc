#include "heap/address_space.h"

#include <cerrno>

#include "base/bits.h"

namespace nh {
namespace {

// From here on tables are looked at in so many places that their own pages should be huge ones: 4 KiB of the page map
// stand for 8 MiB.
constexpr std::size_t kHugeTablesFrom = 4 * GiB;
// A large table grows by whole huge pages.
constexpr std::size_t kLargeTable = 8 * MiB;
constexpr unsigned kWindowAttempts = 16;
// Memory for tables of what is nobody's is mapped only where that is little.
constexpr ArenaIndex kSmallHole = kArenasPerGiB;

constexpr std::size_t planned(std::size_t bytes) { return align_up(bytes, kHugeSize); }

struct TablePlan {
  std::size_t page_map;
  std::size_t spans;
  std::size_t owners;
  explicit TablePlan(std::size_t window)
      : page_map(planned((window >> kPageShift) * sizeof(PageEntry))),
        spans(planned((window >> kPageShift) * sizeof(MSpan*))),
        owners(planned((window >> kArenaShift) * sizeof(ArenaOwner))) {}
  std::size_t bytes() const { return page_map + spans + owners; }
};

}  // namespace

void WindowTable::init(const OsOps& os, std::uintptr_t place, std::size_t max_bytes) {
  os_ = &os;
  place_ = place;
  max_bytes_ = max_bytes;
  mapped_ = 0;
}

int WindowTable::map_until(std::size_t end, bool readable_only) {
  if (end <= mapped_) return 0;
  void* const at = reinterpret_cast<void*>(place_ + mapped_);
  const std::size_t bytes = end - mapped_;
  __atomic_store_n(&mapping_until_, end, __ATOMIC_RELEASE);
  const int error = readable_only ? os_->map_new_readable(at, bytes) : os_->map_new(at, bytes);
  if (error == 0 && !readable_only) {
    // THP=always would give every touched spot 2 MiB.
    os_->advise_thp(at, bytes, huge_);
    if (node_.valid()) os_->bind(at, bytes, BindMode::kPreferred, NodeSet::of(node_));
  }
  if (error == 0) mapped_ = end;
  __atomic_store_n(&mapping_until_, std::size_t{0}, __ATOMIC_RELEASE);
  return error == 0 ? 0 : ENOMEM;
}

int WindowTable::extend(std::size_t end, std::size_t hole, std::size_t hole_bytes) {
  if (end > max_bytes_) return ENOMEM;
  if (end <= mapped_) return 0;
  if (hole_bytes != 0) {
    if (const int error = map_until(align_up(hole, kStep), false); error != 0) return error;
    if (const int error = map_until(align_down(hole + hole_bytes, kStep), true); error != 0) return error;
  }
  std::size_t wanted = align_up(end, end < kLargeTable || os_->mappings_are_scarce() ? kStep : kHugeSize);
  if (wanted > max_bytes_) wanted = max_bytes_;
  return map_until(wanted, false);
}

void WindowTable::repair_after_fork() {
  // What is mapped behind the end that is known would be in the way of the next step.
  if (mapping_until_ > mapped_) os_->unmap(reinterpret_cast<void*>(place_ + mapped_), mapping_until_ - mapped_);
  mapping_until_ = 0;
}

void WindowTable::unmap() {
  if (mapped_ != 0) os_->unmap(data(), mapped_);
  mapped_ = 0;
}

bool AddressSpace::init(const OsOps& os, const Config& config) {
  os_ = &os;
  max_bytes_ = config.bytes;
  heaps_ = config.heaps;
  heap_table_bytes_ = planned(config.heap_table_bytes);
  const std::size_t table_bytes = TablePlan(max_bytes_).bytes() + heaps_ * heap_table_bytes_;
  for (unsigned attempt = 0; attempt < kWindowAttempts; attempt++) {
    const std::uintptr_t place = os.find_window(align_up(table_bytes, kArenaSize) + max_bytes_, 0, attempt);
    if (place == 0) continue;
    base_ = place + align_up(table_bytes, kArenaSize);
    // A second random place, so that the tables' tells nothing of the window's; if there is none, the one in front of it.
    const std::uintptr_t tables = os.find_window(table_bytes, base_, attempt);
    if (place_tables(tables != 0 ? tables : place)) return true;
  }
  return false;
}

bool AddressSpace::place_tables(std::uintptr_t place) {
  const TablePlan plan(max_bytes_);
  page_map_.init(*os_, place, plan.page_map);
  spans_.init(*os_, place + plan.page_map, plan.spans);
  owners_.init(*os_, place + plan.page_map + plan.spans, plan.owners);
  heap_tables_ = place + plan.bytes();
  if (extend_tables(0, 0, 1) == 0) return true;
  destroy();
  return false;
}

void AddressSpace::destroy() {
  for (WindowTable* table : {&page_map_, &spans_, &owners_}) table->unmap();
  used_bytes_.store(0, std::memory_order_relaxed);
}

void AddressSpace::mirror_used_bytes(std::size_t* copy) {
  LockGuard guard(lock_);
  mirror_ = copy;
  __atomic_store_n(copy, used_bytes(), __ATOMIC_RELEASE);
}

// Makes the tables usable for arenas [first, end); those in [hole, first) are nobody's.
int AddressSpace::extend_tables(ArenaIndex hole, ArenaIndex first, ArenaIndex end) {
  // Only the page map is read for addresses that are nobody's.
  const std::size_t hole_arenas = first - hole > kSmallHole ? first - hole : 0;
  const auto extend = [&](WindowTable& table, std::size_t bytes_per_arena) {
    return table.extend(end * bytes_per_arena, hole * bytes_per_arena, hole_arenas * bytes_per_arena);
  };
  if (std::size_t{end} * kArenaSize >= kHugeTablesFrom) {
    page_map_.prefer_huge_pages();
    spans_.prefer_huge_pages();
  }
  int error = extend(page_map_, kPagesPerArena * sizeof(PageEntry));
  if (error == 0) error = extend(spans_, kPagesPerArena * sizeof(MSpan*));
  if (error == 0) error = extend(owners_, sizeof(ArenaOwner));
  return error;
}

bool AddressSpace::has_room(std::size_t bytes) {
  if (lock_.held_by_me()) return true;
  LockGuard guard(lock_);
  return bytes <= max_bytes_ && os_->has_room(reinterpret_cast<void*>(base_ + used_bytes()), bytes);
}

int AddressSpace::deal(HeapId h, std::size_t count, std::size_t alignment, ArenaIndex behind, std::uint32_t next,
                       ArenaIndex* first) {
  if (lock_.held_by_me()) return EDEADLK;
  LockGuard guard(lock_);
  const std::size_t limit = max_bytes_ >> kArenaShift;
  const auto used = static_cast<ArenaIndex>(used_bytes() >> kArenaShift);
  std::size_t at = used > floor_ ? used : floor_;
  for (std::size_t skip = count;; skip *= 2) {
    if (alignment > kArenaSize) {
      at = (align_up(base_ + at * kArenaSize, alignment) - base_) >> kArenaShift;
    }
    if (count > limit || at > limit - count) return ENOMEM;
    void* const start = reinterpret_cast<void*>(arena_address(static_cast<ArenaIndex>(at)));
    if (os_->is_unmapped(start, count * kArenaSize)) break;
    // Something lies there. Twice as far each time, so that an obstacle of any size costs few calls.
    at += skip;
  }
  // An obstacle under a limit of address space: the window ends here rather than pay for tables of what is not ours.
  if (at - used > kSmallHole && os_->mappings_are_scarce()) return ENOMEM;
  const auto begin = static_cast<ArenaIndex>(at);
  const auto end = static_cast<ArenaIndex>(at + count);
  if (begin - used > kSmallHole) floor_ = begin;
  if (const int error = extend_tables(used, begin, end); error != 0) return error;

  std::uint32_t number = behind == kNone || begin == behind + 1 ? next : next + 1;
  auto* owners = static_cast<ArenaOwner*>(owners_.data());
  for (ArenaIndex i = begin; i < end; i++) {
    owners[i].place = ++number;
    owners[i].lists = static_cast<std::uint32_t>(list_offset(h, SpanClass()));
  }
  used_bytes_.store(std::size_t{end} * kArenaSize, std::memory_order_release);
  if (mirror_ != nullptr) __atomic_store_n(mirror_, std::size_t{end} * kArenaSize, __ATOMIC_RELEASE);
  *first = begin;
  return 0;
}

void AddressSpace::repair_after_fork() {
  if (!lock_.held() || lock_.held_by_me()) return;
  lock_.reset_after_fork();
  // Arenas that were being dealt are behind the end in use, or belong to a heap that does not know of them yet: lost to the
  // child.
  for (WindowTable* table : {&page_map_, &spans_, &owners_}) table->repair_after_fork();
  if (mirror_ != nullptr) __atomic_store_n(mirror_, used_bytes(), __ATOMIC_RELEASE);
}

void AddressSpace::publish(MSpan* span) {
  const std::size_t first = index(span->start_addr);
  __atomic_store_n(&spans()[first], span, __ATOMIC_RELAXED);
  const HeapId heap(span->heap);
  const unsigned pages = named_pages(span->span_class);
  NH_ASSERT(is_large(span->span_class) || pages == span->npages);
  for (unsigned i = 0; i < pages; i++) {
    __atomic_store_n(&page_map()[first + i], make_page_entry(heap, span->span_class, i), __ATOMIC_RELAXED);
  }
  span->use = SpanUse::kInUse;
}

void AddressSpace::retract(MSpan* span) {
  const std::size_t first = index(span->start_addr);
  const unsigned pages = named_pages(span->span_class);
  for (unsigned i = 0; i < pages; i++) __atomic_store_n(&page_map()[first + i], PageEntry{0}, __ATOMIC_RELAXED);
  __atomic_store_n(&spans()[first], static_cast<MSpan*>(nullptr), __ATOMIC_RELAXED);
  span->use = SpanUse::kNone;
}

MSpan* AddressSpace::span_around(const void* p) const {
  if (!contains(p)) return nullptr;
  const ArenaOwner& mine = owner(p);
  for (std::uintptr_t a = align_down(address(p), kPageSize);; a -= kPageSize) {
    const ArenaOwner& here = owner(reinterpret_cast<const void*>(a));
    if (!here.has_heap() || here.lists != mine.lists) return nullptr;
    if (MSpan* span = span_of(reinterpret_cast<const void*>(a)); span != nullptr) {
      return address(p) < span->end_addr() ? span : nullptr;
    }
    if (a == base_) return nullptr;
  }
}

}  // namespace nh
