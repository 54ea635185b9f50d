// Who helps whom when a node has no memory left.
#include "central/heap_set.h"

#include <gtest/gtest.h>

#include <thread>

#include "central/central_world.h"

namespace nh::test {
namespace {

const SpanClass kClass = class_for(16384);
const CpuId kCpu(0);

class ThreeNodes : public ::testing::Test {
 protected:
  ThreeNodes() : w_({.nodes = {FakeNode{.memory_bytes = 20 * MiB}, FakeNode{.memory_bytes = 20 * MiB}, FakeNode{}}}) {}
  Batch fetch(unsigned* heap, Help help) {
    HeapId h(*heap);
    const Batch b = w_.heaps.fetch(&h, kClass, 2, kCpu, help);
    *heap = h.value;
    return b;
  }
  // Takes all that heap h has itself, but for what other CPUs keep of its pages.
  std::vector<Batch> exhaust(unsigned h, CpuId cpu = kCpu) {
    std::vector<Batch> out;
    for (;;) {
      HeapId from(h);
      const Batch b = w_.heaps.fetch(&from, kClass, 2, cpu, Help::kNobody);
      if (b.count == 0) return out;
      EXPECT_EQ(from.value, h);
      out.push_back(b);
    }
  }
  CentralWorld w_;
};

TEST_F(ThreeNodes, TheirOwnFirst) {
  for (unsigned h = 0; h < 3; h++) {
    unsigned from = h;
    const Batch b = fetch(&from, Help::kNeighbours);
    EXPECT_EQ(from, h);
    EXPECT_EQ(w_.space.heap_of(b.head).value, h);
    EXPECT_EQ(w_.os.node_of(reinterpret_cast<void*>(align_down(address(b.head), kOsPageSize))), NodeId(static_cast<int>(h)));
  }
}

TEST_F(ThreeNodes, ThenTheListThenNobody) {
  const std::vector<Batch> of_0 = exhaust(0);
  ASSERT_GT(of_0.size(), 100u);
  const std::uint64_t before = fallback_count(Fallback::kOtherNode);
  unsigned from = 0;
  ASSERT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 1u);
  EXPECT_EQ(w_.heaps[HeapId(1)].foreign_serves, 1u);
  EXPECT_EQ(fallback_count(Fallback::kOtherNode), before + 1);
  exhaust(1);
  from = 0;
  ASSERT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 2u);
  w_.os.set_memory(NodeId(2), 0);
  exhaust(2);
  from = 0;
  EXPECT_EQ(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 0u);
  EXPECT_TRUE(w_.heaps.check());
  // And home again as soon as there is something.
  w_.heaps.flush(HeapId(0), kClass, of_0[0].head, of_0[0].count, HeapId(0));
  EXPECT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 0u);
}

// So that not every object takes a visit to the full heap.
TEST_F(ThreeNodes, WhoHasServedIsRememberedForAWhile) {
  const HeapId full(0);
  EXPECT_EQ(w_.heaps.substitute_of(full), full);
  exhaust(0);
  EXPECT_EQ(w_.heaps.substitute_of(full), full) << "nobody has helped yet";
  unsigned from = 0;
  ASSERT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(w_.heaps.substitute_of(full), HeapId(1));
  EXPECT_FALSE(w_.heaps.ends_substitute(full));
  w_.os.advance_ns(20'000'000);
  EXPECT_EQ(w_.heaps.substitute_of(full), HeapId(1)) << "until somebody looks at the clock";
  EXPECT_TRUE(w_.heaps.ends_substitute(full));
  EXPECT_EQ(w_.heaps.substitute_of(full), full);
}

TEST_F(ThreeNodes, StrictMeansNone) {
  exhaust(0);
  unsigned from = 0;
  EXPECT_EQ(fetch(&from, Help::kNobody).count, 0u);
  EXPECT_EQ(w_.heaps.alloc_large(HeapId(0), 5 * MiB, kPageSize, false, Help::kNobody), nullptr);
  EXPECT_EQ(w_.heaps[HeapId(1)].foreign_serves, 0u);
}

TEST_F(ThreeNodes, LargeObjectsGoTheSameWay) {
  exhaust(0);
  MSpan* span = w_.heaps.alloc_large(HeapId(0), 5 * MiB, kPageSize, false, Help::kNeighbours);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->heap, 1);
  MSpan* larger = w_.heaps.alloc_large(HeapId(0), 30 * MiB, kPageSize, false, Help::kNeighbours);
  ASSERT_NE(larger, nullptr);
  EXPECT_EQ(larger->heap, 2);
  w_.heaps.free_large(larger);
  w_.heaps.free_large(span);
  EXPECT_EQ(w_.heap(1).stats().large_objects, 1u) << "the one that uses the first unit up";
  EXPECT_EQ(w_.heaps.alloc_large(HeapId(0), 5 * GiB, kPageSize, false, Help::kNeighbours), nullptr);
  EXPECT_TRUE(w_.heaps.check());
}

// An order that is neither the ring's nor by number: as for a node of its own, and of the heap that is asked not a word.
unsigned helpers(Help help, HeapId h, CpuId cpu, HeapId* out) {
  EXPECT_EQ(h, HeapId(1));
  EXPECT_EQ(cpu, CpuId(0));
  out[0] = HeapId(1);
  out[1] = HeapId(0);
  if (help == Help::kFast) return 2;
  out[0] = HeapId(0);
  out[1] = HeapId(1);
  out[2] = HeapId(2);
  return 3;
}

