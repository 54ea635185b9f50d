#include "central/heap_set.h"

#include <new>

#include "os/rseq.h"

namespace nh {
namespace {

// To find out that a node is still full takes a visit to all layers of its heap and some files.
constexpr std::uint64_t kFullFor = 10'000'000;  // ns

CpuId running_cpu() {
  const int cpu = rseq_current_cpu();
  return CpuId(cpu >= 0 ? cpu : current_cpu_slow());
}

}  // namespace

void HeapSet::init(NodeHeap* memory, unsigned count, AddressSpace* space) {
  heaps_ = memory;
  count_ = count;
  space_ = space;
  for (unsigned i = 0; i < count; i++) new (&heaps_[i].heap) MHeap;
}

Central* HeapSet::central(HeapId h, SpanClass c) {
  NodeHeap& n = heaps_[h.value];
  Central* central = n.central[central_index(c)].load(std::memory_order_acquire);
  if (central != nullptr) return central;
  void* memory = n.heap.metadata().alloc(sizeof(Central), alignof(Central));
  if (memory == nullptr) return nullptr;
  auto* made = new (memory) Central(n.heap, c);
  // release: whoever loads the pointer sees the constructed object. A loser's memory is lost, once per class.
  return n.central[central_index(c)].compare_exchange_strong(central, made, std::memory_order_acq_rel) ? made : central;
}

void HeapSet::note_served(HeapId h, CpuId cpu, unsigned objects) {
  NodeHeap& n = heaps_[h.value];
  n.served_objects.fetch_add(objects, std::memory_order_relaxed);
  if (home_of_cpu_ == nullptr) return;
  const HeapId home = home_of_cpu_(cpu);
  // A heap's paged twin is of the same node.
  const NodeId node = n.heap.node();
  const bool local = home == h || (node.valid() && heaps_[home.value].heap.node() == node);
  if (local) n.local_objects.fetch_add(objects, std::memory_order_relaxed);
}

// What is idle in one heap may be what another needs: address space, commit charge, memory of a control group.
bool HeapSet::release_idle() {
  std::size_t released = 0;
  for (unsigned i = 0; i < count_; i++) released += heaps_[i].heap.scavenge(SIZE_MAX, 0);
  return released != 0;
}

void HeapSet::note_helped(HeapId by) {
  // With one node there is no other, and its heap has helped out that of first-touch memory.
  if (heaps_[by.value].heap.backer().has_policy()) note_fallback(Fallback::kOtherNode, true);
  heaps_[by.value].foreign_serves.fetch_add(1, std::memory_order_relaxed);
}

bool HeapSet::ends_substitute(HeapId h) {
  NodeHeap& n = heaps_[h.value];
  if (n.heap.os().now_ns() < n.substitute_until_ns.load(std::memory_order_relaxed)) return false;
  drop_substitute(h);
  return true;
}

template <typename Attempt>
bool HeapSet::ask_others(HeapId h, CpuId cpu, Help help, Attempt&& attempt) {
  if (help == Help::kNobody) return false;
  if (help != Help::kNeighbours && helpers_of_ != nullptr) {
    HeapId order[kMaxNodes];
    const unsigned count = helpers_of_(help, h, cpu, order);
    for (unsigned i = 0; i < count; i++) {
      if (order[i] != h && attempt(order[i])) return true;
    }
    return false;
  }
  const NodeHeap& n = heaps_[h.value];
  const auto ask_list_of = [&](const NodeHeap& list, auto&& may_ask) {
    for (unsigned i = 0; i < list.fallbacks; i++) {
      if (may_ask(HeapId(list.fallback[i])) && attempt(HeapId(list.fallback[i]))) return true;
    }
    return false;
  };
  if (!n.serves_all_nodes || home_of_cpu_ == nullptr) return ask_list_of(n, [](HeapId) { return true; });
  const HeapId home = home_of_cpu_(cpu);
  const auto helps = [&n](HeapId other) {
    for (unsigned i = 0; i < n.fallbacks; i++) {
      if (n.fallback[i] == other.value) return true;
    }
    return false;
  };
  // Whoever helps h is the home itself or helps the home, too.
  return (helps(home) && attempt(home)) || ask_list_of(heaps_[home.value], helps);
}

Batch HeapSet::fetch(HeapId* h, SpanClass c, unsigned wanted, CpuId cpu, Help help, bool* untouched) {
  Batch batch = fetch_from(h, c, wanted, cpu, help, untouched);
  if (batch.head == nullptr && release_idle()) batch = fetch_from(h, c, wanted, cpu, help, untouched);
  heaps_[h->value].small_bytes.fetch_add(std::uint64_t{batch.count} * size_class(c).bytes, std::memory_order_relaxed);
  return batch;
}

Batch HeapSet::fetch_from(HeapId* h, SpanClass c, unsigned wanted, CpuId cpu, Help help, bool* untouched) {
  if (Central* own = central(*h, c); own != nullptr) {
    if (const Batch batch = own->fetch(wanted, cpu, untouched); batch.count != 0) {
      note_served(*h, cpu, batch.count);
      return batch;
    }
  }
  Batch batch;
  ask_others(*h, cpu, help, [&](HeapId other) {
    Central* theirs = central(other, c);
    // One object: as long as the other heap is the substitute, the caller gets whole batches from it.
    if (theirs != nullptr) batch = theirs->fetch(1, cpu, untouched);
    if (batch.count == 0) return false;
    note_helped(other);
    note_served(other, cpu, 1);
    // In the order of another policy it is the asker's node that decides who serves, not the heap.
    if (NodeHeap& full = heaps_[h->value]; help == Help::kNeighbours && !full.serves_all_nodes) {
      full.substitute_until_ns.store(full.heap.os().now_ns() + kFullFor, std::memory_order_relaxed);
      full.substitute.store(other.value + 1, std::memory_order_relaxed);
    }
    *h = other;
    return true;
  });
  return batch;
}

void HeapSet::flush(HeapId home, SpanClass c, void* head, unsigned count, HeapId from) {
  // An object of the class exists, so its mcentral does.
  const unsigned n = heaps_[home.value].central[central_index(c)].load(std::memory_order_acquire)->flush(head, count);
  heaps_[home.value].small_bytes.fetch_sub(std::uint64_t{n} * size_class(c).bytes, std::memory_order_relaxed);
  if (home != from) heaps_[home.value].remote_frees.fetch_add(n, std::memory_order_relaxed);
}

// Extents of first-touch memory are whole units and have no bin: the CPU caches keep them in another way.
HeapSet::Bin HeapSet::bin_for(const MHeap& heap, std::size_t bytes, bool noscan, bool binned) {
  if (!binned || bytes > kMaxBinBytes || bytes <= kMaxSmallSize || heap.whole_units()) return {bytes, kLargeClass};
  const SpanClass c = bin_class(bytes, noscan);
  return {size_class(c).bytes, c};
}

MSpan* HeapSet::alloc_large_from(MHeap& heap, std::size_t bytes, std::size_t alignment, bool noscan,
                                 NodeId asker, LargeUse use) {
  const Bin bin = bin_for(heap, bytes, noscan, use == LargeUse::kPlain);
  MSpan* span = heap.alloc_large(bin.bytes, alignment, noscan, bin.c, asker);
  if (span != nullptr && use == LargeUse::kPlaced) span->nelems |= MSpan::kLargePlaced;
  return span;
}

bool HeapSet::resize_large(MSpan* span, std::size_t bytes, NodeId asker) {
  MHeap& heap = heaps_[span->heap].heap;
  // Objects of bins begin at a page.
  const bool shifted = span->object_addr() != span->start_addr;
  const Bin bin = bin_for(heap, bytes, span->noscan(), !span->placed() && !span->sampled() && !shifted);
  return heap.resize_large(span, bin.bytes, bin.c, asker);
}

MSpan* HeapSet::alloc_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, Help help,
                            NodeId asker, LargeUse use) {
  MSpan* span = find_large(h, bytes, alignment, noscan, help, asker, use);
  if (span == nullptr && release_idle()) span = find_large(h, bytes, alignment, noscan, help, asker, use);
  if (span == nullptr) return nullptr;
  note_served(HeapId(span->heap), running_cpu(), 1);
  return span;
}

