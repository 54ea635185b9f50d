// What an mheap promises, call by call.
#include "heap/mheap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/bits.h"
#include "heap/heap_world.h"

namespace nh::test {
namespace {

const CpuId kCpu(0);

TEST(MHeap, NothingIsTakenBeforeTheFirstSpan) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  EXPECT_LE(w.mapped_bytes(), 256 * KiB) << "the first steps of the window's tables";
  EXPECT_EQ(w.space.used_bytes(), 0u);
  EXPECT_EQ(w.heap.committed(), 0u);
  EXPECT_TRUE(w.heap.check());
}

TEST(MHeap, ASpanIsPublishedBackedAndZero) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  MSpan* span = w.heap.alloc_span(class_with_pages(3), kCpu);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->npages, 3u);
  EXPECT_EQ(span->span_class, class_with_pages(3));
  EXPECT_EQ(span->elem_size, 0u) << "objects are the caller's to lay out";
  EXPECT_FALSE(span->need_zero);
  for (std::size_t p = 0; p < 3; p++) EXPECT_EQ(w.space.span_of(start_of(span) + p * kPageSize), span);
  EXPECT_TRUE(reads_zero(span));
  fill(span, 1);
  EXPECT_TRUE(w.heap.check());
  w.heap.free_span(span);
  EXPECT_EQ(w.space.span_of(reinterpret_cast<void*>(w.space.base())), nullptr);
  EXPECT_TRUE(w.heap.check());
  // The same pages again, and this time they are not zero.
  span = w.heap.alloc_large(3 * kPageSize, kPageSize, false);
  w.heap.flush_page_caches();
  EXPECT_EQ(w.heap.stats().spans, 1u);
}

TEST(MHeap, SpansOfEveryClass) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> spans;
  for (unsigned code = 2; code <= kTinyClass.list(); code++) {
    for (const bool placed : {false, true}) {
      const auto c = static_cast<SpanClass>(code);
      spans.push_back(w.heap.alloc_span(placed ? make_placed(c) : c, CpuId(static_cast<int>(code % 5))));  // 4: no such CPU
      ASSERT_NE(spans.back(), nullptr);
      EXPECT_EQ(spans.back()->npages, size_class(c).pages);
      EXPECT_EQ(spans.back()->placed(), placed);
      fill(spans.back(), spans.size() << 32);
      ASSERT_TRUE(w.heap.check());
    }
  }
  for (std::size_t i = 0; i < spans.size(); i++) {
    EXPECT_TRUE(holds(spans[i], (i + 1) << 32, spans[i]->npages));
    w.heap.free_span(spans[i]);
  }
  EXPECT_TRUE(w.heap.check());
  EXPECT_EQ(w.heap.stats().in_use_bytes, 0u);
}

TEST(MHeap, ASmallHeapTouchesOneUnitOfBasePages) {
  HeapWorld w(node_heap({FakeNode{.pages_2m = 100}}));
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> spans;
  for (int i = 0; i < 100; i++) spans.push_back(w.heap.alloc_span(class_with_pages(1), kCpu));
  HeapStats s = w.heap.stats();
  EXPECT_EQ(s.base_bytes, kHugeSize);
  EXPECT_EQ(s.committed_bytes, kHugeSize);
  EXPECT_EQ(w.os.hugetlb_bytes(), 0u);
  for (int i = 0; i < 400; i++) spans.push_back(w.heap.alloc_span(class_with_pages(1), kCpu));
  s = w.heap.stats();
  EXPECT_EQ(s.base_bytes, kHugeSize);
  EXPECT_EQ(s.hugetlb_bytes, kHugeSize) << "beyond 2 MiB it uses huge pages";
  EXPECT_EQ(w.os.hugetlb_bytes(), kHugeSize);
}

TEST(MHeap, LargeObjectsOfAnySizeAndAlignment) {
  HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 16 * GiB}});
  c.window_bytes = 8 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> live;
  for (std::size_t alignment = kPageSize; alignment <= GiB; alignment *= 2) {
    for (const std::size_t bytes : {std::size_t{1}, 3 * kPageSize + 5, 5 * MiB + 1}) {
      MSpan* span = w.heap.alloc_large(bytes, alignment, false);
      ASSERT_NE(span, nullptr) << bytes << " aligned to " << alignment;
      EXPECT_TRUE(is_aligned(span->start_addr, alignment));
      EXPECT_EQ(span->elem_size, align_up(bytes, kPageSize));
      EXPECT_EQ(span->span_class, kLargeClass);
      EXPECT_TRUE(reads_zero(span));
      fill(span, alignment);
      live.push_back(span);
      ASSERT_TRUE(w.heap.check());
    }
  }
  EXPECT_EQ(w.heap.stats().large_objects, live.size());
  for (MSpan* span : live) w.heap.free_span(span);
  EXPECT_EQ(w.heap.stats().large_bytes, 0u);
  EXPECT_TRUE(w.heap.check());
}

