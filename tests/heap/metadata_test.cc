#include "heap/metadata.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "base/bits.h"
#include "heap/address_space.h"
#include "support/fake_os.h"

namespace nh {
namespace {

using test::FakeCall;
using test::FakeNode;
using test::FakeOs;
using test::PageState;

struct Piece {
  char* p;
  std::size_t bytes;
};

// Zeroed, aligned and overlapping with no other: each piece is filled once it was found to be zero.
void expect_sound(std::vector<Piece> pieces) {
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.p < b.p; });
  for (std::size_t i = 1; i < pieces.size(); i++) ASSERT_LE(pieces[i - 1].p + pieces[i - 1].bytes, pieces[i].p);
}

TEST(MetadataPool, PiecesAreZeroedAlignedAndApart) {
  FakeOs os;
  MetadataPool pool;
  pool.init(os.ops(), NodeId(0), false);
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < 3000; i++) {
    const std::size_t bytes = i % 100 == 99 ? 40000 + i * 1000 : 1 + i * 37 % 3000;
    const std::size_t alignment = std::size_t{1} << i % 13;
    auto* p = static_cast<char*>(pool.alloc(bytes, alignment));
    ASSERT_NE(p, nullptr);
    ASSERT_TRUE(is_aligned(address(p), alignment));
    ASSERT_TRUE(std::all_of(p, p + bytes, [](char c) { return c == 0; }));
    std::memset(p, 0x5a, bytes);
    pieces.push_back({p, bytes});
  }
  expect_sound(pieces);
  EXPECT_EQ(pool.bytes(), os.bytes_in_state(PageState::kWritable));
}

TEST(MetadataPool, ASmallProcessPaysLittle) {
  FakeOs os;
  MetadataPool pool;
  pool.init(os.ops(), NodeId(0), false);
  EXPECT_EQ(os.mapping_count(), 0u) << "nothing before the first use";
  pool.alloc(64, 64);
  EXPECT_LE(pool.bytes(), 128 * KiB);
  for (int i = 0; i < 100; i++) pool.alloc(100 * KiB, 64);
  EXPECT_LE(os.calls(FakeCall::kReserve), 10u) << "later chunks are large";
}

TEST(MetadataPool, LiesOnItsNode) {
  FakeOs os({.nodes = {FakeNode{}, FakeNode{}, FakeNode{}}});
  MetadataPool pool;
  pool.init(os.ops(), NodeId(2), true);
  for (const std::size_t bytes : {std::size_t{100}, 3 * MiB, 200 * KiB}) {
    void* p = pool.alloc(bytes, 64);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(os.policy_of(p).mode, BindMode::kPreferred);
    EXPECT_EQ(os.policy_of(p).nodes, NodeSet::of(NodeId(2)));
  }
}

TEST(MetadataPool, RefusalsLeaveNothingBehind) {
  for (const FakeCall call : {FakeCall::kReserve, FakeCall::kMakeWritable}) {
    for (unsigned k = 1; k <= 4; k++) {
      FakeOs os;
      MetadataPool pool;
      pool.init(os.ops(), NodeId(0), false);
      os.fail_call(call, k, ENOMEM);
      unsigned refused = 0;
      for (int i = 0; i < 40; i++) refused += pool.alloc(300 * KiB, 64) == nullptr;
      EXPECT_EQ(refused, 1u);
      EXPECT_EQ(pool.bytes(), os.bytes_in_state(PageState::kWritable) + os.bytes_in_state(PageState::kReserved));
    }
  }
  // What is only advice may fail without anybody noticing.
  for (const FakeCall call : {FakeCall::kAdviseThp, FakeCall::kBind}) {
    FakeOs os;
    MetadataPool pool;
    pool.init(os.ops(), NodeId(0), true);
    os.fail_all(call, EPERM);
    EXPECT_NE(pool.alloc(300 * KiB, 64), nullptr);
  }
}

TEST(MetadataPool, ThreadsShareIt) {
  FakeOs os;
  MetadataPool pool;
  pool.init(os.ops(), NodeId(0), false);
  constexpr int kThreads = 4;
  std::vector<Piece> pieces[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 2000; i++) {
        const std::size_t bytes = 1 + (i * 131 + static_cast<std::size_t>(t)) % 5000;
        auto* p = static_cast<char*>(pool.alloc(bytes, 16));
        std::memset(p, t + 1, bytes);
        pieces[t].push_back({p, bytes});
      }
    });
  }
  for (std::thread& t : threads) t.join();
  std::vector<Piece> all;
  for (int t = 0; t < kThreads; t++) {
    for (const Piece& piece : pieces[t]) {
      ASSERT_TRUE(std::all_of(piece.p, piece.p + piece.bytes, [&](char c) { return c == t + 1; }));
      all.push_back(piece);
    }
  }
  expect_sound(all);
}

