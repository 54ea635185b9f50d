// Several heaps in one window: whose the arenas are, how large a machine may be, and what is left in between.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "base/bits.h"
#include "heap/heap_world.h"

namespace nh::test {
namespace {

const void* at(std::uintptr_t a) { return reinterpret_cast<const void*>(a); }

struct SharedWindow {
  SharedWindow(const FakeOsConfig& config, unsigned count, std::size_t window) : os(config), heaps(count) {
    set_fallback_quiet(true);
    ok = space.init(os.ops(), window_of(window, count));
    for (unsigned h = 0; h < count; h++) {
      heaps[h] = std::make_unique<MHeap>();
      MHeap::Config c = node_heap({FakeNode{}}).heap;
      c.id = HeapId(h);
      heaps[h]->init(os.ops(), space, c);
    }
  }
  FakeOs os;
  AddressSpace space;
  std::vector<std::unique_ptr<MHeap>> heaps;
  bool ok = false;
};

// ---- arenas of several heaps ---------------------------------------------------------------------------------------

// The numbering alone, in tables of its own, against a list of who got what.
class ArenaModel {
 public:
  static constexpr unsigned kHeaps = 3;

  explicit ArenaModel(std::uint64_t seed) : random_(seed) {
    EXPECT_TRUE(space_.init(os_.ops(), window_of(64 * GiB, kHeaps)));
    for (unsigned h = 0; h < kHeaps; h++) arenas_[h].init(os_.ops(), space_, HeapId(h), NodeId());
    // Things of others here and there.
    for (std::size_t a = 3; a < 900; a += 1 + random_() % 200) {
      os_.add_obstacle(space_.arena_address(static_cast<ArenaIndex>(a)) + random_() % 1000 * kOsPageSize, kOsPageSize);
    }
  }
  void grow() {
    const unsigned h = static_cast<unsigned>(random_() % kHeaps);
    const std::size_t count = 1 + random_() % (random_() % 4 == 0 ? 20 : 3);
    HeapArenas& arenas = arenas_[h];
    ArenaIndex first = 0;
    ASSERT_EQ(arenas.prepare(count), 0);
    ASSERT_EQ(space_.deal(HeapId(h), count, random_() % 5 == 0 ? GiB : kArenaSize, arenas.last(),
                          static_cast<std::uint32_t>(arenas.end()), &first), 0);
    arenas.add(first, count);
    for (std::size_t i = 0; i < count; i++) owner_[first + static_cast<ArenaIndex>(i)] = h;
  }
  void audit() {
    const auto end = static_cast<ArenaIndex>(space_.used_bytes() / kArenaSize);
    std::size_t count[kHeaps] = {};
    for (ArenaIndex a = 0; a < end; a++) {
      const auto known = owner_.find(a);
      const ArenaOwner& owner = space_.owner(at(space_.arena_address(a)));
      ASSERT_EQ(owner.has_heap(), known != owner_.end()) << a;
      if (known == owner_.end()) continue;
      ASSERT_EQ(owner.heap().value, known->second);
      count[known->second]++;
      const HeapArenas& arenas = arenas_[known->second];
      for (const std::size_t offset : {std::size_t{0}, kHugeSize * 5 + kPageSize * 7, kArenaSize - kPageSize}) {
        const std::uintptr_t p = space_.arena_address(a) + offset;
        const PageId page = arenas.page_of(p);
        ASSERT_EQ(arenas.address_of(page), p);
        ASSERT_EQ(arenas.page_of(p + kPageSize - 1), page);
        ASSERT_EQ(arenas.window_index(UnitId::of(page).arena()), a);
        ASSERT_TRUE(arenas.exists(UnitId::of(page).arena()));
      }
    }
    for (unsigned h = 0; h < kHeaps; h++) {
      const HeapArenas& arenas = arenas_[h];
      ASSERT_EQ(arenas.count(), count[h]);
      std::size_t visited = 0;
      arenas.for_each_arena([&](UnitRange units, std::uintptr_t start) {
        visited++;
        EXPECT_EQ(arenas.address_of(units.first), start);
        EXPECT_EQ(units.count().value, kUnitsPerArena);
      });
      ASSERT_EQ(visited, count[h]);
      // Numbers that follow each other are neighbours: a run of pages cannot reach over what is not its heap's.
      for (std::size_t n = 1; n < arenas.end(); n++) {
        if (arenas.exists(n - 1) && arenas.exists(n)) {
          ASSERT_EQ(arenas.window_index(n - 1) + 1, arenas.window_index(n));
        }
        ASSERT_TRUE(arenas.exists(n - 1) || arenas.exists(n)) << "more than one number left out";
      }
    }
  }
  // Free runs of any length lie in arenas of one heap, side by side.
  void expect_runs_within_neighbours() {
    for (unsigned h = 0; h < kHeaps; h++) {
      PageAlloc& pages = arenas_[h].pages();
      for (const std::size_t n : {20 * kPagesPerArena, 3 * kPagesPerArena + 5, kPagesPerArena, kPagesPerArena / 2 + 1}) {
        for (;;) {
          const PageAlloc::Run run = pages.alloc(PageCount(n));
          if (!run.ok) break;
          const std::uintptr_t start = arenas_[h].address_of(run.first);
          ASSERT_EQ(arenas_[h].address_of(run.first + PageCount(n - 1)), start + (n - 1) * kPageSize);
          for (std::size_t p = 0; p < n; p += kPagesPerArena / 2) {
            const auto arena = static_cast<ArenaIndex>((start + p * kPageSize - space_.base()) / kArenaSize);
            ASSERT_TRUE(owner_.contains(arena) && owner_[arena] == h);
          }
        }
      }
    }
  }

