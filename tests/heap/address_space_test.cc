// The window that grows, and the tables that tell whose its pages are.
#include "heap/address_space.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "heap/heap_world.h"

namespace nh {
namespace {

using test::FakeCall;
using test::FakeNode;
using test::FakeOs;
using test::in_child_during;
using test::PageState;
using test::window_of;

constexpr ArenaIndex kNone = AddressSpace::kNone;

const void* at(std::uintptr_t a) { return reinterpret_cast<const void*>(a); }

// Deals as a heap does that keeps count of its arenas.
struct Dealer {
  AddressSpace& space;
  HeapId heap;
  ArenaIndex last = kNone;
  std::uint32_t next = 0;
  // The first arena's index, or kNone and *error.
  ArenaIndex deal(std::size_t count, int* error = nullptr, std::size_t alignment = kArenaSize) {
    ArenaIndex first = 0;
    const int result = space.deal(heap, count, alignment, last, next, &first);
    if (error != nullptr) *error = result;
    if (result != 0) return kNone;
    next = static_cast<std::uint32_t>(space.owner(at(space.arena_address(first))).number() + count);
    last = first + static_cast<ArenaIndex>(count) - 1;
    return first;
  }
};

std::size_t mapped(const FakeOs& os) {
  return os.bytes_in_state(PageState::kWritable) + os.bytes_in_state(PageState::kReadable);
}

// ---- the window --------------------------------------------------------------------------------------------------

TEST(AddressSpace, NothingIsReserved) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB, 5)));
  EXPECT_EQ(s.used_bytes(), 0u);
  EXPECT_EQ(s.max_bytes(), 64 * GiB);
  EXPECT_TRUE(is_aligned(s.base(), kArenaSize));
  EXPECT_LE(mapped(os), 512 * KiB) << "the first step of each table";
  EXPECT_EQ(os.bytes_in_state(PageState::kReserved), 0u);
  for (const std::uintptr_t a : {s.base() - 1, s.base(), s.base() + 64 * GiB, std::uintptr_t{0}, ~std::uintptr_t{0}}) {
    EXPECT_FALSE(s.contains(at(a)));
    EXPECT_EQ(s.span_of(at(a)), nullptr);
    EXPECT_EQ(s.span_around(at(a)), nullptr);
  }
  s.destroy();
  EXPECT_EQ(os.mapping_count(), 0u);
}

TEST(AddressSpace, ArenasAreDealtOneBehindTheOther) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(4 * GiB, 3)));
  Dealer a{s, HeapId(0)}, b{s, HeapId(2)};
  EXPECT_EQ(a.deal(1), 0u);
  EXPECT_EQ(b.deal(2), 1u);
  EXPECT_EQ(a.deal(2), 3u);
  EXPECT_EQ(s.used_bytes(), 5 * kArenaSize);
  EXPECT_TRUE(s.contains(at(s.base() + s.used_bytes() - 1)));
  EXPECT_FALSE(s.contains(at(s.base() + s.used_bytes())));
  const unsigned heaps[] = {0, 2, 2, 0, 0};
  const std::uint32_t numbers[] = {0, 0, 1, 2, 3};  // 1 is left out between arenas that are no neighbours
  for (ArenaIndex i = 0; i < 5; i++) {
    for (const std::uintptr_t p : {s.arena_address(i), s.arena_address(i) + kArenaSize - 1}) {
      EXPECT_EQ(s.heap_of(at(p)).value, heaps[i]) << i;
      EXPECT_EQ(s.owner(at(p)).number(), numbers[i]) << i;
    }
  }
}

TEST(AddressSpace, AlignmentBeyondAnArenaIsByAddress) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  Dealer d{s, HeapId(0)};
  d.deal(1);
  for (const std::size_t alignment : {128 * MiB, GiB, 16 * GiB}) {
    const ArenaIndex i = d.deal(3, nullptr, alignment);
    ASSERT_NE(i, kNone);
    EXPECT_TRUE(is_aligned(s.arena_address(i), alignment)) << alignment;
  }
}

TEST(AddressSpace, ItEndsAtItsLimitToTheLastArena) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(GiB)));
  Dealer d{s, HeapId(0)};
  int error = 0;
  EXPECT_EQ(d.deal(17, &error), kNone);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(d.deal(SIZE_MAX / kArenaSize, &error), kNone);
  EXPECT_EQ(s.used_bytes(), 0u);
  EXPECT_EQ(d.deal(15), 0u);
  EXPECT_EQ(d.deal(2, &error), kNone);
  EXPECT_EQ(d.deal(1), 15u);
  EXPECT_EQ(d.deal(1, &error), kNone);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(s.used_bytes(), GiB);
}