// Beyond an arena page numbers are not aligned as addresses are.
TEST(MHeap, AnyAlignmentIsByAddress) {
  HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 64 * GiB}});
  c.window_bytes = 256 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  ASSERT_NE(w.heap.alloc_large(kPageSize, kPageSize, false), nullptr);
  std::vector<MSpan*> live;
  for (std::size_t alignment = 32 * MiB; alignment <= 16 * GiB; alignment *= 2) {
    for (int i = 0; i < 2; i++) {
      live.push_back(w.heap.alloc_large(3 * MiB, alignment, false));
      ASSERT_NE(live.back(), nullptr) << alignment;
      EXPECT_TRUE(is_aligned(live.back()->start_addr, alignment)) << alignment;
      fill(live.back(), live.size() << 32);
      ASSERT_TRUE(w.heap.check());
    }
  }
  for (std::size_t i = 0; i < live.size(); i++) EXPECT_TRUE(holds(live[i], (i + 1) << 32, live[i]->npages));
  EXPECT_LE(w.heap.committed(), (live.size() + 2) * 3 * kHugeSize) << "what lies before and behind costs no memory";
  EXPECT_EQ(w.heap.alloc_large(kPageSize, std::size_t{1} << 46, false), nullptr);
  for (MSpan* span : live) w.heap.free_span(span);
  EXPECT_TRUE(w.heap.check());
}

TEST(MHeap, TenGiBInOneObject) {
  HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 64 * GiB}});
  c.window_bytes = 32 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  MSpan* small = w.heap.alloc_span(class_with_pages(1), kCpu);
  MSpan* span = w.heap.alloc_large(10 * GiB, kPageSize, true);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(span->pages().bytes(), 10 * GiB);
  EXPECT_FALSE(span->need_zero);
  for (std::size_t at = 0; at < 10 * GiB; at += 512 * MiB - 8) *reinterpret_cast<std::uint64_t*>(start_of(span) + at) = at;
  for (std::size_t at = 0; at < 10 * GiB; at += 512 * MiB - 8) {
    ASSERT_EQ(*reinterpret_cast<std::uint64_t*>(start_of(span) + at), at);
  }
  EXPECT_EQ(w.space.span_around(start_of(span) + 10 * GiB - 1), span);
  EXPECT_TRUE(w.heap.check());
  EXPECT_TRUE(w.heap.resize_large(span, 12 * GiB));
  EXPECT_TRUE(w.heap.resize_large(span, 64 * KiB));
  w.heap.free_span(span);
  w.heap.free_span(small);
  EXPECT_GE(w.heap.scavenge(SIZE_MAX, 0), 10 * GiB);
  EXPECT_TRUE(w.heap.check());
}

