// The pace at which a heap's idle memory goes back to the OS. Pure arithmetic over a clock that the caller reads: who
// runs it (a thread per node, or the program's own threads in passing) is decided above.
//
// Time is counted in ticks, a quarter of the delay each. A unit that was freed at least four ticks ago is idle. Work is
// done in slices, and after a slice that took t the next one waits for 99 t: about 1 % of one CPU. Near the soft limit
// neither counts: what is free goes at once.
#pragma once

#include <cstdint>

#include "heap/mheap.h"

namespace nh {

class Scavenger {
 public:
  static constexpr std::uint32_t kTicksPerDelay = 4;
  static constexpr std::size_t kSlice = 16 * MiB;

  void init(std::uint64_t delay_ms);

  struct Step {
    std::size_t released = 0;
    std::uint64_t wait_ns = 0;  // until the next step; 0 = nothing to give back, sleep until memory is freed
  };
  // One step for one heap. restart: the first one, or the first after a sleep without end. urgent: near the limit.
  Step step(MHeap& heap, bool restart, bool urgent);
  // Keeps the clock of a heap that nobody scavenges yet: whether a step would find something.
  bool look(MHeap& heap, bool restart) const;
  std::uint64_t tick_ns() const { return tick_ns_; }

 private:
  std::uint64_t tick_ns_ = 0;
};

}  // namespace nh
