#include "heap/mheap.h"

#include <new>

#include "base/bits.h"
#include "base/check.h"
#include "heap/growth.h"

namespace nh {
namespace {

static_assert([] {
  for (unsigned c = 0; c < kSizeClasses; c++) {
    if (kSizeClassTable[c].pages > PageCache::kPages / 4) return false;
  }
  return true;
}(), "longer spans would mostly miss the page cache (the runtime's rule)");
// Descriptors are made a block at a time.
constexpr unsigned kDescriptorBlock = 20;
// From here on a heap that was asked to uses pages of 1 GiB.
constexpr std::size_t kMinFor1G = 512 * MiB;

std::size_t bytes_of(std::uint32_t units) { return static_cast<std::size_t>(__builtin_popcount(units)) * kHugeSize; }

}  // namespace

bool MHeap::init(const OsOps& os, AddressSpace& space, const Config& config) {
  config_ = config;
  os_ = &os;
  space_ = &space;
  start_ = space.region_start(config.id);
  backer_.init(os, config.backing);
  metadata_.init(os, config.node, config.bind_metadata);

  const PageCount region(space.region_bytes() >> kPageShift);
  const PageAllocLayout storage = PageAllocLayout::covering(region);
  const std::size_t arenas_bytes = (space.region_bytes() >> kArenaShift) * sizeof(HeapArena);
  std::size_t sizes[2 + kTreeLevels] = {storage.bitmap_bytes, arenas_bytes};
  for (unsigned l = 0; l < kTreeLevels; l++) sizes[2 + l] = storage.summary_bytes[l];
  tables_bytes_ = 0;
  for (std::size_t& s : sizes) tables_bytes_ += s = align_up(s, kOsPageSize);
  tables_ = os.reserve(tables_bytes_, kOsPageSize);
  if (tables_ == nullptr) return false;
  os.advise_thp(tables_, tables_bytes_, false);
  if (config.bind_metadata) os.bind(tables_, tables_bytes_, BindMode::kPreferred, NodeSet::of(config.node));

  char* next = static_cast<char*>(tables_);
  auto cut = [&](GrowingTable& table, std::size_t bytes) {
    table.init(os, next, bytes);
    next += bytes;
    return table.data();
  };
  void* bitmaps = cut(bitmap_table_, sizes[0]);
  cut(arena_table_, sizes[1]);
  void* summaries[kTreeLevels];
  for (unsigned l = 0; l < kTreeLevels; l++) summaries[l] = cut(summary_table_[l], sizes[2 + l]);
  pages_.init(region, bitmaps, summaries);
  return true;
}

void MHeap::destroy() { os_->unreserve(tables_, tables_bytes_); }

PageCount MHeap::pages_for(std::size_t bytes) const {
  return PageCount::holding(config_.whole_units ? align_up(bytes, kHugeSize) : bytes);
}

// ---- waiting for the OS ------------------------------------------------------------------------------------------

void MHeap::wait_L() {
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed);
  waiters_++;
  lock_.unlock();
  os_->futex_wait(&epoch_, epoch, 0);
  lock_.lock();
  waiters_--;
}

void MHeap::end_busy_L() {
  epoch_.fetch_add(1, std::memory_order_relaxed);
  if (waiters_ == 0) return;
  lock_.unlock();
  os_->futex_wake(&epoch_, 1 << 30);
  lock_.lock();
}

// ---- growth and backing ------------------------------------------------------------------------------------------

