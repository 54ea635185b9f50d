// Random traffic against a model: who owns which pages, and what must be in them. The OS refuses calls at random and the
// clock runs. A failure prints its seed and the commands that led to it; NH_FUZZ_SEED=<seed> repeats that one run.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/bits.h"
#include "heap/heap_world.h"
#include "heap/scavenger.h"

namespace nh::test {
namespace {

class Model {
 public:
  Model(const HeapWorldConfig& c, std::uint64_t seed, bool refusals) : w_(c), random_(seed) {
    ok_ = w_.set_up();
    scavenger_.init(100, 0);
    if (!refusals) return;
    w_.os.fail_randomly(FakeCall::kPopulate, EFAULT, 0.05, seed);
    w_.os.fail_randomly(FakeCall::kMapNew, seed % 2 == 0 ? ENOMEM : EEXIST, 0.05, seed);
    w_.os.fail_randomly(FakeCall::kMapPlain, ENOMEM, 0.05, seed);
    w_.os.fail_randomly(FakeCall::kDiscard, EINVAL, 0.2, seed);
    w_.os.fail_randomly(FakeCall::kMapNewHugetlb, ENOMEM, 0.2, seed);
    w_.os.fail_randomly(FakeCall::kUnmap, ENOMEM, 0.2, seed);
    w_.os.fail_randomly(FakeCall::kIsUnmapped, EEXIST, 0.2, seed);
  }

  // "" or what went wrong, with the commands so far.
  std::string run(int steps) {
    if (!ok_) return "set-up failed";
    for (int i = 0; i < steps && wrong_.empty(); i++) step();
    while (wrong_.empty() && !live_.empty()) free(live_.begin()->first);
    if (wrong_.empty() && w_.heap.stats().in_use_bytes != 0) wrong_ = "pages in use that nobody has";
    return wrong_.empty() ? "" : wrong_ + " after\n" + log_;
  }

 private:
  struct Live {
    MSpan* span;
    std::uint64_t value;
  };
  std::size_t below(std::size_t n) { return random_() % n; }
  void say(const char* what, std::size_t a, std::size_t b = 0) {
    log_ += std::string(what) + ' ' + std::to_string(a) + ' ' + std::to_string(b) + '\n';
  }
  void expect(bool true_, const char* what) {
    if (!true_ && wrong_.empty()) wrong_ = what;
  }

  void step() {
    const std::size_t action = below(100);
    if (action < 30) {
      const std::size_t pages = 1 + below(below(4) == 0 ? 16 : 6);
      say("span", pages);
      const SpanClass c = class_with_pages(pages);
      keep(w_.heap.alloc_span(c, CpuId(static_cast<int>(below(4)))), size_class(c).pages, kPageSize);
    } else if (action < 50) {
      const std::size_t bytes = 1 + below(below(5) == 0 ? 90 * MiB : 3 * MiB);
      const std::size_t alignment = kPageSize << below(below(3) == 0 ? 14 : 1);
      say("large", bytes, alignment);
      keep(w_.heap.alloc_large(bytes, alignment, false), div_up(bytes, kPageSize), alignment);
    } else if (action < 80) {
      if (!live_.empty()) free(pick());
    } else if (action < 88) {
      if (!live_.empty()) resize(pick(), 1 + below(below(3) == 0 ? 80 * MiB : 4 * MiB));
    } else if (action < 93) {
      w_.os.advance_ns(below(60) * 1'000'000);
      say("scavenger", action);
      scavenger_.step(w_.heap, action == 92);
    } else if (action < 96) {
      const std::size_t bytes = below(20 * MiB);
      say("scavenge", bytes);
      const std::size_t before = w_.heap.committed();
      const std::size_t released = w_.heap.scavenge(bytes, 0);
      expect(before - w_.heap.committed() == released, "what was released is not what is said");
    } else if (action < 98) {
      say("flush", 0);
      w_.heap.flush_page_caches();
    } else {
      const std::size_t pages = below(40);
      say("pool", pages);
      w_.os.set_pool_pages(NodeId(0), kHugeSize, pages);
    }
    audit();
  }

  std::uintptr_t pick() { return std::next(live_.begin(), static_cast<std::ptrdiff_t>(below(live_.size())))->first; }