TEST(AddressSpace, TheCopyOfItsEndIsKeptUpToDate) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(GiB)));
  Dealer d{s, HeapId(0)};
  d.deal(1);
  std::size_t copy = 77;
  s.mirror_used_bytes(&copy);
  EXPECT_EQ(copy, kArenaSize);
  d.deal(3);
  EXPECT_EQ(copy, 4 * kArenaSize);
  EXPECT_EQ(s.used_bytes(), copy);
}

// Tables first, or a reader on another CPU could look at what is not mapped yet.
TEST(AddressSpace, TheEndMovesAfterTheTables) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  std::size_t copy = 0;
  s.mirror_used_bytes(&copy);
  unsigned looked = 0;
  os.on_call(FakeCall::kMapNew, [&] {
    looked++;
    EXPECT_EQ(s.used_bytes(), 0u);
    EXPECT_EQ(copy, 0u);
  });
  Dealer d{s, HeapId(0)};
  EXPECT_EQ(d.deal(100), 0u);
  EXPECT_GE(looked, 2u);
  EXPECT_EQ(copy, 100 * kArenaSize);
}

// ---- what lies in the way -----------------------------------------------------------------------------------------

TEST(AddressSpace, ObstaclesAreGoneAroundForGood) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(8 * GiB)));
  os.add_obstacle(s.arena_address(2) + 5 * kOsPageSize, kOsPageSize);
  Dealer d{s, HeapId(0)};
  EXPECT_EQ(d.deal(2), 0u);
  EXPECT_EQ(d.deal(1), 3u);
  EXPECT_EQ(s.owner(at(s.arena_address(3))).number(), 3u) << "2 is left out";
  EXPECT_EQ(s.used_bytes(), 4 * kArenaSize);
  const void* const inside = at(s.arena_address(2) + 3 * kPageSize);
  EXPECT_TRUE(s.contains(inside));
  EXPECT_FALSE(s.owner(inside).has_heap());
  EXPECT_EQ(s.entry(inside), 0);
  EXPECT_EQ(s.span_of(inside), nullptr);
  EXPECT_EQ(s.span_around(inside), nullptr);
  EXPECT_EQ(d.deal(1), 4u);
}

// A TiB in the way: few calls, and a page map of it that costs nothing but can be read.
TEST(AddressSpace, AHugeObstacleCostsFewCallsAndNoTables) {
  for (const std::size_t obstacle : {3 * GiB, 100 * GiB, TiB}) {
    FakeOs os;
    AddressSpace s;
#if defined(__SANITIZE_THREAD__)
    if (obstacle == TiB) continue;  // that is all the address space there is
    ASSERT_TRUE(s.init(os.ops(), window_of(256 * GiB)));
#else
    ASSERT_TRUE(s.init(os.ops(), window_of(4 * TiB)));
#endif
    Dealer d{s, HeapId(0)};
    ASSERT_EQ(d.deal(1), 0u);
    const std::size_t before = os.bytes_in_state(PageState::kWritable);
    const std::uintptr_t begin = s.arena_address(2);
    os.add_obstacle(begin, obstacle);
    ASSERT_EQ(d.deal(1), 1u);
    const ArenaIndex behind = d.deal(1);
    ASSERT_NE(behind, kNone);
    EXPECT_GE(s.arena_address(behind), begin + obstacle);
    EXPECT_LE(s.arena_address(behind), begin + 2 * obstacle) << "not much more is left out than what lies there";
    EXPECT_LE(os.calls(FakeCall::kIsUnmapped), 20u);
    EXPECT_LE(os.bytes_in_state(PageState::kWritable), before + 64 * MiB) << "page map, spans and owners behind it";
    for (std::uintptr_t a = begin; a < s.arena_address(behind); a += 37 * MiB + kPageSize) {
      ASSERT_EQ(s.entry(at(a)), 0);
      ASSERT_EQ(s.span_of(at(a)), nullptr);
    }
    for (ArenaIndex i = 2; i < behind; i++) ASSERT_FALSE(s.owners()[i].has_heap());
    EXPECT_EQ(s.heap_of(at(s.arena_address(behind))), HeapId(0));
    EXPECT_EQ(s.entry(at(s.arena_address(behind) + kArenaSize - 1)), 0);
  }
}

TEST(AddressSpace, UnderALimitTheWindowEndsAtALargeObstacle) {
  FakeOs os({.address_limit = GiB});
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(TiB)));
  Dealer d{s, HeapId(0)};
  ASSERT_EQ(d.deal(1), 0u);
  os.add_obstacle(s.arena_address(1), 3 * GiB);
  const std::size_t before = mapped(os);
  int error = 0;
  EXPECT_EQ(d.deal(1, &error), kNone);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(mapped(os), before);
  EXPECT_EQ(s.used_bytes(), kArenaSize);
}