 private:
  FakeOs os_;
  AddressSpace space_;
  HeapArenas arenas_[kHeaps];
  std::map<ArenaIndex, unsigned> owner_;
  std::mt19937_64 random_;
};

TEST(SharedWindow, ArenasInterleaveAndRunsNeverReachOverAGap) {
  for (std::uint64_t seed = 1; seed <= 12; seed++) {
    SCOPED_TRACE(seed);
    ArenaModel model(seed);
    for (int i = 0; i < 60; i++) {
      model.grow();
      if (::testing::Test::HasFailure()) return;
    }
    model.audit();
    model.expect_runs_within_neighbours();
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(SharedWindow, HeapsThatGrowInTurnsKeepTheirContents) {
  SharedWindow w({}, 3, 64 * GiB);
  ASSERT_TRUE(w.ok);
  struct Live {
    MSpan* span;
    std::uint64_t value;
  };
  std::vector<Live> live;
  std::mt19937_64 random(5);
  for (std::uint64_t step = 1; step <= 400; step++) {
    if (random() % 3 == 0 && !live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      const Live l = live.back();
      live.pop_back();
      ASSERT_TRUE(holds(l.span, l.value, l.span->npages));
      w.heaps[l.span->heap]->free_span(l.span);
      continue;
    }
    MHeap& heap = *w.heaps[random() % 3];
    const std::size_t bytes = random() % 4 == 0 ? 1 + random() % (200 * MiB) : 1 + random() % (3 * MiB);
    MSpan* span = heap.alloc_large(bytes, kPageSize, false);
    ASSERT_NE(span, nullptr);
    EXPECT_EQ(w.space.heap_of(start_of(span)), heap.id());
    EXPECT_EQ(w.space.heap_of(start_of(span) + span->pages().bytes() - 1), heap.id());
    live.push_back({span, step << 32});
    fill(span, step << 32);
  }
  for (const auto& heap : w.heaps) EXPECT_TRUE(heap->check());
  for (const Live& l : live) EXPECT_TRUE(holds(l.span, l.value, l.span->npages));
}

TEST(SharedWindow, ALostNeighbourhoodIsNoEnd) {
  // The other heap stands behind ours: it cannot grow in place, and grows elsewhere.
  SharedWindow w({}, 2, 64 * GiB);
  MSpan* ours = w.heaps[0]->alloc_large(60 * MiB, kPageSize, false);
  ASSERT_NE(w.heaps[1]->alloc_large(MiB, kPageSize, false), nullptr);
  EXPECT_FALSE(w.heaps[0]->resize_large(ours, 100 * MiB));
  EXPECT_TRUE(w.heaps[0]->resize_large(ours, 63 * MiB));
  MSpan* next = w.heaps[0]->alloc_large(100 * MiB, kPageSize, false);
  ASSERT_NE(next, nullptr);
  EXPECT_GE(next->start_addr, w.space.arena_address(2));
  EXPECT_TRUE(w.heaps[0]->resize_large(next, 300 * MiB)) << "nobody is behind that one";
  for (const auto& heap : w.heaps) EXPECT_TRUE(heap->check());
}

// ---- few mappings --------------------------------------------------------------------------------------------------

// vm.max_map_count is 65530, and hugetlb mappings never merge.
TEST(SharedWindow, HugetlbMemoryIsFewMappings) {
  constexpr std::size_t kBytes = 64 * GiB;
  HeapWorldConfig c = node_heap({FakeNode{.pages_2m = kBytes / kHugeSize + 100}});
  c.window_bytes = TiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  for (std::size_t i = 0; i < kBytes / kHugeSize; i++) {
    ASSERT_NE(w.heap.alloc_large(kHugeSize, kPageSize, false), nullptr);
  }
  EXPECT_GE(w.heap.stats().hugetlb_bytes, kBytes - 2 * kHugeSize);
  EXPECT_LE(w.os.mapping_count(), 4096 * kBytes / TiB + 50) << "50: the first GiB and the tables";
}

TEST(SharedWindow, HugetlbMemoryIsFewMappingsBesideOtherHeaps) {
  constexpr std::size_t kBytes = 32 * GiB;
  SharedWindow w({.nodes = {{.memory_bytes = 64 * GiB, .pages_2m = kBytes / kHugeSize + 100}}}, 3, TiB);
  for (std::size_t i = 0; i < kBytes / kHugeSize; i++) {
    ASSERT_NE(w.heaps[i % 3]->alloc_large(kHugeSize, kPageSize, false), nullptr);
  }
  EXPECT_LE(w.os.mapping_count(), 4096 * kBytes / TiB + 150);
}

// ---- large machines --------------------------------------------------------------------------------------------------

struct Machine {
  unsigned nodes;
  std::size_t bytes;
};
class LargeMachine : public ::testing::TestWithParam<Machine> {
 protected:
  // Memory that is never touched, and of which the model keeps no pages: what counts is that all of it can be had.
  LargeMachine() : os_(config()) {
    set_fallback_quiet(true);
    const unsigned count = GetParam().nodes + 1;
    ok_ = space_.init(os_.ops(), window_of(std::min(48 * TiB, 2 * GetParam().bytes), count));
    if (!ok_) return;
    for (unsigned h = 0; h < count; h++) {
      heaps_.push_back(std::make_unique<MHeap>());
      MHeap::Config c = h + 1 < count ? node_heap({FakeNode{}, FakeNode{}}).heap : first_touch_heap(config().nodes).heap;
      c.id = HeapId(h);
      if (h + 1 < count) {
        c.node = NodeId(static_cast<int>(h));
        c.backing.nodes = NodeSet::of(c.node);
      }
      heaps_.back()->init(os_.ops(), space_, c);
    }
  }
  static std::size_t node_bytes() { return GetParam().bytes / GetParam().nodes; }
  static FakeOsConfig config() {
    FakeOsConfig c;
    c.nodes.assign(GetParam().nodes, FakeNode{.memory_bytes = node_bytes()});
    c.has_populate = false;
    return c;
  }
  FakeOs os_;
  AddressSpace space_;
  std::vector<std::unique_ptr<MHeap>> heaps_;
  bool ok_ = false;
};
INSTANTIATE_TEST_SUITE_P(Of, LargeMachine,
                         ::testing::Values(Machine{8, TiB + TiB / 2}, Machine{16, 12 * TiB}, Machine{32, 24 * TiB}),
                         [](const auto& m) { return std::to_string(m.param.nodes) + "Nodes"; });

#if defined(__SANITIZE_THREAD__)
#define NEED_ADDRESS_SPACE() GTEST_SKIP() << "this sanitizer leaves a TiB of address space"
#else
#define NEED_ADDRESS_SPACE() ASSERT_TRUE(ok_)
#endif

TEST_P(LargeMachine, FirstTouchMemoryCanBeAllOfIt) {
  NEED_ADDRESS_SPACE();
  MHeap& heap = *heaps_.back();
  MSpan* span = heap.alloc_large(GetParam().bytes, kPageSize, true);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->pages().bytes(), GetParam().bytes);
  EXPECT_EQ(heap.committed(), GetParam().bytes);
  EXPECT_EQ(space_.heap_of(start_of(span) + GetParam().bytes - 1), heap.id());
  start_of(span)[0] = start_of(span)[GetParam().bytes - 1] = 1;
  EXPECT_LE(os_.mapping_count(), 100u);
}

TEST_P(LargeMachine, EachNodesMemoryCanBeAllItsOwn) {
  NEED_ADDRESS_SPACE();
  for (unsigned h = 0; h < GetParam().nodes; h++) {
    MSpan* small = heaps_[h]->alloc_large(kPageSize, kPageSize, false);
    ASSERT_NE(small, nullptr);
    // In pieces of several sizes, the largest of them a half of the node.
    std::size_t left = node_bytes() - kArenaSize;
    for (std::size_t piece = node_bytes() / 2; left != 0; piece = std::min(left, piece / 2 + kHugeSize)) {
      MSpan* span = heaps_[h]->alloc_large(std::min(left, piece), kPageSize, true);
      ASSERT_NE(span, nullptr) << "heap " << h << ", " << left << " bytes before the end";
      ASSERT_EQ(space_.heap_of(start_of(span) + span->pages().bytes() - 1).value, h);
      left -= std::min(left, piece);
    }
  }
  EXPECT_LE(space_.used_bytes(), GetParam().bytes + GetParam().nodes * 2 * GiB);
}

// ---- days of large objects -------------------------------------------------------------------------------------------

// Address space that is never given back must not be used up by objects that come and go in ever other sizes. What a
// week does is told here by 60 000 of them; the heap never has more than `kMost` in use.
TEST(SharedWindow, AWeekOfLargeObjectsStaysWithinThreeTimesTheirSum) {
  constexpr std::size_t kMost = 8 * GiB;
  HeapWorldConfig c = first_touch_heap({FakeNode{.memory_bytes = 64 * GiB}});
  c.window_bytes = 256 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  std::mt19937_64 random(42);
  std::uniform_real_distribution<double> exponent(17, 31);  // 128 KiB to 2 GiB
  std::vector<MSpan*> live;
  std::size_t in_use = 0, most = 0;
  const auto free_one = [&] {
    std::swap(live[random() % live.size()], live.back());
    in_use -= live.back()->pages().bytes();
    w.heap.free_span(live.back());
    live.pop_back();
  };
  for (int i = 0; i < 60'000; i++) {
    const auto bytes = static_cast<std::size_t>(std::exp2(exponent(random)));
    while (!live.empty() && in_use + align_up(bytes, kHugeSize) > kMost) free_one();
    // Phases in which most of it goes, as between the jobs of a server.
    if (i % 5000 == 0) {
      while (in_use > kMost / 8 && !live.empty()) free_one();
    }
    MSpan* span = w.heap.alloc_large(bytes, kPageSize, true);
    ASSERT_NE(span, nullptr);
    live.push_back(span);
    in_use += span->pages().bytes();
    most = std::max(most, in_use);
  }
  EXPECT_GE(most, kMost * 9 / 10);
  EXPECT_LE(w.space.used_bytes(), 3 * most);
  EXPECT_TRUE(w.heap.check());
}

// ---- where every mapping counts --------------------------------------------------------------------------------------

class ScarceMappings : public ::testing::TestWithParam<bool> {  // of address space, or of what is writable
 protected:
  ScarceMappings() : w_(config()) { EXPECT_TRUE(w_.set_up()); }
  static HeapWorldConfig config() {
    HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 8 * GiB}});
    c.window_bytes = 64 * GiB;
    (GetParam() ? c.os.address_limit : c.os.commit_limit) = kLimit;
    return c;
  }
  // What is mapped beside the memory of objects.
  std::size_t tables() { return w_.mapped_bytes() - w_.heap.committed(); }
  static constexpr std::size_t kLimit = GiB;
  HeapWorld w_;
};
INSTANTIATE_TEST_SUITE_P(Of, ScarceMappings, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "AddressSpace" : "Commitment"; });

