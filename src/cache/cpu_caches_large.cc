// Large objects that CPUs keep (layout.h): how many, of which sizes, and their way home.
#include "base/bits.h"
#include "base/check.h"
#include "base/format.h"
#include "cache/access.h"

namespace nh {
namespace {

// The most that a CPU keeps of large objects, in times of the limit for small ones.
constexpr std::size_t kLargeShare = 8;

[[noreturn, gnu::cold]] void freed_twice(const void* p) {
  Text<120> text;
  text.text("double free of ").ptr(p).text(", which was written to meanwhile");
  fatal(text.c_str());
}

// How many objects of a size. Of a node's heap another one costs half a microsecond. Of touched pages it costs a question to
// the kernel about each page, and a fault for each that lies elsewhere: the arrays of a time step should all be kept.
unsigned max_kept(std::size_t bytes, bool touched_pages) {
  const std::size_t most = touched_pages ? 16 * MiB : 256 * KiB;
  return static_cast<unsigned>(bytes < most ? most / bytes : 1);
}

}  // namespace

std::size_t CpuCaches::large_bytes(SpanClass c, HeapId h) const {
  return h.value == config_.extent_heap ? units_of_extent(c) * kHugeSize : size_class(c).bytes;
}

// The class of the list that a large object goes to; none: nobody keeps objects of this size.
SpanClass CpuCaches::list_class(const MSpan& span) const {
  if (span.span_class.is_bin()) return span.span_class;
  const std::size_t units = span.npages / kPagesPerHuge;
  const bool extent = span.heap == config_.extent_heap && units <= kMaxKeptUnits;
  return extent ? extent_class(static_cast<unsigned>(units)) : SpanClass();
}

// Those of another heap go straight home: nobody here would take them off their list.
bool CpuCaches::keeps_large_of(const CpuCache& cache, HeapId h) const {
  return hands_out(cache, h) || h.value == config_.extent_heap || h.value == config_.pages_heap;
}

// nullptr: this CPU keeps no large objects of that heap.
FreeList* CpuCaches::large_list(CpuCache& cache, SpanClass c, HeapId h) {
  return keeps_large_of(cache, h) ? &cache.lists[list_set(h, false)].of[c.list()] : nullptr;
}

bool* CpuCaches::turned_away(CpuCache& cache, SpanClass c, HeapId h) const {
  const unsigned row = h.value == config_.pages_heap ? 3 : h.value == config_.extent_heap ? 2 : h == cache.local ? 0 : 1;
  return &cache.turned_away[row][c.list() - kFirstBinList];
}

void CpuCaches::large_turned_away(const MSpan& span) {
  const SpanClass c = list_class(span);
  if (c.none() || !has_sequences()) return;
  RseqAccess access(*this);
  if (!access.usable()) return;
  FreeList* list = large_list(access.cache(), c, HeapId(span.heap));
  if (list == nullptr) return;
  // Its mark was overwritten, or free() had seen it. An object that is not free is on no list, whoever changes them.
  void* const p = reinterpret_cast<void*>(span.start_addr);
  if (__atomic_load_n(&list->head, __ATOMIC_RELAXED) == p) freed_twice(p);
  __atomic_store_n(turned_away(access.cache(), c, HeapId(span.heap)), true, __ATOMIC_RELAXED);
}

void CpuCaches::large_missed(const MSpan& span) {
  const SpanClass c = list_class(span);
  if (c.none() || !has_sequences()) return;
  const HeapId h(span.heap);
  RseqAccess access(*this);
  if (!access.usable()) return;
  CpuCache& cache = access.cache();
  FreeList* list = large_list(cache, c, h);
  if (list == nullptr) return;
  // The room is a hint that sequences cut short leave wrong, one too small as well as one too large. Lists of small objects
  // are put right when they are taken as a whole; these are when they are found empty, or one that takes one object would
  // take none any more.
  access.install(*list, Batch());
  // An object that is allocated and freed once has nobody waiting for it.
  bool* const waiting = turned_away(cache, c, h);
  if (!__atomic_load_n(waiting, __ATOMIC_RELAXED)) return;
  const std::size_t bytes = large_bytes(c, h);
  if (__atomic_load_n(&list->cap, __ATOMIC_RELAXED) >= max_kept(bytes, h.value == config_.pages_heap)) return;
  const std::size_t limit = config_.bytes_per_cpu * kLargeShare;
  std::uint64_t used = change_large_capacity(cache, h, static_cast<std::int64_t>(bytes));
  // Capacity of sizes that are not in use at the moment goes to this one.
  for (unsigned other = 0; used > limit && other < heaps_->count(); other++) {
    for (unsigned list_number = kFirstBinList; used > limit && list_number < kClassCodes; list_number++) {
      const SpanClass of_idle(list_number);
      FreeList* idle = large_list(cache, of_idle, HeapId(other));
      if (idle == nullptr || idle == list || __atomic_load_n(&idle->head, __ATOMIC_RELAXED) != nullptr) continue;
      const unsigned spare = __atomic_load_n(&idle->cap, __ATOMIC_RELAXED);
      if (spare == 0 || !access.resize(*idle, -static_cast<std::int32_t>(spare))) continue;
      const std::size_t freed = spare * large_bytes(of_idle, HeapId(other));
      used = change_large_capacity(cache, HeapId(other), -static_cast<std::int64_t>(freed));
    }
  }
  if (used <= limit && access.resize(*list, 1)) {
    __atomic_store_n(waiting, false, __ATOMIC_RELAXED);
    return;
  }
  change_large_capacity(cache, h, -static_cast<std::int64_t>(bytes));
}

// Returns what the CPU may keep by now, of all heaps.
std::uint64_t CpuCaches::change_large_capacity(CpuCache& cache, HeapId h, std::int64_t bytes) {
  const auto more = static_cast<std::uint64_t>(bytes);
  large_capacity_[h.value].fetch_add(more, std::memory_order_relaxed);
  return __atomic_add_fetch(&cache.large_capacity_bytes, more, __ATOMIC_RELAXED);
}

bool CpuCaches::keeps_large(const CpuCache& cache, HeapId h) const {
  if (__atomic_load_n(&cache.large_capacity_bytes, __ATOMIC_RELAXED) == 0 || !keeps_large_of(cache, h)) return false;
  for (unsigned list = kFirstBinList; list < kClassCodes; list++) {
    if (__atomic_load_n(&cache.lists[list_set(h, false)].of[list].head, __ATOMIC_RELAXED) != nullptr) return true;
  }
  return false;
}

CpuCaches::Kept CpuCaches::kept_large(HeapId h) {
  Kept kept;
  for_each([&](CpuCache& cache) {
    if (__atomic_load_n(&cache.large_capacity_bytes, __ATOMIC_RELAXED) == 0) return;
    for (unsigned number = kFirstBinList; number < kClassCodes; number++) {
      FreeList* list = large_list(cache, SpanClass(number), h);
      if (list == nullptr) return;
      const std::uint64_t objects = list->count();
      kept.objects += objects;
      kept.bytes += objects * large_bytes(SpanClass(number), h);
    }
  });
  return kept;
}

bool CpuCaches::drain_large() {
  bool any = false;
  for_each([&](CpuCache& cache) {
    bool keeps = false;
    for (unsigned h = 0; h < heaps_->count(); h++) keeps |= keeps_large(cache, HeapId(h));
    any |= keeps && drain_with(CpuId(static_cast<int>(cache.cpu)), [this](CpuCache* c, MSpan** large) {
      for (unsigned h = 0; h < heaps_->count(); h++) flush_large(c, HeapId(h), large);
    });
  });
  return any;
}

// A thread that moves from CPU to CPU leaves blocks behind on each, which wait there for others. To look at every CPU
// whenever a heap grows would cost more than the growth on a machine with many of them, so at most a small part of what
// may be kept is added between two looks.
void CpuCaches::drain_large_before_growth(HeapId h, std::size_t bytes) {
  constexpr std::uint64_t kPart = 16;
  const std::uint64_t capacity = large_capacity_[h.value].load(std::memory_order_relaxed);
  if (capacity == 0) return;
  const std::uint64_t more = align_up(bytes, kHugeSize);
  if (growth_[h.value].fetch_add(more, std::memory_order_relaxed) + more < capacity / kPart) return;
  growth_[h.value].store(0, std::memory_order_relaxed);
  for_each([&](CpuCache& cache) {
    if (!keeps_large(cache, h)) return;
    drain_with(CpuId(static_cast<int>(cache.cpu)), [this, h](CpuCache* c, MSpan** large) { flush_large(c, h, large); });
  });
}

// Takes what the cache keeps of a heap's large objects. The caller has seen to it that nobody else changes the lists.
void CpuCaches::flush_large(CpuCache* cache, HeapId h, MSpan** large) {
  for (unsigned number = kFirstBinList; number < kClassCodes; number++) {
    FreeList* list = large_list(*cache, SpanClass(number), h);
    if (list == nullptr) return;
    void* first = list->head;
    if (first == nullptr) continue;
    list->head = nullptr;
    __atomic_store_n(&list->room, list->cap, __ATOMIC_RELAXED);
    while (first != nullptr) {
      void* next = next_object(first);
      MSpan* span = h.value == config_.extent_heap ? static_cast<MSpan*>(first) : heaps_->space().span_of(first);
      if (span == nullptr) freed_twice(first);
      if (h.value == config_.extent_heap && span->use != SpanUse::kFreed) large_freed_twice(*span);
      span->next = *large;
      *large = span;
      first = next;
    }
  }
}

}  // namespace nh
