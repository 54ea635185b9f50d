#include "heap/scavenger.h"

namespace nh {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kShortestTick = 10 * kMillisecond;
constexpr std::uint64_t kRest = 99;
constexpr std::uint64_t kRestOfCollapsing = 3;

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
      const std::uint64_t due = until(begin, ticks, end);
      if (due > least) least = due;
    }
    const std::uint64_t rest = (end - begin) * kRest;
    if (more) result.wait_ns = rest > least ? rest : least;
  }
  if (!urgent && heap.may_collapse()) collapse(heap, begin, &result);
  plan(heap, begin, result.wait_ns);
  return result;
}

// From now until so many ticks after the one in which a step began.
std::uint64_t Scavenger::until(std::uint64_t begin_ns, std::uint32_t ticks, std::uint64_t now_ns) const {
  const std::uint64_t due = start_ns_ + (ticks_at(begin_ns) + ticks) * tick_ns_;
  return due > now_ns ? due - now_ns : 0;
}

void Scavenger::collapse(MHeap& heap, std::uint64_t begin_ns, Step* step) const {
  const std::uint64_t begin = heap.os().now_ns();
  const MHeap::Collapsed done = heap.collapse(kUnitsToCollapse, kTicksPerDelay);
  if (!done.more && done.wait == 0) return;
  const std::uint64_t end = heap.os().now_ns();
  std::uint64_t wait = done.more ? (end - begin) * kRestOfCollapsing : until(begin_ns, done.wait, end);
  if (done.more && wait > tick_ns_) wait = tick_ns_;
  if (wait < kMillisecond) wait = kMillisecond;
  step->collapsed = done.more;
  if (step->wait_ns == 0 || wait < step->wait_ns) step->wait_ns = wait;
}

}  // namespace nh