TEST_P(ScarceMappings, WhatIsNotInUseIsNotMapped) {
  std::vector<MSpan*> live;
  for (int i = 0; i < 100; i++) {
    live.push_back(w_.heap.alloc_large(5 * MiB, kPageSize, false));
    ASSERT_NE(live.back(), nullptr);
    fill(live.back(), 1);
  }
  EXPECT_LE(w_.heap.committed(), 500 * MiB + 2 * kHugeSize);
  EXPECT_LE(tables(), 5 * MiB);
  for (std::size_t i = 0; i < live.size(); i++) {
    if (i % 10 != 0) w_.heap.free_span(live[i]);
  }
  w_.heap.scavenge(SIZE_MAX, 0);
  EXPECT_LE(w_.mapped_bytes(), 10 * 5 * MiB + 10 * 2 * kHugeSize + 5 * MiB) << "each of the ten may share two units";
  for (std::size_t i = 0; i < live.size(); i += 10) EXPECT_TRUE(holds(live[i], 1, live[i]->npages));
  MSpan* span = w_.heap.alloc_large(100 * MiB, kPageSize, false);
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(span->need_zero || reads_zero(span));
  EXPECT_TRUE(w_.heap.check());
}

TEST_P(ScarceMappings, NearlyAllOfTheLimitCanBeHad) {
  for (const std::size_t bytes : {100 * KiB, MiB, 20 * MiB, kLimit * 9 / 10}) {
    std::vector<MSpan*> live;
    std::size_t sum = 0;
    while (MSpan* span = w_.heap.alloc_large(bytes, kPageSize, false)) {
      live.push_back(span);
      sum += bytes;
    }
    EXPECT_GE(sum, kLimit * 9 / 10) << bytes;
    for (MSpan* span : live) w_.heap.free_span(span);
    w_.heap.scavenge(SIZE_MAX, 0);
    EXPECT_LE(w_.mapped_bytes(), 20 * MiB);
    EXPECT_TRUE(w_.heap.check());
  }
}

