// All heaps of the process: one per node, the first-touch heap, the interleaved heap; the mcentrals of each; and who
// helps whom when memory runs out.
//
// Thread safety: set up once, then everything from any thread. mcentrals are made at first use, on their heap's node.
#pragma once

#include <atomic>
#include <cstdint>

#include "central/central.h"
#include "heap/mheap.h"

namespace nh {

// Pages of its own, so that each can lie on its node.
struct alignas(kOsPageSize) NodeHeap {
  MHeap heap;
  std::atomic<Central*> central[2 * kCachedClasses];  // the second half for placed objects
  std::atomic<std::uint64_t> small_bytes;    // in small objects that are with CPUs or the program
  std::atomic<std::uint64_t> remote_frees;   // objects that CPUs of other nodes sent home
  std::atomic<std::uint64_t> foreign_serves;  // spans and batches given to CPUs whose own heap had no memory left
  std::atomic<std::uint64_t> served_objects;  // handed out: in batches to CPUs, large ones one by one
  std::atomic<std::uint64_t> local_objects;   // those of them that CPUs of this heap's node got
  std::uint16_t fallback[kMaxNodes];         // heaps to ask next, nearest first
  std::uint16_t fallbacks;
  // While the node is full, which is remembered for some ms: the heap that serves instead, + 1, and until when. 0: none.
  std::atomic<std::uint32_t> substitute;
  std::atomic<std::uint64_t> substitute_until_ns;
  bool serves_all_nodes;  // fallback says who helps, but the node of the CPU that asks says in which order
};

constexpr unsigned central_index(SpanClass c) { return c.list() + (c.is_placed() ? kCachedClasses : 0); }

// Who serves a request that its own heap has no memory for.
enum class Help : std::uint8_t {
  kNobody,
  kNeighbours,  // of the heap; where it is no node's, those of the CPU that asks
  // In the order that HelpersOf tells for the CPU that asks:
  kPolicy,  // the process's policy
  kBandwidth,
  kLatency,
  kCapacity,
  kFast,  // fast memory and nothing else
};
// The heaps that serve a request of this CPU to heap h in that order, h among them: out[0 .. result - 1], room for kMaxNodes.
using HelpersOf = unsigned (*)(Help help, HeapId h, CpuId cpu, HeapId* out);

// The heap of the node that a CPU is on, whatever policy is in force.
using HomeOfCpu = HeapId (*)(CpuId cpu);

// Placed and sampled objects have no bin, since no CPU may keep one and hand it to somebody else.
enum class LargeUse : std::uint8_t { kPlain, kPlaced, kSampled };

class HeapSet {
 public:
  // memory: zeroed, for `count` heaps. The caller initialises each heap afterwards.
  void init(NodeHeap* memory, unsigned count, AddressSpace* space);

  // For the statistics; without it nobody's objects count as local.
  void set_home_of_cpu(HomeOfCpu home) { home_of_cpu_ = home; }
  // Without it neighbours help.
  void set_helpers(HelpersOf helpers) { helpers_of_ = helpers; }

  unsigned count() const { return count_; }
  NodeHeap& operator[](HeapId h) { return heaps_[h.value]; }
  AddressSpace& space() { return *space_; }

  // nullptr where there is no memory for the mcentral itself.
  Central* central(HeapId h, SpanClass c);

  // A batch from heap h. *h becomes the heap that served, where h itself had nothing left.
  // untouched: as for MCentral::fetch().
  Batch fetch(HeapId* h, SpanClass c, unsigned wanted, CpuId cpu, Help help, bool* untouched = nullptr);
  // The heap that serves instead of h, for those whom neighbours help, because h's node was found full a moment ago; h itself
  // where there is none. Whoever is served by it asks h again once ends_substitute() says true, and calls drop_substitute()
  // where it is full as well. Hints, so that their order does not matter: with an old one a heap is asked a little too early
  // or too late.
  HeapId substitute_of(HeapId h) const {
    const std::uint32_t other = heaps_[h.value].substitute.load(std::memory_order_relaxed);
    return other == 0 ? h : HeapId(other - 1);
  }
  bool ends_substitute(HeapId h);
  void drop_substitute(HeapId h) { heaps_[h.value].substitute.store(0, std::memory_order_relaxed); }
  // Heap `by` has served a CPU whose own heap had no memory left.
  void note_helped(HeapId by);
  // About `count` objects of one class and heap go home. from: the heap of the CPU that sends them.
  void flush(HeapId home, SpanClass c, void* head, unsigned count, HeapId from);
  // nullptr: out of memory everywhere that may be asked. The size is rounded up to that of the bin, where there is one.
  // asker: the node of the calling thread.
  MSpan* alloc_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, Help help, NodeId asker = {},
                     LargeUse use = LargeUse::kPlain);
  void free_large(MSpan* span) { heaps_[span->heap].heap.free_span(span); }
  // Grows or shrinks a large object where it stands. False: nothing changed (shrinking always succeeds).
  bool resize_large(MSpan* span, std::size_t bytes, NodeId asker = {});

  // Gives all idle memory back to the OS at once. True: there was some.
  bool release_idle();
  // Empties the transfer caches, gives empty spans and page caches back.
  void trim_centrals();

  // lost: some units do not exist in this child; nothing of them may be handed out.
  void repair_after_fork(bool lost = false);
  bool check();

 private:
  struct Bin {
    std::size_t bytes;
    SpanClass c;
  };
  static Bin bin_for(const MHeap& heap, std::size_t bytes, bool noscan, bool binned);
  Batch fetch_from(HeapId* h, SpanClass c, unsigned wanted, CpuId cpu, Help help, bool* untouched);
  static MSpan* alloc_large_from(MHeap& heap, std::size_t bytes, std::size_t alignment, bool noscan, NodeId asker,
                                 LargeUse use);
  MSpan* find_large(HeapId h, std::size_t bytes, std::size_t alignment, bool noscan, Help help, NodeId asker,
                    LargeUse use);
  // Calls attempt(heap) for one after the other of the heaps that help h out, until it says true.
  template <typename Attempt>
  bool ask_others(HeapId h, CpuId cpu, Help help, Attempt&& attempt);
  void note_served(HeapId h, CpuId cpu, unsigned objects);

  HomeOfCpu home_of_cpu_ = nullptr;
  HelpersOf helpers_of_ = nullptr;
  NodeHeap* heaps_ = nullptr;
  unsigned count_ = 0;
  AddressSpace* space_ = nullptr;
};

}  // namespace nh
