#include "heap/address_space.h"

#include <gtest/gtest.h>

#include "support/fake_os.h"

namespace nh {
namespace {

using test::FakeCall;
using test::FakeOs;
using test::PageState;

AddressSpace::Config regions(unsigned n, std::size_t bytes, std::size_t least) {
  AddressSpace::Config c;
  c.regions = n;
  c.region_bytes = bytes;
  c.min_region_bytes = least;
  return c;
}

const void* at(std::uintptr_t a) { return reinterpret_cast<const void*>(a); }

TEST(AddressSpace, RegionsAreEqualAndTellTheirOwner) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), regions(5, 256 * MiB, 64 * MiB)));
  EXPECT_EQ(s.region_bytes(), 256 * MiB);
  EXPECT_EQ(s.bytes(), 5 * 256 * MiB);
  EXPECT_TRUE(is_aligned(s.base(), 256 * MiB));
  for (unsigned h = 0; h < 5; h++) {
    const std::uintptr_t start = s.region_start(HeapId(h));
    EXPECT_EQ(start, s.base() + h * 256 * MiB);
    EXPECT_EQ(s.heap_of(at(start)).value, h);
    EXPECT_EQ(s.heap_of(at(start + 256 * MiB - 1)).value, h);
  }
  EXPECT_TRUE(s.contains(at(s.base())));
  EXPECT_TRUE(s.contains(at(s.base() + s.bytes() - 1)));
  EXPECT_FALSE(s.contains(at(s.base() - 1)));
  EXPECT_FALSE(s.contains(at(s.base() + s.bytes())));
  EXPECT_FALSE(s.contains(nullptr));
  EXPECT_FALSE(s.contains(at(~std::uintptr_t{0})));
}

TEST(AddressSpace, LargeRegionsAreAlignedForPagesOf1GiB) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), regions(2, 4 * GiB, 4 * GiB)));
  EXPECT_TRUE(is_aligned(s.base(), GiB));
}

// RLIMIT_AS: what is refused is tried at half the size, and nothing is left behind on the way down.
TEST(AddressSpace, ShrinksUntilTheOsAgrees) {
  FakeOs os({.address_limit = 3 * GiB});
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), regions(4, 64 * GiB, 64 * MiB)));
  EXPECT_EQ(s.region_bytes(), 512 * MiB);
  EXPECT_EQ(s.bytes(), 2 * GiB);
  const std::size_t tables = s.bytes() / kPageSize * (sizeof(PageEntry) + sizeof(MSpan*));
  EXPECT_EQ(os.bytes_in_state(PageState::kReserved) + os.bytes_in_state(PageState::kReadable), s.bytes() + tables);
}

TEST(AddressSpace, RefusedBelowTheLeastLeavesNothing) {
  FakeOs os({.address_limit = GiB});
  AddressSpace s;
  EXPECT_FALSE(s.init(os.ops(), regions(4, 64 * GiB, 512 * MiB)));
  EXPECT_EQ(os.mapping_count(), 0u);
}

TEST(AddressSpace, AnyRefusalDuringSetUpIsUndone) {
  for (const FakeCall call : {FakeCall::kReserve, FakeCall::kMakeReadable}) {
    for (unsigned k = 1; k <= 3; k++) {
      FakeOs os;
      os.fail_call(call, k, ENOMEM);
      AddressSpace s;
      ASSERT_TRUE(s.init(os.ops(), regions(2, 512 * MiB, 64 * MiB)));
      const bool hit = os.failures() != 0;
      EXPECT_EQ(s.region_bytes(), hit ? 256 * MiB : 512 * MiB);
      const std::size_t tables = s.bytes() / kPageSize * (sizeof(PageEntry) + sizeof(MSpan*));
      EXPECT_EQ(os.bytes_in_state(PageState::kReserved) + os.bytes_in_state(PageState::kReadable), s.bytes() + tables);
      s.destroy();
      EXPECT_EQ(os.mapping_count(), 0u);
    }
  }
}

TEST(AddressSpace, ThePageMapReadsAsNothingFromTheStart) {
  FakeOs os;
  AddressSpace s;
  ASSERT_TRUE(s.init(os.ops(), regions(2, 256 * MiB, 64 * MiB)));
  for (std::uintptr_t a = s.base(); a < s.base() + s.bytes(); a += 3 * kPageSize) {
    ASSERT_EQ(s.entry(at(a)), 0);
    ASSERT_EQ(s.span_of(at(a)), nullptr);
  }
}

TEST(AddressSpace, WithoutSparseTablesNothingIsReadableBeforePrepare) {
  FakeOs os;
  AddressSpace s;
  AddressSpace::Config c = regions(1, 256 * MiB, 64 * MiB);
  c.sparse_readable = false;
  ASSERT_TRUE(s.init(os.ops(), c));
  EXPECT_EQ(os.state_of(s.page_map()), PageState::kReserved);
  ASSERT_EQ(s.prepare(s.base() + kArenaSize, kArenaSize), 0);
  EXPECT_EQ(os.state_of(s.page_map()), PageState::kReserved);
  EXPECT_EQ(os.state_of(s.page_map() + kPagesPerArena), PageState::kWritable);
  EXPECT_EQ(os.state_of(s.page_map() + 2 * kPagesPerArena), PageState::kReserved);
}

class PublishedSpans : public ::testing::Test {
 protected:
  PublishedSpans() {
    EXPECT_TRUE(space_.init(os_.ops(), regions(2, 256 * MiB, 64 * MiB)));
    EXPECT_EQ(space_.prepare(space_.region_start(HeapId(1)), 2 * kArenaSize), 0);
  }
  std::uintptr_t page(std::size_t p) { return space_.region_start(HeapId(1)) + p * kPageSize; }
  MSpan make(std::size_t first, std::size_t pages, SpanClass c) {
    MSpan s{};
    s.start_addr = page(first);
    s.npages = static_cast<std::uint32_t>(pages);
    s.span_class = c;
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
  EXPECT_EQ(space_.span_around(at(page(99))), nullptr) << "nothing before it in the region";
  EXPECT_EQ(space_.span_around(at(page(0))), nullptr);
  EXPECT_EQ(space_.span_around(nullptr), nullptr);
}

TEST_F(PublishedSpans, EachIsVisitedOnceInAddressOrder) {
  MSpan spans[] = {make(3, 1, SpanClass(9)), make(4, 8, SpanClass(59 * 2)), make(50, 700, kLargeClass),
                   make(750, 1, kTinyClass), make(8190, 4, SpanClass(51 * 2))};
  for (MSpan& s : spans) space_.publish(&s);
  std::vector<MSpan*> seen;
  space_.for_each_span(page(0), page(2 * kPagesPerArena), [&](MSpan* s) { seen.push_back(s); });
  ASSERT_EQ(seen.size(), std::size(spans));
  for (std::size_t i = 0; i < seen.size(); i++) EXPECT_EQ(seen[i], &spans[i]);
}

TEST_F(PublishedSpans, RefusedTablesAreReported) {
  for (unsigned k = 1; k <= 2; k++) {
    os_.fail_call(FakeCall::kMakeWritable, k, ENOMEM);
    EXPECT_EQ(space_.prepare(space_.base(), kArenaSize), ENOMEM);
    EXPECT_EQ(space_.prepare(space_.base(), kArenaSize), 0) << "and can be asked for again";
  }
}

}  // namespace
}  // namespace nh