bool MHeap::grow_L(PageCount pages) {
  if (growing_) {
    if (OsWork::under_way()) return false;
    wait_L();
    return true;  // the caller looks again
  }
  const std::size_t first = arenas_in_use_;
  std::size_t count = div_up(pages.value, kPagesPerArena);
  if (config_.backing.huge_pages == HugePagesOption::k1G && (count * kArenaSize >= kMinFor1G || committed() >= kMinFor1G)) {
    count = align_up(first + count, kArenasPerGiB) - first;
  }
  const std::size_t limit = space_->region_bytes() >> kArenaShift;
  if (first + count > limit) count = div_up(pages.value, kPagesPerArena);
  if (first + count > limit) {
    // No whole run is left behind the end, but free pages before it may be the first part of one. Whether they can
    // suffice at all is asked first, since address space that is opened in vain still costs tables.
    const std::size_t free = pages_.free_pages().value;
    const std::size_t least = pages.value <= free ? 1 : div_up(pages.value - free, kPagesPerArena);
    if (first + least > limit) return false;
    count = limit - first;
  }

  growing_ = true;
  const OsWork work;
  lock_.unlock();
  const PageId end((first + count) * kPagesPerArena);
  const PageAllocLayout need = PageAlloc::needed_storage(end);
  int error = space_->prepare(start_ + first * kArenaSize, count * kArenaSize);
  if (error == 0) error = arena_table_.ensure((first + count) * sizeof(HeapArena));
  if (error == 0) error = bitmap_table_.ensure(need.bitmap_bytes);
  for (unsigned l = 0; l < kTreeLevels && error == 0; l++) error = summary_table_[l].ensure(need.summary_bytes[l]);
  lock_.lock();
  growing_ = false;
  if (error == 0) {
    pages_.grow(PageId(first * kPagesPerArena), PageCount(count * kPagesPerArena));
    arenas_in_use_ = first + count;
  }
  end_busy_L();
  return error == 0;
}

// Tries to back the group of 16 arenas around `index` with one page of 1 GiB.
bool MHeap::try_1g_L(std::size_t index) {
  const std::size_t first = align_down(index, kArenasPerGiB);
  if (config_.backing.huge_pages != HugePagesOption::k1G || first + kArenasPerGiB > arenas_in_use_) return false;
  for (std::size_t i = first; i < first + kArenasPerGiB; i++) {
    if (arena(i).busy || arena(i).decided || arena(i).mapped != 0) return false;
  }
  const OsWork work;
  for (std::size_t i = first; i < first + kArenasPerGiB; i++) arena(i).begin_work();
  lock_.unlock();
  const bool ok = backer_.map_1g(&arena(first), start_ + first * kArenaSize);
  lock_.lock();
  for (std::size_t i = first; i < first + kArenasPerGiB; i++) arena(i).busy = false;
  if (ok) committed_.fetch_add(GiB, std::memory_order_relaxed);
  if (ok) hugetlb_committed_.fetch_add(GiB, std::memory_order_relaxed);
  end_busy_L();
  return ok;
}

void MHeap::take_advice_L(Backer::Extent* extent) {
  extent->advised = true;
  lock_.unlock();
  const GrowthAdvice advice = advise_growth(extent->bytes);
  lock_.lock();
  if (advice.no_thp) extent->thp = Backer::Extent::Answer::kNo;
}

bool MHeap::back_arena_L(std::size_t index, std::uint32_t units, Backer::Extent* extent) {
  const std::uintptr_t base = start_ + index * kArenaSize;
  for (;;) {
    HeapArena& a = arena(index);
    if (a.busy) {
      if (OsWork::under_way()) return false;
      wait_L();
      continue;
    }
    if ((units & ~a.backed) == 0) return true;
    if (!extent->advised) {
      take_advice_L(extent);
      continue;
    }
    if (!a.decided && try_1g_L(index)) continue;
    // The lock was released in between: another thread may be at work here, or have backed some of the units.
    if (a.busy) continue;
    const std::uint32_t need = units & ~a.backed;
    if (need == 0) return true;
    const OsWork work;
    a.begin_work();
    const std::uint32_t before = a.backed;
    lock_.unlock();
    int error = backer_.map(a, base, index == 0, need, extent);
    if (error == 0) error = backer_.populate(a, base, need, index == 0);
    if (a.backed == HeapArena::kAll) backer_.relax(a, base);
    lock_.lock();
    const std::uint32_t added = a.backed & ~before;
    committed_.fetch_add(bytes_of(added), std::memory_order_relaxed);
    hugetlb_committed_.fetch_add(bytes_of(added & a.hugetlb), std::memory_order_relaxed);
    a.busy = false;
    end_busy_L();
    if (error != 0) return false;
  }
}