// ---- tables at planned places --------------------------------------------------------------------------------------

class WindowTables : public ::testing::Test {
 protected:
  WindowTables() { os_.set_thp_mode(2); }
  void start(std::size_t max_bytes) {
    place_ = os_.ops().find_window(GiB, 0, 0);
    table_.init(os_.ops(), place_, max_bytes);
  }
  char* data() { return static_cast<char*>(table_.data()); }
  FakeOs os_;
  WindowTable table_;
  std::uintptr_t place_ = 0;
};

TEST_F(WindowTables, GrowFromTheFrontInSteps) {
  start(16 * MiB);
  EXPECT_EQ(os_.mapping_count(), 0u);
  for (std::size_t bytes = 1; bytes <= 16 * MiB; bytes += 9999) {
    ASSERT_EQ(table_.extend(bytes), 0);
    const std::size_t mapped = os_.bytes_in_state(PageState::kWritable);
    ASSERT_GE(mapped, bytes);
    ASSERT_EQ(mapped, table_.bytes());
    ASSERT_LT(mapped, bytes + (bytes < 8 * MiB ? WindowTable::kStep : kHugeSize));
    ASSERT_EQ(data()[bytes - 1], 0);
    data()[bytes - 1] = 1;
  }
  EXPECT_EQ(table_.extend(16 * MiB), 0);
  EXPECT_EQ(table_.extend(16 * MiB + 1), ENOMEM) << "more than was planned";
  EXPECT_EQ(os_.mapping_count(), 1u);
  table_.unmap();
  EXPECT_EQ(os_.mapping_count(), 0u);
}

TEST_F(WindowTables, WhatIsThereNeedsNoCall) {
  start(16 * MiB);
  ASSERT_EQ(table_.extend(MiB), 0);
  const std::uint64_t calls = os_.calls(FakeCall::kMapNew);
  for (std::size_t bytes = 0; bytes <= MiB; bytes += 1000) ASSERT_EQ(table_.extend(bytes), 0);
  EXPECT_EQ(os_.calls(FakeCall::kMapNew), calls);
}

TEST_F(WindowTables, ARefusalChangesNothing) {
  start(16 * MiB);
  ASSERT_EQ(table_.extend(1), 0);
  data()[5] = 1;
  for (const int error : {ENOMEM, EEXIST}) {
    os_.fail_call(FakeCall::kMapNew, 1, error);
    EXPECT_EQ(table_.extend(MiB), ENOMEM);
    EXPECT_EQ(os_.bytes_in_state(PageState::kWritable), WindowTable::kStep);
    EXPECT_EQ(table_.extend(WindowTable::kStep), 0);
  }
  EXPECT_EQ(table_.extend(MiB), 0);
  EXPECT_EQ(data()[5], 1);
}

TEST_F(WindowTables, HolesCanBeReadAndCostNothing) {
  start(512 * MiB);
  ASSERT_EQ(table_.extend(1000), 0);
  const std::size_t hole = 200 * KiB, hole_bytes = 300 * MiB;
  ASSERT_EQ(table_.extend(hole + hole_bytes + 5000, hole, hole_bytes), 0);
  EXPECT_LE(os_.bytes_in_state(PageState::kWritable), 4 * MiB);
  EXPECT_GE(os_.bytes_in_state(PageState::kReadable), 299 * MiB);
  for (std::size_t i = 0; i < hole + hole_bytes + 5000; i += 99'991) ASSERT_EQ(data()[i], 0);
  for (std::size_t i = 0; i < hole; i += 1000) data()[i] = 1;
  for (std::size_t i = hole + hole_bytes; i < hole + hole_bytes + 5000; i += 100) data()[i] = 1;
}

TEST_F(WindowTables, LieWhereTheyAreWanted) {
  start(64 * MiB);
  const auto backing_at = [&](std::size_t offset) {
    char* const huge = reinterpret_cast<char*>(align_up(place_ + offset, kHugeSize));
    EXPECT_EQ(os_.touch(huge, kHugeSize, NodeId(0)), 0);
    return os_.backing_of(huge);
  };
  ASSERT_EQ(table_.extend(1), 0);
  table_.prefer_node(NodeId(0));
  ASSERT_EQ(table_.extend(8 * MiB), 0);
  EXPECT_EQ(os_.policy_of(data() + 8 * MiB - 1).mode, BindMode::kPreferred);
  EXPECT_EQ(backing_at(4 * MiB), Backing::kBase) << "a few touched spots must not cost huge pages";
  table_.prefer_huge_pages();
  ASSERT_EQ(table_.extend(32 * MiB), 0);
  EXPECT_EQ(backing_at(16 * MiB), Backing::kThp);
}

}  // namespace
}  // namespace nh
