#include "heap/address_space.h"

#include "base/bits.h"

namespace nh {
namespace {

constexpr std::size_t kMaxAlignment = 64 * GiB;
// From here on free() at random places would miss the TLB for its look at the page map: 4 KiB of it stand for 8 MiB.
constexpr std::size_t kHugeTablesFrom = 4 * GiB;

}  // namespace

bool AddressSpace::init(const OsOps& os, const Config& config) {
  os_ = &os;
  regions_ = config.regions;
  for (std::size_t region = config.region_bytes; region >= config.min_region_bytes && region >= kArenaSize; region /= 2) {
    const std::size_t bytes = region * regions_;
    const std::size_t pages = bytes >> kPageShift;
    // Objects can be aligned, and pages of 1 GiB laid, as far as the region itself is aligned. Where address space is
    // short the search for an aligned place must not take twice of it.
    const std::size_t alignment = region > kMaxAlignment ? kMaxAlignment : region < GiB ? region : GiB;
    void* base = os.reserve(bytes, alignment);
    void* map = base == nullptr ? nullptr : os.reserve(pages * sizeof(PageEntry), kOsPageSize);
    void* spans = map == nullptr ? nullptr : os.reserve(pages * sizeof(MSpan*), kOsPageSize);
    if (spans != nullptr && (!config.sparse_readable || os.make_readable(map, pages * sizeof(PageEntry)) == 0)) {
      // THP=always would give every touched spot 2 MiB.
      os.advise_thp(map, pages * sizeof(PageEntry), false);
      os.advise_thp(spans, pages * sizeof(MSpan*), false);
      base_ = address(base);
      bytes_ = bytes;
      region_shift_ = log2_floor(region);
      page_map_ = static_cast<PageEntry*>(map);
      spans_ = static_cast<MSpan**>(spans);
      return true;
    }
    if (spans != nullptr) os.unreserve(spans, pages * sizeof(MSpan*));
    if (map != nullptr) os.unreserve(map, pages * sizeof(PageEntry));
    if (base != nullptr) os.unreserve(base, bytes);
  }
  return false;
}

void AddressSpace::destroy() {
  const std::size_t pages = bytes_ >> kPageShift;
  os_->unreserve(spans_, pages * sizeof(MSpan*));
  os_->unreserve(page_map_, pages * sizeof(PageEntry));
  os_->unreserve(reinterpret_cast<void*>(base_), bytes_);
  *this = AddressSpace();
}

int AddressSpace::prepare(std::uintptr_t start, std::size_t bytes) {
  const std::size_t first = index(start);
  const std::size_t pages = bytes >> kPageShift;
  // An arena's part of either table is a whole number of OS pages, so neighbours are not affected.
  static_assert(kPagesPerArena * sizeof(PageEntry) % kOsPageSize == 0);
  if (const int error = os_->make_writable(page_map_ + first, pages * sizeof(PageEntry)); error != 0) return error;
  if (const int error = os_->make_writable(spans_ + first, pages * sizeof(MSpan*)); error != 0) return error;

  const HeapId heap = heap_of(reinterpret_cast<const void*>(start));
  const std::size_t before = start - region_start(heap);
  if (before < kHugeTablesFrom && before + bytes >= kHugeTablesFrom) {
    const std::size_t region_first = index(region_start(heap)), region_pages = region_bytes() >> kPageShift;
    os_->advise_thp(page_map_ + region_first, region_pages * sizeof(PageEntry), true);
    os_->advise_thp(spans_ + region_first, region_pages * sizeof(MSpan*), true);
  }
  return 0;
}

void AddressSpace::publish(MSpan* span) {
  const std::size_t first = index(span->start_addr);
  __atomic_store_n(&spans_[first], span, __ATOMIC_RELAXED);
  const HeapId heap = heap_of(reinterpret_cast<const void*>(span->start_addr));
  const unsigned pages = named_pages(span->span_class);
  NH_ASSERT(is_large(span->span_class) || pages == span->npages);
  for (unsigned i = 0; i < pages; i++) {
    __atomic_store_n(&page_map_[first + i], make_page_entry(heap, span->span_class, i), __ATOMIC_RELAXED);
  }
  span->use = SpanUse::kInUse;
}

void AddressSpace::retract(MSpan* span) {
  const std::size_t first = index(span->start_addr);
  const unsigned pages = named_pages(span->span_class);
  for (unsigned i = 0; i < pages; i++) __atomic_store_n(&page_map_[first + i], PageEntry{0}, __ATOMIC_RELAXED);
  __atomic_store_n(&spans_[first], static_cast<MSpan*>(nullptr), __ATOMIC_RELAXED);
  span->use = SpanUse::kNone;
}

MSpan* AddressSpace::span_around(const void* p) const {
  if (!contains(p)) return nullptr;
  const std::uintptr_t stop = region_start(heap_of(p));
  for (std::uintptr_t a = align_down(address(p), kPageSize);; a -= kPageSize) {
    if (MSpan* span = span_of(reinterpret_cast<const void*>(a)); span != nullptr) {
      return address(p) < span->end_addr() ? span : nullptr;
    }
    if (a == stop) return nullptr;
  }
}

}  // namespace nh