bool MHeap::back_L(PageId first, PageCount pages) {
  const std::size_t first_unit = first.value / kPagesPerHuge;
  const std::size_t last_unit = (first.value + pages.value - 1) / kPagesPerHuge;
  Backer::Extent extent{(last_unit + 1 - first_unit) * kHugeSize};
  for (std::size_t u = first_unit; u <= last_unit;) {
    const std::size_t index = u / kHugePerArena;
    const std::size_t stop = (index + 1) * kHugePerArena;
    const std::size_t end = last_unit + 1 < stop ? last_unit + 1 : stop;
    const std::uint32_t units = unit_bits(static_cast<unsigned>(u % kHugePerArena), static_cast<unsigned>(end - u));
    if (!back_arena_L(index, units, &extent)) return false;
    u = end;
  }
  if (!small_unit_full_ && committed() > kHugeSize) fill_small_unit_L();
  return true;
}

// The first unit is left to page faults while the process is small. Once it is not, these faults should be over, too.
void MHeap::fill_small_unit_L() {
  if (!config_.backing.has_small_unit || config_.backing.first_touch) {
    small_unit_full_ = true;
    return;
  }
  HeapArena& first = arena(0);
  if (first.busy || (first.backed & 1) == 0) return;
  small_unit_full_ = true;
  lock_.unlock();
  os_->populate(reinterpret_cast<void*>(start_), kHugeSize);  // a failure leaves things as they were
  lock_.lock();
}

// ---- pages -------------------------------------------------------------------------------------------------------

PageAlloc::Run MHeap::alloc_pages_L(PageCount pages, std::size_t align_pages) {
  for (;;) {
    const PageAlloc::Run run = align_pages <= 1 ? pages_.alloc(pages) : pages_.alloc_aligned(pages, align_pages);
    if (run.ok) return run;
    const PageCount slack(align_pages <= kPagesPerArena ? 0 : align_pages);
    if (!grow_L(pages + slack)) return {};
  }
}

PageAlloc::Run MHeap::pages_from_heap(PageCount pages, std::size_t align_pages) {
  LockGuard guard(lock_);
  for (;;) {
    const PageAlloc::Run run = alloc_pages_L(pages, align_pages);
    if (!run.ok || back_L(run.first, pages)) return run;
    if (free_unbacked_L(run.first, pages)) return {};
  }
}

// Gives pages back that could not be backed. Those in lost units stay taken for ever, since the next search would find
// them first. True: there were none of these, and another attempt now would fail alike.
bool MHeap::free_unbacked_L(PageId first, PageCount pages) {
  bool all = true;
  const PageId end = first + pages;
  for (PageId at = first; at < end;) {
    const std::size_t u = at.value / kPagesPerHuge;
    const PageId stop((u + 1) * kPagesPerHuge);
    const PageCount part = (stop < end ? stop : end) - at;
    if ((arena(u / kHugePerArena).lost >> (u % kHugePerArena) & 1) == 0) {
      pages_.free(at, part);
    } else {
      all = false;
    }
    at = at + part;
  }
  return all;
}

// Spans of small objects come from the CPU's cache; an empty cache is filled with the free pages of one aligned group of
// 64, which lies in one huge page.
PageAlloc::Run MHeap::pages_from_cache(CpuPages& c, PageCount pages) {
  {
    LockGuard guard(c.lock);
    if (!c.pages.empty()) return c.pages.alloc(pages);
  }
  PageCache fresh;
  {
    LockGuard guard(lock_);
    fresh = pages_.allocate_to_cache();
    while (fresh.empty() && grow_L(PageCount(1))) fresh = pages_.allocate_to_cache();
    if (fresh.empty()) return {};
    if (!back_L(fresh.base(), PageCount(PageCache::kPages))) {
      fresh.flush(pages_);
      return {};
    }
  }
  const PageAlloc::Run run = fresh.alloc(pages);
  PageCache surplus;
  {
    LockGuard guard(c.lock);
    surplus = c.pages;  // another thread of this CPU may have filled it meanwhile
    c.pages = fresh;
  }
  if (!surplus.empty()) {
    LockGuard guard(lock_);
    surplus.flush(pages_);
  }
  return run;
}

