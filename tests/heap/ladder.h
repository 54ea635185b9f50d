// Some arenas on a fake machine and a Backer beside them: what the tests of the huge-page ladder stand on.
#pragma once

#include "heap/backing.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/bits.h"
#include "support/fake_os.h"

namespace nh::test {


inline constexpr std::uint32_t kAll = HeapArena::kAll;

inline std::uint64_t fallbacks(Fallback f) { return fallback_count(f); }

// Some arenas in a reservation, and a Backer that is told about them as an mheap would tell it.
class Ladder {
 public:
  explicit Ladder(const FakeOsConfig& machine, Backer::Config config = {}) : os(machine), group(kArenas) {
    set_fallback_quiet(true);
    if (config.nodes.empty()) config.nodes = NodeSet::of(NodeId(0));
    backer.init(os.ops(), config);
    base = address(os.ops().reserve(kArenas * kArenaSize, GiB));
  }
  // As an mheap does it. Returns the errno value.
  int back(std::size_t index, std::uint32_t units, std::size_t extent = 0) {
    HeapArena& a = group[index];
    a.busy = true;
    Backer::Extent whole{extent != 0 ? extent : kArenaSize};
    int error = backer.map(a, start(index), index == 0, units, &whole);
    if (error == 0) error = backer.populate(a, start(index), units, index == 0);
    a.busy = false;
    EXPECT_EQ(os.check(), "");
    EXPECT_EQ(a.backed & ~a.mapped, 0u);
    return error;
  }
  std::uint32_t release(std::size_t index, std::uint32_t units) {
    std::uint32_t released = 0;
    backer.release(group[index], start(index), units, &released);
    EXPECT_EQ(os.check(), "");
    return released;
  }
  std::uintptr_t start(std::size_t index) const { return base + index * kArenaSize; }
  char* unit(std::size_t index, unsigned u) const { return reinterpret_cast<char*>(start(index) + u * kHugeSize); }
  // The kinds of an arena's units as the machine has them and as the arena says: "2" hugetlb, "t" THP, "b" base, "." none.
  std::string kinds(std::size_t index) {
    std::string text;
    for (unsigned u = 0; u < kHugePerArena; u++) {
      const Backing truth = os.backing_of(unit(index, u));
      const Backing said = group[index].backing_of(u);
      EXPECT_TRUE(truth == said || truth == Backing::kNone) << "unit " << u;
      text += said == Backing::kHuge1G ? '1' : said == Backing::kHuge2M ? '2' : said == Backing::kThp ? 't'
              : said == Backing::kBase ? 'b' : '.';
    }
    return text;
  }
  // Every byte that may be used can be written.
  void use(std::size_t index) {
    for (unsigned u = 0; u < kHugePerArena; u++) {
      if ((group[index].backed >> u & 1) != 0) unit(index, u)[0] = unit(index, u)[kHugeSize - 1] = 1;
    }
  }

  FakeOs os;
  Backer backer;
  std::vector<HeapArena> group;
  std::uintptr_t base;

 private:
  static constexpr std::size_t kArenas = kArenasPerGiB;
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
  c.bind = true;
  c.nodes = NodeSet::of(node);
  return c;
}
inline Backer::Config first_touch(NodeSet nodes = NodeSet::of(NodeId(0))) {
  Backer::Config c;
  c.first_touch = true;
  c.has_small_unit = false;
  c.nodes = nodes;
  return c;
}

}  // namespace nh::test