MSpan* HeapSet::find_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, Help help,
                           NodeId asker, LargeUse use) {
  MSpan* span = alloc_large_from(heaps_[h.value].heap, bytes, alignment, noscan, asker, use);
  if (span != nullptr) return span;
  ask_others(h, running_cpu(), help, [&](HeapId other) {
    span = alloc_large_from(heaps_[other.value].heap, bytes, alignment, noscan, asker, use);
    if (span == nullptr) return false;
    note_helped(other);
    return true;
  });
  return span;
}

void HeapSet::trim_centrals() {
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      if (Central* central = slot.load(std::memory_order_acquire); central != nullptr) central->trim();
    }
    heaps_[i].heap.flush_page_caches();
  }
}

void HeapSet::repair_after_fork(bool lost) {
  space_->repair_after_fork();
  // Heaps first: the mcentrals walk their page maps.
  for (unsigned i = 0; i < count_; i++) heaps_[i].heap.repair_after_fork(lost);
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      if (Central* central = slot.load(std::memory_order_acquire); central != nullptr) central->repair_after_fork(lost);
    }
  }
}

bool HeapSet::check() {
  for (unsigned i = 0; i < count_; i++) {
    for (auto& slot : heaps_[i].central) {
      Central* central = slot.load(std::memory_order_acquire);
      if (central != nullptr && !central->check()) return false;
    }
    if (!heaps_[i].heap.check()) return false;
  }
  return true;
}

}  // namespace nh
