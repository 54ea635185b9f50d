#include "central/heap_set.h"

#include <new>

#include "os/rseq.h"

namespace nh {

void HeapSet::init(NodeHeap* memory, unsigned count, AddressSpace* space) {
  heaps_ = memory;
  count_ = count;
  space_ = space;
  for (unsigned i = 0; i < count; i++) new (&heaps_[i].heap) MHeap;
}

MCentral* HeapSet::central(HeapId h, SpanClass c) {
  NodeHeap& n = heaps_[h.value];
  MCentral* central = n.central[central_index(c)].load(std::memory_order_acquire);
  if (central != nullptr) return central;
  void* memory = n.heap.metadata().alloc(sizeof(MCentral), alignof(MCentral));
  if (memory == nullptr) return nullptr;
  auto* made = new (memory) MCentral(n.heap, c);
  // release: whoever loads the pointer sees the constructed object. A loser's memory is lost, once per class.
  return n.central[central_index(c)].compare_exchange_strong(central, made, std::memory_order_acq_rel) ? made : central;
}

void HeapSet::note_served(HeapId h, CpuId cpu, unsigned objects) {
  NodeHeap& n = heaps_[h.value];
  n.served_objects.fetch_add(objects, std::memory_order_relaxed);
  const bool local = home_of_cpu_ != nullptr && home_of_cpu_(cpu) == h;
  if (local) n.local_objects.fetch_add(objects, std::memory_order_relaxed);
}

Batch HeapSet::fetch(HeapId* h, SpanClass c, unsigned wanted, CpuId cpu, bool strict) {
  if (MCentral* own = central(*h, c); own != nullptr) {
    if (const Batch batch = own->fetch(wanted, cpu); batch.count != 0) {
      note_served(*h, cpu, batch.count);
      return batch;
    }
  }
  if (strict) return {};
  const NodeHeap& n = heaps_[h->value];
  for (unsigned i = 0; i < n.fallbacks; i++) {
    const HeapId other(n.fallback[i]);
    MCentral* theirs = central(other, c);
    // One object: another heap's do not get into this CPU's lists, so that the rest of a batch would go straight back.
    const Batch batch = theirs == nullptr ? Batch() : theirs->fetch(1, cpu);
    if (batch.count == 0) continue;
    note_fallback(Fallback::kOtherNode, true);
    heaps_[other.value].foreign_serves.fetch_add(1, std::memory_order_relaxed);
    note_served(other, cpu, 1);
    *h = other;
    return batch;
  }
  return {};
}

void HeapSet::flush(HeapId home, SpanClass c, void* head, unsigned count, HeapId from) {
  // An object of the class exists, so its mcentral does.
  const unsigned n = heaps_[home.value].central[central_index(c)].load(std::memory_order_acquire)->flush(head, count);
  if (home != from) heaps_[home.value].remote_frees.fetch_add(n, std::memory_order_relaxed);
}

// Extents of first-touch memory are whole units and have no bin: the CPU caches keep them in another way.
HeapSet::Bin HeapSet::bin_for(const MHeap& heap, std::size_t bytes, bool noscan, bool placed) {
  if (placed || bytes > kMaxBinBytes || bytes <= kMaxSmallSize || heap.whole_units()) return {bytes, kLargeClass};
  const SpanClass c = bin_class(bytes, noscan);
  return {size_class(c).bytes, c};
}

MSpan* HeapSet::alloc_large_from(MHeap& heap, std::size_t bytes, std::size_t alignment, bool noscan,
                                 NodeId asker, bool placed) {
  const Bin bin = bin_for(heap, bytes, noscan, placed);
  MSpan* span = heap.alloc_large(bin.bytes, alignment, noscan, bin.c, asker);
  if (span != nullptr && placed) span->nelems |= MSpan::kLargePlaced;
  return span;
}

bool HeapSet::resize_large(MSpan* span, std::size_t bytes, NodeId asker) {
  MHeap& heap = heaps_[span->heap].heap;
  const Bin bin = bin_for(heap, bytes, span->noscan(), span->placed());
  return heap.resize_large(span, bin.bytes, bin.c, asker);
}

MSpan* HeapSet::alloc_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, bool strict,
                            NodeId asker, bool placed) {
  MSpan* span = find_large(h, bytes, alignment, noscan, strict, asker, placed);
  if (span == nullptr) return nullptr;
  const int cpu = rseq_current_cpu();
  note_served(HeapId(span->heap), CpuId(cpu >= 0 ? cpu : current_cpu_slow()), 1);
  return span;
}

MSpan* HeapSet::find_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, bool strict,
                           NodeId asker, bool placed) {
  if (MSpan* span = alloc_large_from(heaps_[h.value].heap, bytes, alignment, noscan, asker, placed);
      span != nullptr || strict) {
    return span;
  }
  const NodeHeap& n = heaps_[h.value];
  for (unsigned i = 0; i < n.fallbacks; i++) {
    NodeHeap& other = heaps_[n.fallback[i]];
    MSpan* span = alloc_large_from(other.heap, bytes, alignment, noscan, asker, placed);
    if (span == nullptr) continue;
    note_fallback(Fallback::kOtherNode, true);
    other.foreign_serves.fetch_add(1, std::memory_order_relaxed);
    return span;
  }
  return nullptr;
}

void HeapSet::trim_centrals() {
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      if (MCentral* central = slot.load(std::memory_order_acquire); central != nullptr) central->trim();
    }
    heaps_[i].heap.flush_page_caches();
  }
}

void HeapSet::repair_after_fork(bool lost) {
  // Heaps first: the mcentrals walk their page maps.
  for (unsigned i = 0; i < count_; i++) heaps_[i].heap.repair_after_fork(lost);
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      if (MCentral* central = slot.load(std::memory_order_acquire); central != nullptr) central->repair_after_fork(lost);
    }
  }
}

bool HeapSet::check() {
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      MCentral* central = slot.load(std::memory_order_acquire);
      if (central != nullptr && !central->check()) return false;
    }
    if (!heaps_[i].heap.check()) return false;
  }
  return true;
}

}  // namespace nh