TEST(MHeap, WholeUnitsHaveOneOwner) {
  HeapWorld w(first_touch_heap({FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> live;
  for (int i = 1; i < 20; i++) {
    live.push_back(w.heap.alloc_large(static_cast<std::size_t>(i) * 300 * KiB, kPageSize, false));
    ASSERT_NE(live.back(), nullptr);
    EXPECT_TRUE(is_aligned(live.back()->start_addr, kHugeSize));
    EXPECT_TRUE(is_aligned(live.back()->elem_size, kHugeSize));
  }
  EXPECT_TRUE(w.heap.resize_large(live.back(), kHugeSize + 1));
  EXPECT_EQ(live.back()->elem_size, 2 * kHugeSize);
  // Another heap's exhaustion may bring small spans here.
  w.heap.free_span(live[3]);
  ASSERT_NE(w.heap.alloc_span(class_with_pages(5), kCpu), nullptr);
  MSpan* span = w.heap.alloc_large(100 * KiB, 64 * KiB, false);
  EXPECT_TRUE(is_aligned(span->start_addr, kHugeSize));
  EXPECT_TRUE(w.heap.check());
}

TEST(MHeap, ResizingKeepsContentsAndNeighbours) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  MSpan* a = w.heap.alloc_large(100 * kPageSize, kPageSize, false);
  fill(a, 7000);
  EXPECT_TRUE(w.heap.resize_large(a, 100 * kPageSize - 5)) << "the same pages";
  EXPECT_EQ(a->npages, 100u);
  EXPECT_TRUE(w.heap.resize_large(a, 20000 * kPageSize)) << "beyond the end of the heap";
  EXPECT_TRUE(holds(a, 7000, 100));
  EXPECT_TRUE(w.heap.check());
  EXPECT_TRUE(w.heap.resize_large(a, 50 * kPageSize));
  EXPECT_EQ(a->elem_size, 50 * kPageSize);
  MSpan* b = w.heap.alloc_large(10 * kPageSize, kPageSize, false);
  ASSERT_EQ(b->start_addr, a->end_addr()) << "lowest first";
  fill(b, 9000);
  EXPECT_FALSE(w.heap.resize_large(a, 51 * kPageSize)) << "somebody stands there";
  EXPECT_EQ(a->npages, 50u);
  EXPECT_FALSE(w.heap.resize_large(a, 2 * GiB)) << "more than the window";
  w.heap.free_span(b);
  EXPECT_TRUE(w.heap.resize_large(a, 60 * kPageSize));
  EXPECT_TRUE(holds(a, 7000, 50));
  const HeapStats s = w.heap.stats();
  EXPECT_EQ(s.large_bytes, 60 * kPageSize);
  EXPECT_EQ(s.in_use_bytes, 60 * kPageSize);
  EXPECT_TRUE(w.heap.check());
}

// ---- exhaustion --------------------------------------------------------------------------------------------------

TEST(MHeap, AFullWindowSaysSoAndRecovers) {
  HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 8 * GiB}});
  c.window_bytes = 256 * MiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> live;
  while (MSpan* span = w.heap.alloc_large(MiB, kPageSize, false)) live.push_back(span);
  EXPECT_EQ(live.size(), 256u) << "to the last page";
  EXPECT_EQ(w.heap.alloc_span(class_with_pages(1), kCpu), nullptr);
  EXPECT_FALSE(w.heap.resize_large(live[100], 2 * MiB));
  EXPECT_TRUE(w.heap.check());
  w.heap.free_span(live[7]);
  EXPECT_EQ(w.heap.alloc_large(2 * MiB, kPageSize, false), nullptr);
  EXPECT_NE(w.heap.alloc_span(class_with_pages(1), kCpu), nullptr);
  EXPECT_TRUE(w.heap.check());
}

// Free pages before the end of the heap are the first part of an object that needs the rest of the window.
TEST(MHeap, TheLastArenasOfAWindowAreNotWasted) {
  HeapWorldConfig c = node_heap({FakeNode{.memory_bytes = 8 * GiB}});
  c.window_bytes = 256 * MiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  MSpan* small = w.heap.alloc_large(kPageSize, kPageSize, false);
  MSpan* span = w.heap.alloc_large(256 * MiB - kPageSize, kPageSize, false);
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(w.heap.check());
  w.heap.free_span(span);
  w.heap.free_span(small);
  EXPECT_NE(w.heap.alloc_large(256 * MiB, kPageSize, false), nullptr);
}

TEST(MHeap, AHopelessRequestOpensNoAddressSpace) {
  HeapWorld w;
  ASSERT_TRUE(w.set_up());
  ASSERT_NE(w.heap.alloc_large(kPageSize, kPageSize, false), nullptr);
  const std::size_t writable = w.os.bytes_in_state(PageState::kWritable);
  EXPECT_EQ(w.heap.alloc_large(GiB, kPageSize, false), nullptr);
  EXPECT_EQ(w.heap.alloc_large(SIZE_MAX - 5, kPageSize, false), nullptr);
  EXPECT_EQ(w.os.bytes_in_state(PageState::kWritable), writable);
  EXPECT_EQ(w.heap.stats().arenas, 1u);
}