  void keep(MSpan* span, std::size_t pages, std::size_t alignment) {
    if (span == nullptr) return;  // refused or full: allowed at any time
    expect(is_aligned(span->start_addr, alignment), "misaligned");
    expect(span->npages >= pages, "too small");
    expect(span->start_addr >= w_.space.base() && span->end_addr() <= w_.space.base() + w_.space.used_bytes(), "outside");
    const auto after = live_.lower_bound(span->start_addr);
    expect(after == live_.end() || span->end_addr() <= after->first, "overlaps the next span");
    expect(after == live_.begin() || std::prev(after)->second.span->end_addr() <= span->start_addr, "overlaps the one before");
    expect(span->need_zero || reads_zero(span), "need_zero is false and the pages are not zero");
    live_[span->start_addr] = {span, ++serial_ << 32};
    fill(span, serial_ << 32);
  }
  void free(std::uintptr_t at) {
    const Live l = live_[at];
    say("free", (at - w_.space.base()) / kPageSize, l.span->npages);
    expect(holds(l.span, l.value, l.span->npages), "contents changed");
    w_.heap.free_span(l.span);
    live_.erase(at);
  }
  void resize(std::uintptr_t at, std::size_t bytes) {
    const Live l = live_[at];
    if (l.span->span_class != kLargeClass) return;
    say("resize", (at - w_.space.base()) / kPageSize, bytes);
    const std::size_t old = l.span->npages;
    const bool ok = w_.heap.resize_large(l.span, bytes);
    expect(ok || l.span->npages == old, "a refused resize changed the span");
    expect(ok || PageCount::holding(bytes).value > old, "shrinking failed");
    expect(!ok || l.span->elem_size >= bytes, "resized to too little");
    expect(holds(l.span, l.value, std::min<std::size_t>(old, l.span->npages)), "contents changed by resizing");
    fill(l.span, l.value);
    const auto next = std::next(live_.find(at));
    expect(next == live_.end() || l.span->end_addr() <= next->first, "grew into the next span");
  }
  void audit() {
    expect(w_.heap.check(), "check()");
    std::size_t bytes = 0, large = 0;
    for (const auto& [at, l] : live_) {
      bytes += l.span->pages().bytes();
      large += l.span->span_class == kLargeClass;
    }
    const HeapStats s = w_.heap.stats();
    expect(s.in_use_bytes == bytes && s.spans == live_.size() && s.large_objects == large, "statistics");
    expect(s.committed_bytes == w_.heap.committed(), "committed bytes");
  }

  HeapWorld w_;
  std::mt19937_64 random_;
  Scavenger scavenger_;
  std::map<std::uintptr_t, Live> live_;
  std::uint64_t serial_ = 0;
  std::string log_;
  std::string wrong_;
  bool ok_ = false;
};

void run_seeds(HeapWorldConfig config, bool refusals) {
  config.window_bytes = GiB;
  const char* given = std::getenv("NH_FUZZ_SEED");
  const std::uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 0) : 1;
  for (std::uint64_t seed = first; seed < first + (given != nullptr ? 1 : 6); seed++) {
    Model model(config, seed, refusals);
    ASSERT_EQ(model.run(400), "") << "NH_FUZZ_SEED=" << seed;
  }
}

TEST(RandomTraffic, OneNodeSomeHugePages) { run_seeds(node_heap({FakeNode{.pages_2m = 30}}), false); }
TEST(RandomTraffic, TwoNodesOneSmall) { run_seeds(node_heap({FakeNode{.memory_bytes = 400 * MiB}, FakeNode{}}), false); }
TEST(RandomTraffic, FirstTouch) { run_seeds(first_touch_heap({FakeNode{.pages_2m = 100}}), false); }
TEST(RandomTraffic, RefusedCalls) { run_seeds(node_heap({FakeNode{.pages_2m = 50}, FakeNode{.pages_2m = 50}}), true); }
TEST(RandomTraffic, FirstTouchWithRefusedCalls) { run_seeds(first_touch_heap({FakeNode{.pages_2m = 100}}), true); }

}  // namespace
}  // namespace nh::test