TEST(AddressSpace, UnderALimitASmallObstacleIsGoneAround) {
  FakeOs os({.address_limit = GiB});
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(TiB)));
  Dealer d{s, HeapId(0)};
  os.add_obstacle(s.arena_address(0), kArenaSize);
  EXPECT_EQ(d.deal(1), 1u);
}

TEST(AddressSpace, AWindowThatIsTakenAltogetherSaysSo) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  os.add_obstacle(s.base(), 64 * GiB);
  Dealer d{s, HeapId(0)};
  int error = 0;
  EXPECT_EQ(d.deal(1, &error), kNone);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(s.used_bytes(), 0u);
  EXPECT_LE(os.calls(FakeCall::kIsUnmapped), 12u);
}

// ---- refusals -----------------------------------------------------------------------------------------------------

TEST(AddressSpace, AnotherPlaceIsTriedWhereTheFirstTablesCannotBeMapped) {
  for (unsigned k = 1; k <= 3; k++) {
    FakeOs os;
    os.fail_call(FakeCall::kMapNew, k, EEXIST);
    AddressSpace s;
    ASSERT_TRUE(s.init(os.ops(), window_of(GiB)));
    EXPECT_EQ(os.failures(), 1u);
    s.destroy();
    EXPECT_EQ(os.mapping_count(), 0u);
  }
}

TEST(AddressSpace, WithoutAPlaceThereIsNoWindow) {
  FakeOs os;
  os.fail_all(FakeCall::kFindWindow, ENOMEM);
  AddressSpace s;
  EXPECT_FALSE(s.init(os.ops(), window_of(GiB)));
  os.clear_failures();
  os.fail_all(FakeCall::kMapNew, ENOMEM);
  EXPECT_FALSE(s.init(os.ops(), window_of(GiB)));
  EXPECT_EQ(os.mapping_count(), 0u);
  os.clear_failures();
  EXPECT_TRUE(s.init(os.ops(), window_of(GiB)));
}

TEST(AddressSpace, TablesThatCannotGrowLeaveTheEndWhereItIs) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  Dealer d{s, HeapId(0)};
  ASSERT_EQ(d.deal(1), 0u);
  for (unsigned k = 1; k <= 2; k++) {
    os.fail_call(FakeCall::kMapNew, k, ENOMEM);
    int error = 0;
    EXPECT_EQ(d.deal(300 * k, &error), kNone);
    EXPECT_EQ(error, ENOMEM);
    EXPECT_EQ(s.used_bytes(), kArenaSize);
    EXPECT_EQ(s.heap_of(at(s.base())), HeapId(0));
  }
  EXPECT_EQ(d.deal(600), 1u) << "and can be asked for again";
}

// The page map of a hole that was mapped for a request that failed in the end can only be read.
TEST(AddressSpace, ArenasAfterAFailureBehindAnObstacleHaveTablesThatCanBeWritten) {
  for (unsigned k = 1; k <= 8; k++) {
    FakeOs os;
    AddressSpace s;
    ASSERT_TRUE(s.init(os.ops(), window_of(TiB)));
    Dealer d{s, HeapId(0)};
    ASSERT_EQ(d.deal(1), 0u);
    os.add_obstacle(s.arena_address(1), 10 * GiB);
    // One that lies further behind it than the next one would.
    os.fail_call(FakeCall::kMapNew, k, ENOMEM);
    d.deal(600);
    os.clear_failures();
    const ArenaIndex arena = d.deal(1);
    ASSERT_NE(arena, kNone);
    EXPECT_EQ(os.state_of(s.page_map() + arena * kPagesPerArena), PageState::kWritable) << k;
    EXPECT_EQ(os.state_of(s.page_map() + (arena + 1) * kPagesPerArena - 1), PageState::kWritable) << k;
  }
}

// A function that libc calls for us may allocate.
TEST(AddressSpace, AThreadThatIsInsideAlreadyIsRefused) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  Dealer d{s, HeapId(0)};
  int inner = 0;
  os.on_call(FakeCall::kIsUnmapped, [&] {
    Dealer other{s, HeapId(0)};
    other.deal(1, &inner);
  });
  EXPECT_EQ(d.deal(1), 0u);
  EXPECT_EQ(inner, EDEADLK);
}

TEST(AddressSpace, TablesAreSmallWhereMappingsAreScarce) {
  FakeOs os({.address_limit = 8 * GiB});
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  Dealer d{s, HeapId(0)};
  for (std::size_t arenas = 1; arenas <= 400; arenas++) {
    ASSERT_NE(d.deal(1), kNone);
    const std::size_t needed = arenas * (kPagesPerArena * (sizeof(PageEntry) + sizeof(MSpan*)) + sizeof(ArenaOwner));
    EXPECT_LE(mapped(os), needed + 3 * 64 * KiB);
  }
}

