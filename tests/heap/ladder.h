// Some units on a fake machine and a Backer beside them: what the tests of the huge-page ladder stand on.
#pragma once

#include "heap/backing.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/bits.h"
#include "support/fake_os.h"

namespace nh::test {

inline std::uint64_t fallbacks(Fallback f) { return fallback_count(f); }

// A GiB of units in a window, and a Backer that is told about them as an mheap would tell it.
class Ladder {
 public:
  static constexpr std::size_t kUnits = GiB / kHugeSize;
  static constexpr std::size_t kShown = kUnitsPerArena;

  explicit Ladder(const FakeOsConfig& machine, Backer::Config config = {}) : os(machine), units(kUnits) {
    set_fallback_quiet(true);
    if (config.nodes.empty()) config.nodes = NodeSet::of(NodeId(0));
    backer.init(os.ops(), config);
    base = align_up(os.ops().find_window(2 * GiB, 0, 0), GiB);
  }
  Backer::Run run(std::size_t first, std::size_t n) { return {&units[first], base + first * kHugeSize, n}; }

  // Backs units [first, first + n) as an mheap does: one answer for all of them, those in between that are backed left out.
  // extent: the bytes of the request that they are a part of. Returns the first errno value.
  int back(std::size_t first, std::size_t n, std::size_t extent = 0) {
    Backer::Request request;
    bool unmapped = false;
    for (std::size_t u = first; u < first + n; u++) {
      if (!units[u].backed()) request.bytes += kHugeSize;
      unmapped |= units[u].state == UnitState::kReserved;
    }
    if (request.bytes == 0) return 0;
    if (extent != 0) request.bytes = extent;
    int error = backer.decide(&request, unmapped);
    for (std::size_t u = first; u < first + n && error == 0;) {
      if (units[u].backed()) {
        u++;
        continue;
      }
      std::size_t end = u;
      while (end < first + n && !units[end].backed() && units[end].state != UnitState::kLost) end++;
      if (end == u) return EEXIST;
      std::size_t mapped = end;
      while (request.steps && mapped < kUnits && units[mapped].state == UnitState::kReserved) mapped++;
      error = backer.back(run(u, mapped - u), end - u, &request);
      u = end;
    }
    EXPECT_EQ(os.check(), "");
    return error;
  }
  int back_small() {
    const int error = backer.back_small(run(0, 1));
    EXPECT_EQ(os.check(), "");
    return error;
  }
  // Returns how many of them were.
  std::size_t release(std::size_t first, std::size_t n) {
    std::size_t before = 0, after = 0;
    for (std::size_t u = first; u < first + n; u++) before += units[u].backed();
    backer.release(run(first, n));
    for (std::size_t u = first; u < first + n; u++) after += units[u].backed();
    EXPECT_EQ(os.check(), "");
    return before - after;
  }
  bool map_1g() {
    const bool ok = backer.map_1g(run(0, kUnits));
    EXPECT_EQ(os.check(), "");
    return ok;
  }
  char* at(std::size_t u) const { return reinterpret_cast<char*>(base + u * kHugeSize); }
  std::size_t in_state(UnitState state) const {
    std::size_t n = 0;
    for (const Unit& u : units) n += u.state == state;
    return n;
  }
  // What backs the first units, as the machine has it and as the units say, up to the last that is backed: "2" hugetlb,
  // "t" THP, "b" base, "." none.
  std::string kinds() {
    std::string text;
    for (std::size_t u = 0; u < kUnits; u++) {
      const Backing truth = os.backing_of(at(u)), said = units[u].backing();
      EXPECT_TRUE(truth == said || truth == Backing::kNone) << "unit " << u;
      if (u >= kShown) continue;
      text += said == Backing::kHuge1G ? '1' : said == Backing::kHuge2M ? '2' : said == Backing::kThp ? 't'
              : said == Backing::kBase ? 'b' : '.';
    }
    return text.substr(0, text.find_last_not_of('.') + 1);
  }
  // Every byte that may be used can be written.
  void use() {
    for (std::size_t u = 0; u < kUnits; u++) {
      if (units[u].backed()) at(u)[0] = at(u)[kHugeSize - 1] = 1;
    }
  }

  FakeOs os;
  Backer backer;
  std::vector<Unit> units;
  std::uintptr_t base;
};

inline FakeOsConfig machine(std::size_t pages_2m, std::size_t pages_1g = 0) {
  return {.nodes = {FakeNode{.pages_2m = pages_2m, .pages_1g = pages_1g}}};
}
inline FakeOsConfig two_nodes(std::size_t pages_on_0, std::size_t pages_on_1, std::size_t memory = 4 * GiB) {
  return {.nodes = {FakeNode{.memory_bytes = memory, .pages_2m = pages_on_0},
                    FakeNode{.memory_bytes = memory, .pages_2m = pages_on_1}}};
}
inline Backer::Config wanting(HugePagesOption huge) {
  Backer::Config c;
  c.huge_pages = huge;
  return c;
}
inline Backer::Config bound_to(NodeId node, HugePagesOption huge = HugePagesOption::kAuto) {
  Backer::Config c = wanting(huge);
  c.policy = BindMode::kBind;
  c.nodes = NodeSet::of(node);
  return c;
}
inline Backer::Config first_touch(NodeSet nodes = NodeSet::of(NodeId(0))) {
  Backer::Config c;
  c.kind = HeapKind::kFirstTouch;
  c.nodes = nodes;
  return c;
}

}  // namespace nh::test
