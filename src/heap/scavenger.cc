#include "heap/scavenger.h"

namespace nh {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kShortestTick = 10 * kMillisecond;
constexpr std::uint64_t kRest = 99;

}  // namespace

void Scavenger::init(std::uint64_t delay_ms) {
  tick_ns_ = delay_ms * kMillisecond / kTicksPerDelay;
  if (tick_ns_ < kShortestTick) tick_ns_ = kShortestTick;
}

bool Scavenger::look(MHeap& heap, bool restart) const {
  heap.set_tick(static_cast<std::uint32_t>(heap.os().now_ns() / tick_ns_), restart);
  return heap.idle_bytes() >= kHugeSize && heap.has_idle(kTicksPerDelay);
}

Scavenger::Step Scavenger::step(MHeap& heap, bool restart, bool urgent) {
  Step result;
  const std::uint64_t begin = heap.os().now_ns();
  heap.set_tick(static_cast<std::uint32_t>(begin / tick_ns_), restart);
  if (heap.idle_bytes() < kHugeSize) return result;
  result.released = heap.scavenge(urgent ? SIZE_MAX : kSlice, urgent ? 0 : kTicksPerDelay);
  const std::uint64_t took = heap.os().now_ns() - begin;
  const std::uint64_t rest = took * kRest;
  // Nothing was old enough, or no unit is wholly free: look again when something may have become so.
  const std::uint64_t least = result.released == 0 ? tick_ns_ : kMillisecond;
  result.wait_ns = rest > least ? rest : least;
  return result;
}

}  // namespace nh
