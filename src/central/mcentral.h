// mcentral: all spans of one span class in one heap, and batches of its objects on their way between CPUs.
//
// A cache that ran empty fetches a batch, one that ran over flushes one. Batches that come in are kept whole for a while
// (the transfer cache), so that a producer on one CPU and a consumer on another exchange objects without touching spans.
// Beyond that objects go back into the bits of their spans, span by span, one lock for the whole batch.
//
// A batch is a chain: objects linked through their first word, the last one null.
//
// Thread safety: all functions, from any thread. Spans are asked of the heap and given back with the lock released.
// Always-on check: an object that its span holds free already is a double free: fatal.
#pragma once

#include <cstdint>

#include "base/lock.h"
#include "heap/mheap.h"
#include "heap/size_classes.h"

namespace nh {

struct Batch {
  void* head = nullptr;
  unsigned count = 0;
};

// First word of a free object.
inline void*& next_object(void* p) { return *static_cast<void**>(p); }

struct CentralStats {
  std::size_t spans = 0;
  std::size_t objects_out = 0;       // taken from spans: in caches or with the program, not in the transfer cache
  std::size_t objects_transfer = 0;  // in the transfer cache
  std::uint64_t fetches = 0;
  std::uint64_t flushes = 0;
  std::uint64_t transfer_hits = 0;
};

class alignas(64) MCentral {
 public:
  MCentral(MHeap& heap, SpanClass c) : heap_(heap), class_(c) {}

  // Up to `wanted` objects of a span, or a whole batch from the transfer cache, which may be more; none: the heap is out
  // of memory. cpu: the caller's, a hint.
  Batch fetch(unsigned wanted, CpuId cpu);
  // Takes a chain of about `count` objects of this class and heap; returns how many there were.
  unsigned flush(void* head, unsigned count);
  // Puts the transfer cache's objects back into their spans and gives all empty spans back to the heap.
  void trim();

  CentralStats stats();
  SpanClass span_class() const { return class_; }
  Lock& lock() { return lock_; }

  // In a fork child where another thread was inside: forgets the sets and finds the spans again through the page map.
  void repair_after_fork(bool lost = false);  // see HeapSet
  // Audit: sets, counts and bits agree.
  bool check();

 private:
  static constexpr unsigned kMaxSlots = 64;

  struct SpanList {
    MSpan* first = nullptr;
    void push(MSpan* s);
    void remove(MSpan* s);
  };

  unsigned slots() const;
  Batch take_from_spans_L(unsigned wanted);
  MSpan* new_span(CpuId cpu);
  void returned_L(MSpan* span, SpanList* empty);
  unsigned give_back_L(void** chain, SpanList* empty);
  void move_L(MSpan* span, SpanSet to);
  void free_spans(SpanList* spans);
  std::uint16_t* take_starts();

  Lock lock_{LockRank::kCentral};
  MHeap& heap_;
  const SpanClass class_;
  unsigned nslots_ = 0;
  unsigned empty_spans_ = 0;  // in partial_ with no object out
  SpanList partial_;
  SpanList full_;
  std::size_t spans_ = 0;
  std::size_t objects_out_ = 0;
  std::uint64_t fetches_ = 0;
  std::uint64_t flushes_ = 0;
  std::uint64_t transfer_hits_ = 0;
  std::uint16_t* spare_starts_ = nullptr;  // unused side arrays, linked through their first 8 bytes
  Batch slot_[kMaxSlots];
};

}  // namespace nh