void MHeap::note_freed_L(PageId first, PageCount pages) {
  const std::uint32_t now = tick_.load(std::memory_order_relaxed);
  for (std::size_t u = first.value / kPagesPerHuge; u <= (first.value + pages.value - 1) / kPagesPerHuge; u++) {
    arena(u / kHugePerArena).freed_tick[u % kHugePerArena] = now;
  }
}

// ---- spans -------------------------------------------------------------------------------------------------------

MHeap::CpuPages* MHeap::cpu_pages() {
  CpuPages* all = cpu_pages_.load(std::memory_order_acquire);
  if (all != nullptr) return all;
  all = static_cast<CpuPages*>(metadata_.alloc(config_.cpus * sizeof(CpuPages), alignof(CpuPages)));
  if (all == nullptr) return nullptr;
  for (unsigned i = 0; i < config_.cpus; i++) new (&all[i]) CpuPages;
  // Of several threads that got here at once one wins; what the others made is lost, once per heap.
  CpuPages* expected = nullptr;
  return cpu_pages_.compare_exchange_strong(expected, all, std::memory_order_acq_rel) ? all : expected;
}

MSpan* MHeap::new_descriptor(CpuPages& c) {
  {
    LockGuard guard(c.lock);
    if (MSpan* span = c.spare; span != nullptr) {
      c.spare = span->next;
      return span;
    }
  }
  {
    LockGuard guard(lock_);
    if (MSpan* span = spare_; span != nullptr) {
      spare_ = span->next;
      return span;
    }
  }
  auto* block = static_cast<MSpan*>(metadata_.alloc(kDescriptorBlock * sizeof(MSpan), alignof(MSpan)));
  if (block == nullptr) return nullptr;
  LockGuard guard(c.lock);
  for (unsigned i = 1; i < kDescriptorBlock; i++) {
    block[i].next = c.spare;
    c.spare = &block[i];
  }
  return block;
}

MSpan* MHeap::make_span(MSpan* span, const PageAlloc::Run& run, PageCount pages, SpanClass c) {
  span->next = span->prev = nullptr;
  span->start_addr = address_of(run.first);
  span->npages = static_cast<std::uint32_t>(pages.value);
  span->span_class = c;
  span->elem_size = 0;  // not yet initialised; the descriptor may have had another life
  span->nelems = 0;
  span->set = SpanSet::kNone;
  span->starts = nullptr;
  span->heap = static_cast<std::uint16_t>(config_.id.value);
  span->need_zero = run.scavenged != pages;
  spans_.fetch_add(1, std::memory_order_relaxed);
  in_use_.fetch_add(pages.bytes(), std::memory_order_relaxed);
  return span;
}

MSpan* MHeap::alloc_span(SpanClass c, CpuId cpu) {
  NH_ASSERT(!is_large(c) && size_class_of(c) != 0);
  const PageCount pages(size_class(c).pages);
  CpuPages* all = cpu_pages();
  if (all == nullptr) return nullptr;
  CpuPages& cp = all[static_cast<unsigned>(cpu.value) < config_.cpus ? cpu.value : 0];
  MSpan* span = new_descriptor(cp);
  if (span == nullptr) return nullptr;
  PageAlloc::Run run = pages_from_cache(cp, pages);
  if (!run.ok) run = pages_from_heap(pages, 1);
  if (!run.ok) {
    LockGuard guard(lock_);
    span->next = spare_;
    spare_ = span;
    return nullptr;
  }
  make_span(span, run, pages, c);
  space_->publish(span);
  return span;
}

void MHeap::free_span(MSpan* span) {
  const PageId first = page_of(span->start_addr);
  const PageCount pages = span->pages();
  if (is_large(span->span_class)) {
    large_objects_.fetch_sub(1, std::memory_order_relaxed);
    large_bytes_.fetch_sub(pages.bytes(), std::memory_order_relaxed);
  }
  space_->retract(span);
  spans_.fetch_sub(1, std::memory_order_relaxed);
  in_use_.fetch_sub(pages.bytes(), std::memory_order_relaxed);
  LockGuard guard(lock_);
  pages_.free(first, pages);
  note_freed_L(first, pages);
  span->next = spare_;
  spare_ = span;
}

}  // namespace nh
