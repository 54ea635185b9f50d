#include "cache/tiny.h"

#include "base/bits.h"

namespace nh {
namespace {

constexpr std::uint16_t kFilling = 1u << 15;
constexpr SpanClass kEightClass = make_span_class(1, true);

std::uint16_t* starts_of(const MSpan& span, const void* p) {
  return &span.starts[(address(p) - span.start_addr) / kTinySize];
}
unsigned byte_in_block(const void* p) { return address(p) % kTinySize; }

// acq_rel: what the last user of the block wrote happens before its next life.
std::uint16_t clear_bit(std::uint16_t* starts, unsigned bit) {
  return __atomic_fetch_and(starts, static_cast<std::uint16_t>(~(1u << bit)), __ATOMIC_ACQ_REL);
}

void* carve(CpuCache& cache, std::size_t size) {
  if (cache.tiny_block == 0) return nullptr;
  const std::size_t alignment = size % 8 == 0 ? 8 : size % 4 == 0 ? 4 : size % 2 == 0 ? 2 : 1;
  const std::size_t at = align_up(cache.tiny_offset, alignment);
  if (at + size > kTinySize || at == 15) return nullptr;
  __atomic_fetch_or(cache.tiny_starts, static_cast<std::uint16_t>(1u << at), __ATOMIC_RELAXED);
  cache.tiny_offset = static_cast<std::uint32_t>(at + size);
  return reinterpret_cast<void*>(cache.tiny_block + at);
}

}  // namespace

void* tiny_alloc(CpuCaches& caches, std::size_t size) {
  CpuCache* cache = caches.current_cache();
  if (cache == nullptr) return nullptr;
  {
    LockGuard guard(cache->tiny_lock);
    if (void* p = carve(*cache, size); p != nullptr) return p;
  }
  void* block = caches.alloc(kTinyClass);
  if (block == nullptr) return nullptr;
  std::uint16_t* starts = starts_of(*caches.heaps().space().span_of(block), block);
  __atomic_store_n(starts, kFilling, __ATOMIC_RELAXED);
  void* old;
  std::uint16_t* old_starts;
  void* p;
  {
    LockGuard guard(cache->tiny_lock);
    old = reinterpret_cast<void*>(cache->tiny_block);
    old_starts = cache->tiny_starts;
    cache->tiny_block = address(block);
    cache->tiny_starts = starts;
    cache->tiny_offset = 0;
    p = carve(*cache, size);
  }
  if (old != nullptr && clear_bit(old_starts, 15) == kFilling) {
    caches.free(old, kTinyClass, caches.heaps().space().heap_of(old));
  }
  return p;
}

bool tiny_free(CpuCaches& caches, void* p, const MSpan& span) {
  const unsigned bit = byte_in_block(p);
  const std::uint16_t before = clear_bit(starts_of(span, p), bit);
  if (bit == 15 || (before >> bit & 1) == 0) {
    // Clearing the filler's bit by mistake cannot be undone; the caller is about to abort.
    return false;
  }
  if (before == 1u << bit) {
    void* block = reinterpret_cast<void*>(align_down(address(p), kTinySize));
    caches.free(block, kTinyClass, HeapId(span.heap));
  }
  return true;
}

bool tiny_is_object(const void* p, const MSpan& span) {
  const unsigned bit = byte_in_block(p);
  return bit != 15 && (__atomic_load_n(starts_of(span, p), __ATOMIC_RELAXED) >> bit & 1) != 0;
}

bool tiny_block_is_used(const void* p, const MSpan& span) {
  return (__atomic_load_n(starts_of(span, p), __ATOMIC_RELAXED) & ~unsigned{kFilling}) != 0;
}

std::size_t tiny_usable(CpuCaches& caches, const void* p, const MSpan& span) {
  const unsigned first = byte_in_block(p);
  unsigned bits = __atomic_load_n(starts_of(span, p), __ATOMIC_RELAXED);
  if (first == 15 || (bits >> first & 1) == 0) return 0;
  std::size_t end = kTinySize;
  if ((bits & kFilling) != 0) {
    caches.for_each([&](CpuCache& cache) {
      LockGuard guard(cache.tiny_lock);
      if (cache.tiny_block == align_down(address(p), kTinySize)) end = cache.tiny_offset;
    });
    // What was carved meanwhile lies before the offset that was just read, or before the end of a retired block: the
    // bits must be those of a later moment than the offset.
    bits = __atomic_load_n(starts_of(span, p), __ATOMIC_ACQUIRE);
  }
  const unsigned later = (bits & ~unsigned{kFilling}) >> (first + 1);
  if (later != 0) return static_cast<std::size_t>(__builtin_ctz(later)) + 1;
  return end - first;
}

void* eight_alloc(CpuCaches& caches) {
  void* p = caches.alloc(kEightClass);
  if (p == nullptr) return nullptr;
  std::uint16_t* starts = starts_of(*caches.heaps().space().span_of(p), p);
  __atomic_fetch_or(starts, static_cast<std::uint16_t>(1u << byte_in_block(p)), __ATOMIC_RELAXED);
  return p;
}

bool eight_free(CpuCaches& caches, void* p, const MSpan& span) {
  const unsigned bit = byte_in_block(p);
  if (bit % 8 != 0 || (clear_bit(starts_of(span, p), bit) >> bit & 1) == 0) return false;
  caches.free(p, kEightClass, HeapId(span.heap));
  return true;
}

bool eight_is_object(const void* p, const MSpan& span) {
  const unsigned bit = byte_in_block(p);
  return bit % 8 == 0 && (__atomic_load_n(starts_of(span, p), __ATOMIC_RELAXED) >> bit & 1) != 0;
}

}  // namespace nh
