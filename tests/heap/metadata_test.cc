#include "heap/metadata.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "base/bits.h"
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

TEST(GrowingTable, BecomesWritableFromTheFront) {
  FakeOs os;
  constexpr std::size_t kBytes = 4 * MiB;
  void* range = os.ops().reserve(kBytes, kOsPageSize);
  GrowingTable table;
  table.init(os.ops(), range, kBytes);
  EXPECT_EQ(os.bytes_in_state(PageState::kWritable), 0u);
  for (std::size_t bytes = 1; bytes <= kBytes; bytes += 5000) {
    ASSERT_EQ(table.ensure(bytes), 0);
    const std::size_t writable = os.bytes_in_state(PageState::kWritable);
    ASSERT_GE(writable, bytes);
    ASSERT_LE(writable, std::max(2 * bytes, 2 * kOsPageSize));
    static_cast<char*>(table.data())[bytes - 1] = 1;
  }
  ASSERT_EQ(table.ensure(kBytes), 0);
  EXPECT_LE(os.calls(FakeCall::kMakeWritable), 30u) << "grows with the logarithm";
}

TEST(GrowingTable, ARefusalChangesNothing) {
  FakeOs os;
  void* range = os.ops().reserve(MiB, kOsPageSize);
  GrowingTable table;
  table.init(os.ops(), range, MiB);
  ASSERT_EQ(table.ensure(kOsPageSize), 0);
  os.fail_call(FakeCall::kMakeWritable, 1, ENOMEM);
  EXPECT_EQ(table.ensure(MiB / 2), ENOMEM);
  EXPECT_EQ(os.bytes_in_state(PageState::kWritable), kOsPageSize);
  EXPECT_EQ(table.ensure(kOsPageSize), 0) << "what there is needs no call";
  EXPECT_EQ(table.ensure(MiB / 2), 0);
}

}  // namespace
}  // namespace nh
