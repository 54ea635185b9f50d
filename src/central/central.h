// What CPUs fetch batches of objects of one class and heap from, and flush them to: a transfer cache, and behind it the
// mcentral, which has the spans.
//
// Thread safety: all functions, from any thread. Each of the two has a lock of its own, and neither is taken under the
// other: an object on its way from one to the other belongs to the thread that carries it.
#pragma once

#include <cstdint>

#include "central/mcentral.h"
#include "central/transfer_cache.h"

namespace nh {

class Central {
 public:
  Central(MHeap& heap, SpanClass c) : transfer_(c), spans_(heap, c) {}

  // One object if one is wanted; else up to `wanted` objects of spans, or a whole batch from the transfer cache, which may be
  // more; none: the heap is out of memory. cpu: the caller's, a hint. untouched: as for MCentral::fetch().
  Batch fetch(unsigned wanted, CpuId cpu, bool* untouched = nullptr);
  // Takes a chain of about `count` objects of this class and heap; returns how many there were.
  unsigned flush(void* head, unsigned count);
  // Puts the transfer cache's objects back into their spans and gives all empty spans back to the heap.
  void trim();

  // Of the moment, as far as other threads let it be.
  CentralStats stats();
  SpanClass span_class() const { return spans_.span_class(); }
  TransferCache& transfer() { return transfer_; }
  MCentral& spans() { return spans_; }

  void repair_after_fork(bool lost = false);  // see HeapSet
  // Audit: sets, counts, chains and bits agree.
  bool check() { return transfer_.check() && spans_.check(); }

 private:
  friend struct LiveLayout;  // process/live_block.cc

  TransferCache transfer_;
  MCentral spans_;
};

}  // namespace nh
