// mspan: a run of pages that holds objects of one span class, or one large object.
//
// Which objects are free is told by two words together: alloc_bits holds one bit per object, 1 = handed out, and
// alloc_cache is a 64-bit window over the objects from free_index on, 1 = free, so that the next free object is a
// count-trailing-zeros away. While a word's objects are in the window, the window alone is right about them and their
// bits in alloc_bits are all 1: there is never a second opinion.
//
// A span belongs to the mcentral of its class, under whose lock everything here but the page run changes.
#pragma once

#include <cstdint>

#include "base/bits.h"
#include "base/check.h"
#include "base/units.h"
#include "heap/span_class.h"

namespace nh {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr unsigned kMaxObjectsPerSpan = 1024;

enum class SpanSet : std::uint8_t { kNone, kPartial, kFull };  // where its mcentral keeps it
enum class SpanUse : std::uint8_t {
  kNone,
  kInUse,  // from the moment the page map names it until its pages are freed
  kSampled,  // the same, of an object that the profiler follows
  kFreed,  // a large object that was freed: on its way into the heap, or kept in a CPU's cache, linked by its descriptor
};

struct alignas(64) MSpan {
  MSpan* next;  // first, as in a free object: in a mcentral's set, a CPU's cache, or a list of unused descriptors
  MSpan* prev;
  std::uintptr_t start_addr;
  std::size_t elem_size;      // bytes per object, 0 until init_objects() is done; of a large object: its usable bytes
  std::uint64_t alloc_cache;  // the window: bit i = object (free_index & ~63) + i is free; of a large object: what it
                              // counts as in statistics, in bytes
  union {
    std::uint16_t* starts;      // tiny and 8-byte spans: 16 start bits per 16 bytes, in metadata memory
    std::uint64_t fresh_from;   // others: objects from here on were never handed out, as far as note_taken() was told
  };
  std::uint32_t npages;
  std::uint16_t nelems;
  std::uint16_t alloc_count;  // objects handed out, to caches or to the program
  std::uint16_t free_index;   // start of the window, a multiple of 64; of a large object: the cache lines before it
  std::uint16_t heap;         // HeapId
  SpanClass span_class;
  SpanSet set : 7;
  bool need_zero : 1;         // some page was written since the OS gave it
  SpanUse use;                // a byte of its own: the heap, and free of a sampled object, take a large one by an exchange
  union {
    std::uint64_t alloc_bits[kMaxObjectsPerSpan / 64];
    struct {                      // of a sampled object:
      std::uint64_t objects;      // how many it stands for, in the profiler's unit,
      std::uint64_t bytes;        // and how much memory
      std::uint32_t site;         // where it was allocated
    } sample;
  };

  PageCount pages() const { return PageCount(npages); }
  std::uintptr_t end_addr() const { return start_addr + (std::uintptr_t{npages} << kPageShift); }

  // Where a large object begins. Within the span's first page.
  std::uintptr_t object_addr() const { return start_addr + free_index * kCacheLine; }
  // Makes a large object begin some cache lines into its span.
  void shift_object(unsigned lines) {
    free_index = static_cast<std::uint16_t>(lines);
    elem_size = pages().bytes() - lines * kCacheLine;
  }

  // Makes all objects free. npages, start_addr, span_class are set already.
  void init_objects(std::size_t size, unsigned count) {
    NH_ASSERT(count > 0 && count <= kMaxObjectsPerSpan);
    nelems = static_cast<std::uint16_t>(count);
    alloc_count = 0;
    for (unsigned w = 0; w < div_up(count, 64); w++) alloc_bits[w] = 0;
    // Objects past the end are handed out for ever.
    if (count % 64 != 0) alloc_bits[count / 64] = ~low_bits(count % 64);
    open_window(0);
    // Last: a fork child that finds the span half-made takes elem_size == 0 for the sign of it.
    __atomic_store_n(&elem_size, size, __ATOMIC_RELEASE);
  }

  bool full() const { return alloc_count == nelems; }

  // Whether the objects hold no pointers, and whether they are placed ones. Not every large object's class has bits for
  // these; the unused object count serves.
  bool noscan() const {
    return span_class.is_large() ? (nelems & kLargeNoscan) != 0 : span_class.noscan();
  }
  bool sampled() const { return use == SpanUse::kSampled; }
  bool placed() const { return span_class.is_large() ? (nelems & kLargePlaced) != 0 : span_class.is_placed(); }
  static constexpr std::uint16_t kLargeNoscan = 1, kLargePlaced = 2;

  // Takes up to `wanted` free objects in address order of the window, calling take(index) for each; returns how many.
  template <typename Take>
  unsigned take_free(unsigned wanted, Take&& take) {
    unsigned taken = 0;
    const unsigned words = static_cast<unsigned>(div_up(nelems, 64));
    while (taken < wanted && alloc_count < nelems) {
      if (alloc_cache == 0) {
        close_window();
        unsigned w = free_index / 64u;
        do {
          w = w + 1 == words ? 0 : w + 1;
        } while (alloc_bits[w] == ~std::uint64_t{0});
        open_window(w);
      }
      const unsigned bit = static_cast<unsigned>(std::countr_zero(alloc_cache));
      alloc_cache &= alloc_cache - 1;
      alloc_count++;
      take(free_index + bit);
      taken++;
    }
    return taken;
  }

  // For spans of few objects, from which those at the lowest addresses are taken first. Such a span knows which of them nobody
  // has had yet.
  static constexpr unsigned kMostToKnowUntouched = 64;
  void note_taken(unsigned index) {
    if (index >= fresh_from) fresh_from = index + 1;
  }
  // Whether the next object to be taken reads as zero and was never written to. Not for a full span.
  bool next_is_untouched() const {
    return !need_zero && static_cast<unsigned>(std::countr_zero(alloc_cache)) >= fresh_from;
  }

  // Gives object `index` back. False where it was free already: a double free.
  bool give_back(unsigned index) {
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    if (index / 64 == free_index / 64u) {
      if ((alloc_cache & bit) != 0) return false;
      alloc_cache |= bit;
    } else {
      if ((alloc_bits[index / 64] & bit) == 0) return false;
      alloc_bits[index / 64] &= ~bit;
    }
    alloc_count--;
    return true;
  }

  bool is_free(unsigned index) const {
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    if (index / 64 == free_index / 64u) return (alloc_cache & bit) != 0;
    return (alloc_bits[index / 64] & bit) == 0;
  }

  // Audit: the counts agree with the bits.
  bool check() const {
    unsigned free_objects = 0;
    for (unsigned i = 0; i < nelems; i++) free_objects += is_free(i);
    return free_objects + alloc_count == nelems && alloc_bits[free_index / 64u] == ~std::uint64_t{0};
  }

 private:
  void open_window(unsigned word) {
    free_index = static_cast<std::uint16_t>(word * 64);
    // In this order: a fork child that finds the span between the two takes objects for handed out, not for free.
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    alloc_cache = ~alloc_bits[word];
    alloc_bits[word] = ~std::uint64_t{0};
  }
  void close_window() { alloc_bits[free_index / 64u] = ~alloc_cache; }
};

// Says that a large object was freed twice, by two threads at once, and aborts.
[[noreturn, gnu::cold]] void large_freed_twice(const MSpan& span);

static_assert(sizeof(MSpan) == 192, "three cache lines: fields, then 128 bytes of bits");

}  // namespace nh
