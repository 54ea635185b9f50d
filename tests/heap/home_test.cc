// First-touch memory of a process that is bound to a node.
#include <gtest/gtest.h>

#include <cerrno>

#include "heap/heap_world.h"
#include "heap/ladder.h"

namespace nh::test {
namespace {

constexpr Home kPrefers1 = {NodeId(1), BindMode::kPreferred};
constexpr Home kBound1 = {NodeId(1), BindMode::kBind};

NodeSet both() {
  NodeSet nodes = NodeSet::of(NodeId(0));
  nodes.add(NodeId(1));
  return nodes;
}
FakeOsConfig machine_with(std::size_t pages_0, std::size_t pages_1) {
  FakeOsConfig c;
  c.nodes = {FakeNode{.pages_2m = pages_0}, FakeNode{.pages_2m = pages_1}};
  return c;
}

struct HomeLadder : Ladder {
  explicit HomeLadder(const FakeOsConfig& machine, Home home = kPrefers1, Backer::Config config = first_touch(both()))
      : Ladder(machine, config) {
    backer.set_home(home);
  }
};

TEST(Home, ItsPoolIsEnough) {
  HomeLadder l(machine_with(0, 8));
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "2222");
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u) << "the program faults them in";
  EXPECT_EQ(l.os.policy_of(l.at(0)).mode, BindMode::kPreferred);
  ASSERT_EQ(l.os.touch(l.at(0), 4 * kHugeSize, NodeId(0)), 0) << "from wherever";
  EXPECT_EQ(l.os.node_of(l.at(3)), NodeId(1));
}

TEST(Home, OtherPoolsAreNotItsOwn) {
  HomeLadder l(machine_with(8, 0));
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "tttt");
  ASSERT_EQ(l.os.touch(l.at(0), 4 * kHugeSize, NodeId(0)), 0);
  EXPECT_EQ(l.os.node_of(l.at(0)), NodeId(1));
}

// Somebody was promised pages that may come from our node: a reservation says nothing.
TEST(Home, WhereOthersWerePromisedPagesTheyAreProven) {
  FakeOsConfig machine = machine_with(4, 4);
  HomeLadder l(machine);
  ASSERT_EQ(l.back(0, 3), 0);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
  ASSERT_EQ(l.back(3, 3), 0);
  EXPECT_EQ(l.kinds(), "222222");
  EXPECT_GT(l.os.calls(FakeCall::kPopulate), 0u);
  for (unsigned u = 3; u < 6; u++) EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(1));
}

TEST(Home, ThePoolServesWhileItLasts) {
  HomeLadder l(machine_with(0, 3));
  ASSERT_EQ(l.back(0, 6), 0);
  EXPECT_EQ(l.kinds(), "222ttt");
  for (unsigned u = 0; u < 3; u++) EXPECT_EQ(l.os.node_of(l.at(u)), NodeId(1));
  EXPECT_FALSE(l.os.node_of(l.at(4)).valid()) << "only pages of the pool are proven";
  ASSERT_EQ(l.os.touch(l.at(3), 3 * kHugeSize, NodeId(0)), 0);
  EXPECT_EQ(l.os.node_of(l.at(5)), NodeId(1));
}

// A cpuset keeps faults from other nodes' pages: what was promised could be missing.
TEST(Home, UnderACpusetPagesAreProven) {
  Backer::Config config = first_touch(NodeSet::of(NodeId(1)));
  config.cpuset_limits = true;
  config.reservations_hold = false;
  HomeLadder l(machine_with(8, 8), kPrefers1, config);
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "2222");
  EXPECT_EQ(l.os.node_of(l.at(0)), NodeId(1));
}

TEST(Home, ABindingIsStrictForPlainMemory) {
  HomeLadder l(machine_with(0, 0), kBound1);
  ASSERT_EQ(l.back(0, 2), 0);
  EXPECT_EQ(l.os.policy_of(l.at(0)).mode, BindMode::kBind);
  EXPECT_EQ(l.os.calls(FakeCall::kPopulate), 0u);
}

TEST(Home, WhatABindingCannotHoldIsKnownBeforehand) {
  FakeOsConfig full = machine_with(0, 0);
  full.node_room = kHugeSize;
  HomeLadder none(full, kBound1);
  EXPECT_EQ(none.back(0, 2), ENOMEM);
}

TEST(Home, ARefusedMbindIsNoObstacle) {
  HomeLadder l(machine_with(0, 8));
  l.os.fail_all(FakeCall::kBind, EPERM);
  ASSERT_EQ(l.back(0, 4), 0);
  EXPECT_EQ(l.kinds(), "2222");
  l.os.clear_failures();
}

struct HomeHeap : HeapWorld {
  explicit HomeHeap(Home home) : HeapWorld(first_touch_heap({FakeNode{}, FakeNode{}, FakeNode{}})) {
    EXPECT_TRUE(set_up());
    heap.set_home(home);
  }
  MSpan* alloc(int node) { return heap.alloc_large(8 * MiB, kPageSize, false, kLargeClass, NodeId(node)); }
  // The node on which a new object's page comes to lie, and whether it was there already.
  NodeId lands(MSpan* span, int toucher) {
    EXPECT_EQ(os.touch(start_of(span), kOsPageSize, NodeId(toucher)), 0);
    return os.node_of(start_of(span));
  }
};

TEST(Home, MemoryIsUsedAgainByAllOfTheProcess) {
  HomeHeap w(kPrefers1);
  MSpan* span = w.alloc(0);
  EXPECT_EQ(w.lands(span, 0), NodeId(1));
  const std::uint64_t asked = w.os.calls(FakeCall::kNodesOf);
  w.heap.free_span(span);
  span = w.alloc(2);
  EXPECT_TRUE(w.os.node_of(start_of(span)).valid()) << "kept";
  EXPECT_EQ(w.os.calls(FakeCall::kNodesOf), asked);
  EXPECT_TRUE(w.heap.check());
}

TEST(Home, MemoryFollowsTheProcess) {
  HomeHeap w(kPrefers1);
  MSpan* kept = w.alloc(0);
  MSpan* span = w.alloc(0);
  EXPECT_EQ(w.lands(span, 0), NodeId(1));
  w.heap.free_span(span);
  // It spans nodes.
  w.heap.set_home({NodeId(1), BindMode::kDefault});
  span = w.alloc(1);
  EXPECT_EQ(w.lands(span, 2), NodeId(2));
  w.heap.free_span(span);
  // It is bound to another one.
  w.heap.set_home({NodeId(0), BindMode::kPreferred});
  span = w.alloc(2);
  EXPECT_EQ(w.lands(span, 2), NodeId(0));
  EXPECT_EQ(w.os.policy_of(start_of(kept)).nodes.first(), NodeId(1)) << "what is in use stays";
  // And back again, through memory that was given back.
  w.heap.free_span(span);
  w.heap.scavenge(SIZE_MAX, 0);
  w.heap.set_home({NodeId(0), BindMode::kDefault});
  EXPECT_EQ(w.lands(w.alloc(1), 2), NodeId(2));
  EXPECT_TRUE(w.heap.check());
  EXPECT_EQ(w.os.check(), "");
}

}  // namespace
}  // namespace nh::test