// A child finds the tables as another thread left them: mapped, and not yet known to be.
TEST(AddressSpace, AfterAForkTablesGrowOnFromWhereTheyWere) {
  FakeOs os;
  AddressSpace s;
  std::size_t copy = 0;
  ASSERT_TRUE(s.init(os.ops(), window_of(64 * GiB)));
  s.mirror_used_bytes(&copy);
  Dealer d{s, HeapId(0)};
  ASSERT_EQ(d.deal(1), 0u);
  const auto grow = [&] {
    Dealer growing{s, HeapId(0), 0, 1};
    growing.deal(300);
  };
  const auto child = [&] {
    s.repair_after_fork();
    if (copy != kArenaSize) return 1;
    if (d.deal(300) != 1) return 2;
    if (copy != 301 * kArenaSize) return 3;
    return s.entry(at(s.arena_address(300))) == 0 ? 0 : 4;
  };
  EXPECT_EQ(in_child_during(os, FakeCall::kAdviseThp, grow, child), 0);
}

// ---- spans -------------------------------------------------------------------------------------------------------

class PublishedSpans : public ::testing::Test {
 protected:
  PublishedSpans() {
    EXPECT_TRUE(space_.init(os_.ops(), window_of(256 * MiB, 2)));
    Dealer other{space_, HeapId(0)}, ours{space_, HeapId(1)};
    EXPECT_EQ(other.deal(1), 0u);
    EXPECT_EQ(ours.deal(2), 1u);
  }
  std::uintptr_t page(std::size_t p) { return space_.arena_address(1) + p * kPageSize; }
  MSpan make(std::size_t first, std::size_t pages, SpanClass c) {
    MSpan s{};
    s.start_addr = page(first);
    s.npages = static_cast<std::uint32_t>(pages);
    s.span_class = c;
    s.heap = 1;
    return s;
  }
  FakeOs os_;
  AddressSpace space_;
};

TEST_F(PublishedSpans, SmallSpansAreFoundFromEachOfTheirPages) {
  for (unsigned code = 2; code <= kTinyClass.list(); code++) {
    for (const bool placed : {false, true}) {
      const auto c = placed ? make_placed(static_cast<SpanClass>(code)) : static_cast<SpanClass>(code);
      const std::size_t pages = size_class(c).pages;
      MSpan s = make(10, pages, c);
      space_.publish(&s);
      EXPECT_EQ(s.use, SpanUse::kInUse);
      EXPECT_EQ(space_.span_of(at(page(10) - 1)), nullptr);
      for (std::size_t p = 0; p < pages; p++) {
        const PageEntry e = space_.entry(at(page(10 + p) + p));
        EXPECT_EQ(entry_class(e), c);
        EXPECT_EQ(entry_index(e), p);
        EXPECT_EQ(entry_list(e), list_offset(HeapId(1), c));
        EXPECT_EQ(space_.span_of(at(page(10 + p) + kPageSize - 1)), &s);
      }
      EXPECT_EQ(space_.span_of(at(page(10 + pages))), nullptr);
      space_.retract(&s);
      EXPECT_EQ(s.use, SpanUse::kNone);
      for (std::size_t p = 9; p < 12 + pages; p++) EXPECT_EQ(space_.span_of(at(page(p))), nullptr);
    }
  }
}

TEST_F(PublishedSpans, LargeSpansAreFoundFromTheirFirstPageOnly) {
  MSpan s = make(100, 9000, kLargeClass);  // across an arena border
  space_.publish(&s);
  EXPECT_EQ(space_.span_of(at(page(100) + 5)), &s);
  EXPECT_EQ(space_.span_of(at(page(101))), nullptr);
  EXPECT_EQ(space_.span_around(at(page(100))), &s);
  EXPECT_EQ(space_.span_around(at(page(9099) + kPageSize - 1)), &s);
  EXPECT_EQ(space_.span_around(at(page(9100))), nullptr);
  EXPECT_EQ(space_.span_around(at(page(99))), nullptr) << "nothing before it that is this heap's";
  EXPECT_EQ(space_.span_around(at(page(0))), nullptr);
  EXPECT_EQ(space_.span_around(nullptr), nullptr);
}

TEST_F(PublishedSpans, EachIsVisitedOnceInAddressOrder) {
  MSpan spans[] = {make(3, 1, SpanClass(9)), make(4, 8, SpanClass(59 * 2)), make(50, 700, kLargeClass),
                   make(750, 1, kTinyClass), make(8190, 4, SpanClass(51 * 2))};
  for (MSpan& s : spans) space_.publish(&s);
  std::vector<MSpan*> seen;
  for (ArenaIndex arena = 0; arena < 3; arena++) space_.for_each_span(arena, [&](MSpan* s) { seen.push_back(s); });
  ASSERT_EQ(seen.size(), std::size(spans));
  for (std::size_t i = 0; i < seen.size(); i++) EXPECT_EQ(seen[i], &spans[i]);
}

}  // namespace
}  // namespace nh
