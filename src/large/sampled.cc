#include "large/sampled.h"

#include <cerrno>

#include "base/bits.h"
#include "large/large.h"
#include "process/process.h"

namespace nh {
namespace {

Estimate estimate(const MSpan& span) { return {span.sample.objects, span.sample.bytes}; }

void follow(MSpan* span, Site* site, std::size_t size) {
  const Estimate e = estimate_of(size);
  span->sample.objects = e.objects;
  span->sample.bytes = e.bytes;
  span->sample.site = g_sites.index(site);
  site->allocated(e);
  // What it would have as a small object: programs fill what malloc_usable_size() says.
  if (size <= kMaxSmallSize) span->elem_size = align_up(size == 0 ? 1 : size, 16);
  __atomic_store_n(&span->use, SpanUse::kSampled, __ATOMIC_RELEASE);
}

// Where the usual way would take it from, as far as placement goes.
HeapChoice heap_for(std::size_t size, std::size_t alignment) {
  const bool paged = alignment >= kOsPageSize && size < kHugeSize && !g_large_route.is_touched_pages(size);
  return paged ? heap_for_paged(size) : heap_for_large(size);
}

MSpan* take(std::size_t size, std::size_t alignment, bool noscan, bool zeroed) {
  if (alignment < kPageSize) alignment = kPageSize;
  const HeapChoice from = heap_for(size, alignment);
  MSpan* span = g_process.heaps.alloc_large(from.heap, size == 0 ? 1 : size, alignment, noscan, from.help, current_node(),
                                            LargeUse::kSampled);
  if (span == nullptr || !zeroed || g_process.heaps[HeapId(span->heap)].heap.clear_large(span)) return span;
  g_process.heaps.free_large(span);
  return nullptr;
}

}  // namespace

void* sample(std::size_t size, std::size_t alignment, bool noscan, bool zeroed) {
  if (size > PTRDIFF_MAX || !draws_sample(size)) return nullptr;
  const int saved = errno;
  Site* site = calling_site();
  MSpan* span = site == nullptr ? nullptr : take(size, alignment, noscan, zeroed);
  errno = saved;
  if (span == nullptr) return nullptr;
  follow(span, site, size);
  return reinterpret_cast<void*>(span->object_addr());
}

bool free_sampled(MSpan* span) {
  SpanUse sampled = SpanUse::kSampled;
  if (!__atomic_compare_exchange_n(&span->use, &sampled, SpanUse::kFreed, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    return false;
  }
  g_sites[span->sample.site].freed(estimate(*span));
  g_process.heaps.free_large(span);
  return true;
}

// As if it had been allocated with this size, and the old one never: what a site has allocated in all is what it asked for.
void sampled_resized(MSpan* span, std::size_t size) {
  Site& site = g_sites[span->sample.site];
  site.freed(estimate(*span));
  follow(span, &site, size);
}

}  // namespace nh