TEST_P(ScarceMappings, ARequestThatIsRefusedLeavesNothingMapped) {
  ASSERT_NE(w_.heap.alloc_large(100 * MiB, kPageSize, false), nullptr);
  const std::size_t before = w_.mapped_bytes();
  for (int i = 0; i < 20; i++) EXPECT_EQ(w_.heap.alloc_large(kLimit, kPageSize, false), nullptr);
  EXPECT_LE(w_.mapped_bytes(), before + MiB);
  EXPECT_NE(w_.heap.alloc_large(800 * MiB, kPageSize, false), nullptr);
  EXPECT_TRUE(w_.heap.check());
}

TEST(ScarceLater, ALimitThatComesAboutAtRunTimeCounts) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  MSpan* kept = w.heap.alloc_large(20 * MiB, kPageSize, false);
  MSpan* freed = w.heap.alloc_large(200 * MiB, kPageSize, false);
  fill(kept, 1);
  w.heap.free_span(freed);
  w.os.set_address_limit(GiB / 4);
  w.heap.scavenge(SIZE_MAX, 0);
  EXPECT_LE(w.mapped_bytes(), 30 * MiB);
  EXPECT_TRUE(holds(kept, 1, kept->npages));
  EXPECT_NE(w.heap.alloc_large(180 * MiB, kPageSize, false), nullptr);
  EXPECT_EQ(w.heap.alloc_large(180 * MiB, kPageSize, false), nullptr);
  EXPECT_TRUE(w.heap.check());
}

