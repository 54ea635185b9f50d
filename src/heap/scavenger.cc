#include "heap/scavenger.h"

namespace nh {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kShortestTick = 10 * kMillisecond;
constexpr std::uint64_t kRest = 99;

}  // namespace

void Scavenger::init(std::uint64_t delay_ms, std::uint64_t start_ns) {
  tick_ns_ = delay_ms * kMillisecond / kTicksPerDelay;
  if (tick_ns_ < kShortestTick) tick_ns_ = kShortestTick;
  start_ns_ = start_ns;
}

// Brings a heap's clock to the present. If that is later than planned, nobody kept it meanwhile.
void Scavenger::keep_clock(MHeap& heap, std::uint64_t now_ns) const {
  const auto now = static_cast<std::uint32_t>(ticks_at(now_ns));
  if (static_cast<std::int32_t>(now - heap.tick()) > 0) heap.skip_ticks(now, kTicksPerDelay);
  heap.set_tick(now);
}

// At least a tick ahead, so that the stamps from now on are none that were given before.
void Scavenger::plan(MHeap& heap, std::uint64_t now_ns, std::uint64_t wait_ns) const {
  std::uint64_t next = ticks_at(now_ns + wait_ns + tick_ns_ - 1);
  if (next <= ticks_at(now_ns)) next = ticks_at(now_ns) + 1;
  heap.set_tick(static_cast<std::uint32_t>(next));
}

bool Scavenger::look(MHeap& heap) const {
  const std::uint64_t now = heap.os().now_ns();
  keep_clock(heap, now);
  std::uint32_t wait;
  const bool old = heap.idle_bytes() >= kHugeSize && heap.next_idle(kTicksPerDelay, &wait) && wait == 0;
  plan(heap, now, tick_ns_);
  return old;
}

Scavenger::Step Scavenger::step(MHeap& heap, bool urgent) {
  Step result;
  const std::uint64_t begin = heap.os().now_ns();
  keep_clock(heap, begin);
  if (heap.idle_bytes() >= kHugeSize) {
    result.released = heap.scavenge(urgent ? SIZE_MAX : kSlice, urgent ? 0 : kTicksPerDelay);
    const std::uint64_t end = heap.os().now_ns();
    std::uint64_t least = kMillisecond;
    std::uint32_t ticks = 0;
    bool more = true;
    if (result.released == 0) {
      more = heap.next_idle(kTicksPerDelay, &ticks);
      // What is old enough and still there was refused; perhaps it will not be the next time.
      if (ticks == 0) ticks = kTicksPerDelay;
      const std::uint64_t due = start_ns_ + (ticks_at(begin) + ticks) * tick_ns_;
      if (due > end + least) least = due - end;
    }
    const std::uint64_t rest = (end - begin) * kRest;
    if (more) result.wait_ns = rest > least ? rest : least;
  }
  plan(heap, begin, result.wait_ns);
  return result;
}

}  // namespace nh