TEST(MHeap, AFullNodeSaysSoAndRecovers) {
  HeapWorld w(node_heap({FakeNode{.memory_bytes = 40 * MiB}, FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  std::vector<MSpan*> live;
  while (MSpan* span = w.heap.alloc_large(3 * MiB, kPageSize, false)) live.push_back(span);
  EXPECT_GE(live.size(), 10u);
  EXPECT_LE(live.size(), 14u);
  EXPECT_EQ(w.os.bytes_on(NodeId(1), false), 0u) << "the neighbour is not touched behind the caller's back";
  EXPECT_TRUE(w.heap.check());
  const std::size_t before = w.heap.stats().in_use_bytes;
  EXPECT_EQ(w.heap.alloc_large(100 * MiB, kPageSize, false), nullptr);
  EXPECT_EQ(w.heap.stats().in_use_bytes, before) << "what could not be backed is free again";
  w.os.set_memory(NodeId(0), 200 * MiB);
  EXPECT_NE(w.heap.alloc_large(100 * MiB, kPageSize, false), nullptr);
  EXPECT_TRUE(w.heap.check());
}

// What could not be had in full is given back at once: a process near its end has no use for half an object.
TEST(MHeap, AFailedRequestGivesBackWhatItBacked) {
  HeapWorld w(node_heap({FakeNode{.memory_bytes = 300 * MiB}, FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  MSpan* small = w.heap.alloc_large(5 * MiB + kPageSize, kPageSize, false);
  ASSERT_NE(small, nullptr);
  fill(small, 4);
  const std::size_t committed = w.heap.committed(), on_node = w.os.bytes_on(NodeId(0), false);
  EXPECT_EQ(w.heap.alloc_large(400 * MiB, kPageSize, false), nullptr);
  EXPECT_GT(w.os.calls(FakeCall::kPopulate), 0u) << "the fake machine says only there that it is full";
  EXPECT_LE(w.heap.committed(), committed + kHugeSize) << "all but the unit that it shares with its neighbour";
  EXPECT_LE(w.os.bytes_on(NodeId(0), false), on_node + kHugeSize);
  EXPECT_TRUE(holds(small, 4, small->npages));
  EXPECT_FALSE(w.heap.resize_large(small, 400 * MiB));
  EXPECT_LE(w.heap.committed(), committed + kHugeSize);
  EXPECT_TRUE(holds(small, 4, small->npages));
  EXPECT_TRUE(w.heap.check());
  EXPECT_EQ(w.os.check(), "");
  EXPECT_NE(w.heap.alloc_large(250 * MiB, kPageSize, false), nullptr);
}

// Huge pages first, and then the node is full.
TEST(MHeap, AFailedRequestGivesBackItsHugePages) {
  HeapWorld w(node_heap({FakeNode{.memory_bytes = 100 * MiB, .pages_2m = 20}, FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  MSpan* small = w.heap.alloc_large(5 * MiB + kPageSize, kPageSize, false);
  fill(small, 4);
  const std::size_t committed = w.heap.committed(), of_pool = w.os.hugetlb_bytes();
  EXPECT_EQ(w.heap.alloc_large(200 * MiB, kPageSize, false), nullptr);
  EXPECT_LE(w.heap.committed(), committed + kHugeSize);
  EXPECT_LE(w.os.hugetlb_bytes(), of_pool + kHugeSize);
  EXPECT_TRUE(holds(small, 4, small->npages));
  EXPECT_TRUE(w.heap.check());
}

TEST(MHeap, ARequestThatTheNodeCannotHoldTouchesNothing) {
  HeapWorldConfig c = node_heap({FakeNode{}, FakeNode{}});
  c.os.node_room = 100 * MiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  ASSERT_NE(w.heap.alloc_large(kPageSize, kPageSize, false), nullptr);
  const std::size_t committed = w.heap.committed();
  EXPECT_EQ(w.heap.alloc_large(150 * MiB, kPageSize, false), nullptr);
  EXPECT_EQ(w.os.calls(FakeCall::kPopulate), 0u);
  EXPECT_EQ(w.heap.committed(), committed);
  EXPECT_EQ(w.os.bytes_on(NodeId(0), false), 0u);
  EXPECT_TRUE(w.heap.check());
  EXPECT_NE(w.heap.alloc_large(90 * MiB, kPageSize, false), nullptr);
}

// Not even address space and tables for it.
TEST(MHeap, MoreThanTheNodeIsMadeOfCommitsNothing) {
  HeapWorldConfig c = node_heap({FakeNode{}, FakeNode{}});
  c.heap.backing.most_bytes = 4 * GiB;
  c.window_bytes = 64 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  MSpan* span = w.heap.alloc_large(kPageSize, kPageSize, false);
  ASSERT_NE(span, nullptr);
  const std::size_t mapped = w.mapped_bytes();
  EXPECT_EQ(w.heap.alloc_large(4 * GiB + kPageSize, kPageSize, false), nullptr);
  EXPECT_FALSE(w.heap.resize_large(span, 5 * GiB));
  EXPECT_EQ(w.heap.stats().arenas, 1u);
  EXPECT_EQ(w.mapped_bytes(), mapped);
}

// While the heap is small its first unit is the program's to fault in; later it is as all others are.
TEST(MHeap, TheFirstUnitHasNoPolicyOnceItIsFilled) {
  HeapWorld w(node_heap({FakeNode{}, FakeNode{}}));
  ASSERT_TRUE(w.set_up());
  MSpan* small = w.heap.alloc_large(kPageSize, kPageSize, false);
  EXPECT_EQ(w.os.policy_of(start_of(small)).mode, BindMode::kPreferred);
  MSpan* rest = w.heap.alloc_large(kHugeSize - kPageSize, kPageSize, false);
  MSpan* more = w.heap.alloc_large(kHugeSize, kPageSize, false);
  EXPECT_EQ(w.os.policy_of(start_of(small)).mode, BindMode::kDefault);
  EXPECT_EQ(w.os.node_of(start_of(small) + kHugeSize - 1), NodeId(0));
  // Given back and backed again, it is proven.
  w.heap.free_span(small);
  w.heap.free_span(rest);
  ASSERT_GE(w.heap.scavenge(SIZE_MAX, 0), kHugeSize);
  small = w.heap.alloc_large(kHugeSize, kPageSize, false);
  ASSERT_EQ(start_of(small), start_of(more) - kHugeSize);
  EXPECT_EQ(w.os.node_of(start_of(small)), NodeId(0)) << "nobody has touched it since";
  EXPECT_EQ(w.os.policy_of(start_of(small)).mode, BindMode::kDefault);
  EXPECT_TRUE(w.heap.check());
}

// ---- lost addresses, 1 GiB pages -----------------------------------------------------------------------------------

// Somebody maps something into an arena after it was dealt.
TEST(MHeap, GoesAroundAddressesThatWereLost) {
  for (const std::size_t pool : {500u, 0u}) {
    HeapWorld w(node_heap({FakeNode{.pages_2m = pool}}));
    ASSERT_TRUE(w.set_up());
    ASSERT_NE(w.heap.alloc_large(kPageSize, kPageSize, false), nullptr);
    if (pool != 0) w.os.fail_call(FakeCall::kMapNewHugetlb, 1, EEXIST);
    w.os.add_obstacle(w.space.base() + 2 * kHugeSize, kOsPageSize);
    w.os.add_obstacle(w.space.base() + 9 * kHugeSize, 3 * kHugeSize);
    std::vector<MSpan*> spans;
    for (int i = 0; i < 400; i++) {
      spans.push_back(i % 40 == 0 ? w.heap.alloc_large(5 * MiB, kPageSize, false)
                                  : w.heap.alloc_span(class_with_pages(1 + i % 16), kCpu));
      ASSERT_NE(spans.back(), nullptr);
      fill(spans.back(), 1);
    }
    EXPECT_TRUE(w.heap.check());
    for (MSpan* span : spans) w.heap.free_span(span);
    w.heap.flush_page_caches();
    w.heap.scavenge(SIZE_MAX, 0);
    EXPECT_TRUE(w.heap.check());
    EXPECT_EQ(w.os.check(), "");
  }
}

TEST(MHeap, GiantPagesOnRequest) {
  HeapWorldConfig c = node_heap({FakeNode{.pages_1g = 1}}, HugePagesOption::k1G);
  c.window_bytes = 8 * GiB;
  HeapWorld w(c);
  ASSERT_TRUE(w.set_up());
  MSpan* span = w.heap.alloc_large(600 * MiB, kPageSize, false);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(w.heap.stats().hugetlb_bytes, GiB);
  EXPECT_EQ(w.os.backing_of(start_of(span) + 100 * MiB), Backing::kHuge1G);
  EXPECT_TRUE(w.heap.check());
  MSpan* next = w.heap.alloc_large(900 * MiB, kPageSize, false);
  ASSERT_NE(next, nullptr) << "the pool is dry: other pages serve";
  fill(next, 3);
  w.heap.free_span(span);
  EXPECT_LT(w.heap.scavenge(SIZE_MAX, 0), GiB) << "a part of a 1 GiB page cannot be given back";
  EXPECT_EQ(w.os.hugetlb_bytes(), GiB);
  EXPECT_TRUE(holds(next, 3, next->npages));
  EXPECT_TRUE(w.heap.check());
}

}  // namespace
}  // namespace nh::test
