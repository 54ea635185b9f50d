// The pace at which a heap's idle memory goes back to the OS. Pure arithmetic over a clock that the caller reads: who
// runs it (a thread per node, or the program's own threads in passing) is decided above.
//
// Time is counted in ticks, a quarter of the delay each, from the start of the process. A unit that was freed at least
// four ticks ago is idle. Work is done in slices, and after a slice that took t the next one waits for 99 t: about 1 % of
// one CPU. While nothing is old enough there is nothing to do until the oldest unit is, and nothing at all while no unit is
// free. Near the soft limit none of this counts: what is free goes at once.
//
// Huge pages for touched pages are made beside that, a few at a time. After these the next ones wait for 3 times as long, a
// tick at most: the program gains by every one of them, and there is an end to it.
//
// Nobody needs to keep the clock between two steps. A step sets the heap's clock forward to when the next one is due, so
// that memory which is freed meanwhile counts as freed then: it goes up to one delay late, and never early.
#pragma once

#include <cstdint>

#include "heap/mheap.h"

namespace nh {

class Scavenger {
 public:
  static constexpr std::uint32_t kTicksPerDelay = 4;
  static constexpr std::size_t kSlice = 16 * MiB;
  static constexpr unsigned kUnitsToCollapse = 16;

  // start_ns: the time that ticks are counted from; no heap has freed memory before.
  void init(std::uint64_t delay_ms, std::uint64_t start_ns);

  struct Step {
    std::size_t released = 0;
    bool collapsed = false;
    std::uint64_t wait_ns = 0;  // until the next step; 0 = nothing to give back, sleep until memory is freed
  };
  // One step for one heap, at any time. urgent: near the limit.
  Step step(MHeap& heap, bool urgent);
  // Keeps the clock of a heap that nobody scavenges yet: whether a step would find something.
  bool look(MHeap& heap) const;
  std::uint64_t tick_ns() const { return tick_ns_; }
  std::uint64_t delay_ns() const { return tick_ns_ * kTicksPerDelay; }

 private:
  std::uint64_t ticks_at(std::uint64_t now_ns) const { return (now_ns - start_ns_) / tick_ns_; }
  void keep_clock(MHeap& heap, std::uint64_t now_ns) const;
  void plan(MHeap& heap, std::uint64_t now_ns, std::uint64_t wait_ns) const;
  std::uint64_t until(std::uint64_t begin_ns, std::uint32_t ticks, std::uint64_t now_ns) const;
  void collapse(MHeap& heap, std::uint64_t begin_ns, Step* step) const;

  std::uint64_t tick_ns_ = 0;
  std::uint64_t start_ns_ = 0;
};

}  // namespace nh