TEST_F(ThreeNodes, RequestsForSomethingHaveAnOrderOfTheirOwn) {
  w_.heaps.set_helpers(helpers);
  exhaust(1);
  unsigned from = 1;
  ASSERT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 2u) << "the ring";
  from = 1;
  EXPECT_EQ(w_.heaps.substitute_of(HeapId(1)), HeapId(2));
  w_.heaps.drop_substitute(HeapId(1));
  ASSERT_NE(fetch(&from, Help::kBandwidth).count, 0u);
  EXPECT_EQ(from, 0u);
  EXPECT_EQ(w_.heaps.substitute_of(HeapId(1)), HeapId(1)) << "another CPU would have been served by another heap";
  exhaust(0);
  from = 1;
  ASSERT_NE(fetch(&from, Help::kPolicy).count, 0u);
  EXPECT_EQ(from, 2u);
  from = 1;
  EXPECT_EQ(fetch(&from, Help::kFast).count, 0u) << "nobody but those two";
  EXPECT_TRUE(w_.heaps.check());
}

TEST_F(ThreeNodes, ObjectsThatComeFromAfarAreCounted) {
  unsigned from = 0;
  const Batch b = fetch(&from, Help::kNeighbours);
  w_.heaps.flush(HeapId(0), kClass, b.head, b.count + 7, HeapId(2));  // the count is a hint
  EXPECT_EQ(w_.heaps[HeapId(0)].remote_frees, b.count);
  const Batch c = fetch(&from, Help::kNeighbours);
  w_.heaps.flush(HeapId(0), kClass, c.head, c.count, HeapId(0));
  EXPECT_EQ(w_.heaps[HeapId(0)].remote_frees, b.count);
}

// Not the CPU's policy counts but where it is: under one that sends all CPUs to one heap most of its objects are not local.
TEST_F(ThreeNodes, ObjectsForCpusOfTheNodeCountAsLocal) {
  w_.heaps.set_home_of_cpu([](CpuId cpu) { return HeapId(cpu.value); });
  HeapId from(1);
  const Batch own = w_.heaps.fetch(&from, kClass, 10, CpuId(1), Help::kNeighbours);
  const Batch foreign = w_.heaps.fetch(&from, kClass, 10, CpuId(2), Help::kNeighbours);
  const NodeHeap& heap = w_.heaps[HeapId(1)];
  EXPECT_EQ(heap.local_objects, own.count);
  EXPECT_EQ(heap.served_objects, own.count + foreign.count);
  MSpan* span = w_.heaps.alloc_large(HeapId(1), MiB, kPageSize, false, Help::kNeighbours);
  EXPECT_EQ(heap.served_objects, own.count + foreign.count + 1);
  w_.heaps.free_large(span);
}

// As the heaps of first-touch and interleaved memory: no node is theirs, so help comes from near the CPU that asks.
TEST_F(ThreeNodes, HelpForAHeapOfAllNodesStartsAtTheNodeOfTheCpu) {
  w_.heaps.set_home_of_cpu([](CpuId cpu) { return HeapId(cpu.value); });
  w_.heaps[HeapId(0)].serves_all_nodes = true;
  exhaust(0);
  const auto served_by = [&](int cpu) {
    HeapId from(0);
    EXPECT_NE(w_.heaps.fetch(&from, kClass, 2, CpuId(cpu), Help::kNeighbours).count, 0u);
    return from.value;
  };
  EXPECT_EQ(served_by(1), 1u);
  EXPECT_EQ(served_by(2), 2u);
  EXPECT_EQ(served_by(0), 1u) << "its own node's heap is the one that has nothing left";
  for (const int cpu : {0, 1, 2}) exhaust(1, CpuId(cpu));
  EXPECT_EQ(served_by(1), 2u) << "the list of the CPU's node goes on";
  // Who does not help heap 0 is not asked, however near.
  w_.heaps[HeapId(0)].fallback[0] = 1;
  w_.heaps[HeapId(0)].fallbacks = 1;
  HeapId from(0);
  EXPECT_EQ(w_.heaps.fetch(&from, kClass, 2, CpuId(2), Help::kNeighbours).count, 0u);
}

TEST_F(ThreeNodes, CentralsAreMadeOnceAndLieWithTheirHeap) {
  Central* seen[4] = {};
  std::vector<std::thread> threads;
  for (Central*& s : seen) threads.emplace_back([&] { s = w_.heaps.central(HeapId(1), kClass); });
  for (std::thread& t : threads) t.join();
  for (Central* s : seen) EXPECT_EQ(s, seen[0]);
  EXPECT_EQ(w_.os.policy_of(seen[0]).nodes, NodeSet::of(NodeId(1)));
}

TEST_F(ThreeNodes, WithoutMemoryForAnMCentralTheNextHeapServes) {
  ASSERT_NE(w_.heaps.central(HeapId(1), kClass), nullptr);
  unsigned one = 1;
  fetch(&one, Help::kNobody);
  w_.os.fail_all(FakeCall::kReserve, ENOMEM);
  while (w_.heap(0).metadata().alloc(64, 64) != nullptr) {
  }
  EXPECT_EQ(w_.heaps.central(HeapId(0), kClass), nullptr);
  unsigned from = 0;
  EXPECT_NE(fetch(&from, Help::kNeighbours).count, 0u);
  EXPECT_EQ(from, 1u);
}

}  // namespace
}  // namespace nh::test