// ---- hooks that allocate ---------------------------------------------------------------------------------------------

// Libraries put functions of their own in the place of mmap or madvise, and these may call malloc.
TEST(ReEntrance, AThreadThatMeetsItsOwnMarkIsRefusedAndDoesNotHang) {
  constexpr FakeCall kCalls[] = {FakeCall::kIsUnmapped, FakeCall::kMapNew,         FakeCall::kAdviseThp, FakeCall::kPopulate,
                                 FakeCall::kDiscard,    FakeCall::kMapNewHugetlb, FakeCall::kBind,      FakeCall::kUnmap};
  for (const bool pool : {false, true}) {
    for (const FakeCall call : kCalls) {
      SCOPED_TRACE(static_cast<int>(call));
      HeapWorld w(node_heap({FakeNode{.pages_2m = pool ? 600u : 0u}, FakeNode{}}));
      ASSERT_TRUE(w.set_up());
      std::vector<MSpan*> inner;
      unsigned asked = 0;
      w.os.on_call(call, [&] {
        asked++;
        for (const std::size_t bytes : {kPageSize, 3 * MiB, 100 * MiB}) {
          MSpan* span = asked > 40 ? nullptr : w.heap.alloc_large(bytes, kPageSize, false);
          if (span == nullptr) continue;
          fill(span, 5);
          inner.push_back(span);
        }
        if (MSpan* span = asked > 40 ? nullptr : w.heap.alloc_span(class_with_pages(2), CpuId(1)); span != nullptr) {
          fill(span, 5);
          inner.push_back(span);
        }
      });
      MSpan* outer = w.heap.alloc_large(50 * MiB, kPageSize, false);
      if (outer != nullptr) fill(outer, 6);
      MSpan* small = w.heap.alloc_span(class_with_pages(1), CpuId(0));
      if (outer != nullptr) w.heap.free_span(outer);
      w.heap.scavenge(SIZE_MAX, 0);
      w.os.on_call(call, {});
      for (MSpan* span : inner) EXPECT_TRUE(holds(span, 5, span->npages));
      for (MSpan* span : inner) w.heap.free_span(span);
      if (small != nullptr) w.heap.free_span(small);
      EXPECT_TRUE(w.heap.check());
      EXPECT_NE(w.heap.alloc_large(200 * MiB, kPageSize, false), nullptr) << "afterwards all is as before";
      EXPECT_EQ(w.os.check(), "");
    }
  }
}

}  // namespace
}  // namespace nh::test
