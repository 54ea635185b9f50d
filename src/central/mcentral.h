// mcentral: all spans of one span class in one heap, from which batches of its objects are taken and to which they come
// back, into the bits of their spans, one lock for a whole batch.
//
// A batch is a chain: objects linked through their first word, the last one null.
//
// Thread safety: all functions, from any thread. Spans are asked of the heap and given back with the lock released.
// Always-on check: an object that its span holds free already is a double free: fatal.
#pragma once

#include <cstdint>

#include "base/lock.h"
#include "central/transfer_cache.h"
#include "heap/mheap.h"
#include "heap/size_classes.h"

namespace nh {

struct CentralStats {
  std::size_t spans = 0;
  std::size_t objects_out = 0;       // taken from spans: in caches or with the program, not in the transfer cache
  std::size_t objects_transfer = 0;  // in the transfer cache
  std::uint64_t fetches = 0;
  std::uint64_t flushes = 0;
  std::uint64_t transfer_hits = 0;
};

// Objects of this size and more are worth a visit to the spans if that spares writing to their pages.
inline constexpr std::size_t kMinUntouched = kOsPageSize;

class alignas(64) MCentral {
 public:
  MCentral(MHeap& heap, SpanClass c) : heap_(heap), class_(c) {}

  // Up to `wanted` objects; none: the heap is out of memory. cpu: the caller's, a hint.
  // untouched: not null where the caller would rather have one object that reads as zero. If the next one does, since nobody
  // has had it yet and its pages come fresh from the OS, it is the only one of the batch, *untouched becomes true, and
  // neither link nor mark was written to it. Only classes of kMinUntouched bytes and more know.
  Batch fetch(unsigned wanted, CpuId cpu, bool* untouched = nullptr);
  // Takes a chain of objects of this class and heap; returns how many there were.
  unsigned flush(void* head);
  // Gives all empty spans back to the heap.
  void trim();

  // Without what the transfer cache knows: objects_out has its objects, too.
  CentralStats stats();
  SpanClass span_class() const { return class_; }
  Lock& lock() { return lock_; }

  // In a fork child where another thread was inside: forgets the sets and finds the spans again through the page map.
  void repair_after_fork(bool lost = false);  // see HeapSet
  // Audit: sets, counts and bits agree.
  bool check();

 private:
  friend struct LiveLayout;  // process/live_block.cc

  struct SpanList {
    MSpan* first = nullptr;
    void push(MSpan* s);
    void remove(MSpan* s);
  };

  Batch take_from_spans_L(unsigned wanted, bool* untouched);
  MSpan* new_span(CpuId cpu);
  void returned_L(MSpan* span, SpanList* empty);
  unsigned give_back_L(void** chain, SpanList* empty);
  void move_L(MSpan* span, SpanSet to);
  void free_spans(SpanList* spans);
  std::uint16_t* take_starts();

  Lock lock_{LockRank::kCentral};
  MHeap& heap_;
  const SpanClass class_;
  unsigned empty_spans_ = 0;  // in partial_ with no object out
  SpanList partial_;
  SpanList full_;
  std::size_t spans_ = 0;
  std::size_t objects_out_ = 0;
  std::uint64_t fetches_ = 0;
  std::uint64_t flushes_ = 0;
  std::uint16_t* spare_starts_ = nullptr;  // unused side arrays, linked through their first 8 bytes
};

}  // namespace nh
