// The placement functions held against what numaheap.h says of them, on whatever machine this is. Where memory lies on
// machines with several nodes is shown in ../numa_vm.
#include <numaheap/numaheap.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kSizes[] = {0, 1, 8, 17, 24, 100, 4096, 32768, 32769, 300000, 5 * kMiB};

std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

std::vector<numaheap_placement> all_placements() {
  std::vector<numaheap_placement> all;
  for (const std::uint32_t flags : {0, NUMAHEAP_ALLOC_STRICT + 0, NUMAHEAP_ALLOC_ZERO + 0, NUMAHEAP_ALLOC_NOSCAN + 0}) {
    all.push_back({NUMAHEAP_LOCAL, -1, flags});
    all.push_back({NUMAHEAP_INTERLEAVED, -1, flags});
    for (const int where : {NUMAHEAP_BANDWIDTH, NUMAHEAP_LATENCY, NUMAHEAP_CAPACITY, NUMAHEAP_WEIGHTED}) {
      all.push_back({where, -1, flags});
    }
    for (unsigned i = 0; i < numaheap_node_count(); i++) all.push_back({NUMAHEAP_ON_NODE, numaheap_node_id(i), flags});
    if (flags != NUMAHEAP_ALLOC_STRICT) all.push_back({NUMAHEAP_FIRST_TOUCH, -1, flags});
  }
  return all;
}

// The statistics of the heap in which exactly one object more lives after the allocation: which heap served.
std::vector<std::uint64_t> live_bytes() {
  std::vector<std::uint64_t> live;
  numaheap_heap_stats stats;
  for (unsigned i = 0; numaheap_get_heap_stats(i, &stats, sizeof stats) == 0; i++) live.push_back(stats.live_bytes);
  return live;
}
int kind_of_heap_that_grew(const std::vector<std::uint64_t>& before, std::uint64_t least) {
  const std::vector<std::uint64_t> after = live_bytes();
  for (unsigned i = 0; i < after.size(); i++) {
    if (after[i] < before[i] + least) continue;
    numaheap_heap_stats stats;
    numaheap_get_heap_stats(i, &stats, sizeof stats);
    return stats.kind;
  }
  return -1;
}

TEST(Placed, EverySizeEverywhere) {
  for (const numaheap_placement& placement : all_placements()) {
    for (const std::size_t size : kSizes) {
      void* p = numaheap_alloc(size, 0, &placement);
      ASSERT_NE(p, nullptr) << size << " at " << placement.where;
      ASSERT_GE(malloc_usable_size(p), size);
      const std::size_t alignment = (placement.flags & NUMAHEAP_ALLOC_NOSCAN) != 0 && size > 16 && size <= 24 ? 8 : 16;
      ASSERT_EQ(address(p) % alignment, 0u) << size;
      memset(p, 0x5a, malloc_usable_size(p));
      free(p);
    }
  }
}

TEST(Placed, Alignment) {
  for (const numaheap_placement& placement : all_placements()) {
    for (std::size_t alignment = 1; alignment <= 4 * kMiB; alignment *= 4) {
      for (const std::size_t size : {std::size_t{1}, std::size_t{24}, std::size_t{5000}, std::size_t{100000}}) {
        void* p = numaheap_alloc(size, alignment, &placement);
        ASSERT_NE(p, nullptr) << alignment;
        ASSERT_EQ(address(p) % alignment, 0u) << size;
        ASSERT_GE(malloc_usable_size(p), size);
        free(p);
      }
    }
  }
}

TEST(Placed, NoscanIsPackedDensely) {
  const numaheap_placement dense = {NUMAHEAP_LOCAL, -1, NUMAHEAP_ALLOC_NOSCAN}, plain = {NUMAHEAP_LOCAL, -1, 0};
  void* packed = numaheap_alloc(24, 8, &dense);
  void* aligned = numaheap_alloc(24, 16, &dense);
  void* other = numaheap_alloc(24, 8, &plain);
  EXPECT_EQ(malloc_usable_size(packed), 24u);
  EXPECT_EQ(malloc_usable_size(aligned), 32u);
  EXPECT_EQ(malloc_usable_size(other), 32u);
  free(packed);
  free(aligned);
  free(other);
}

TEST(Placed, ZeroIsZeroAfterDirtyReuse) {
  for (numaheap_placement placement : all_placements()) {
    placement.flags |= NUMAHEAP_ALLOC_ZERO;
    for (const std::size_t size : {std::size_t{16}, std::size_t{100}, std::size_t{32768}, std::size_t{200000}, 5 * kMiB}) {
      for (int i = 0; i < 3; i++) {
        auto* p = static_cast<unsigned char*>(numaheap_alloc(size, 0, &placement));
        ASSERT_NE(p, nullptr);
        ASSERT_EQ(std::count(p, p + size, 0), static_cast<std::ptrdiff_t>(size)) << size;
        memset(p, 0xa5, size);
        free(p);
      }
    }
  }
}

TEST(Placed, ObjectsAreTakenFromTheHeapOfTheirPlace) {
  struct Case {
    numaheap_placement placement;
    std::size_t size;
    int kind;
  };
  const int node = numaheap_local_node();
  const Case cases[] = {
      {{NUMAHEAP_LOCAL, -1, 0}, 6 * kMiB, NUMAHEAP_HEAP_NODE},
      {{NUMAHEAP_ON_NODE, node, 0}, 6 * kMiB, NUMAHEAP_HEAP_NODE},
      {{NUMAHEAP_INTERLEAVED, -1, 0}, 6 * kMiB, NUMAHEAP_HEAP_INTERLEAVED},
      {{NUMAHEAP_FIRST_TOUCH, -1, 0}, 6 * kMiB, NUMAHEAP_HEAP_FIRST_TOUCH},
      {{NUMAHEAP_FIRST_TOUCH, -1, 0}, 100000, NUMAHEAP_HEAP_FIRST_TOUCH},
      {{NUMAHEAP_LOCAL, -1, 0}, 100000, NUMAHEAP_HEAP_NODE},
      {{NUMAHEAP_INTERLEAVED, -1, 0}, 100000, NUMAHEAP_HEAP_INTERLEAVED},
  };
  for (const Case& c : cases) {
    const auto before = live_bytes();
    void* p = numaheap_alloc(c.size, 0, &c.placement);
    EXPECT_EQ(kind_of_heap_that_grew(before, c.size), c.kind) << c.placement.where << " " << c.size;
    // It stays there when it has to move, up and down; malloc would place 30 MiB by first touch.
    void* grown = realloc(p, 30 * kMiB);
    EXPECT_EQ(kind_of_heap_that_grew(before, 30 * kMiB), c.kind) << c.placement.where << " " << c.size;
    free(grown);
  }
}

TEST(Placed, ReallocKeepsPlaceAndContents) {
  struct Place {
    void* (*allocate)(std::size_t);
    int kind;
  };
  const Place places[] = {
      {[](std::size_t n) { return numaheap_malloc_on_node(n, numaheap_local_node()); }, NUMAHEAP_HEAP_NODE},
      {[](std::size_t n) { return numaheap_malloc_local(n); }, NUMAHEAP_HEAP_NODE},
      {[](std::size_t n) { return numaheap_malloc_interleaved(n); }, NUMAHEAP_HEAP_INTERLEAVED},
  };
  for (const Place& place : places) {
    const auto before = live_bytes();
    std::size_t size = 10;
    auto* p = static_cast<unsigned char*>(place.allocate(size));
    memset(p, 0x11, size);
    // Through small and medium sizes: each step moves, none may forget where it belongs.
    for (const std::size_t next : {100u, 3000u, 30000u, 100000u, 1u << 20, 9u << 20}) {
      p = static_cast<unsigned char*>(realloc(p, next));
      ASSERT_NE(p, nullptr);
      ASSERT_EQ(std::count(p, p + size, 0x11), static_cast<std::ptrdiff_t>(size)) << next;
      memset(p, 0x11, next);
      size = next;
    }
    EXPECT_EQ(kind_of_heap_that_grew(before, 9 * kMiB), place.kind);
    p = static_cast<unsigned char*>(realloc(p, 50));
    ASSERT_EQ(std::count(p, p + 50, 0x11), 50);
    p = static_cast<unsigned char*>(realloc(p, 9 * kMiB));
    EXPECT_EQ(kind_of_heap_that_grew(before, 9 * kMiB), place.kind) << "after it was small";
    EXPECT_EQ(realloc(p, 0), nullptr);
  }
}

// Placed by the threads that write to it: a copy would be placed by whoever calls realloc.
TEST(Placed, ReallocLeavesFirstTouchMemoryWhereItIs) {
  void* p = numaheap_malloc_first_touch(100000);
  ASSERT_NE(p, nullptr);
  for (const std::size_t next : {100000u, 200000u, 1u << 20, 2u << 20, 50000u, 300000u}) {
    EXPECT_EQ(realloc(p, next), p) << next;
  }
  free(p);
}

TEST(Placed, Errors) {
  struct Case {
    const char* name;
    numaheap_placement placement;
    std::size_t size, alignment;
    int error;
  };
  const int node = numaheap_local_node();
  const Case cases[] = {
      {"no such node", {NUMAHEAP_ON_NODE, 1000, 0}, 64, 0, EINVAL},
      {"a negative node", {NUMAHEAP_ON_NODE, -1, 0}, 64, 0, EINVAL},
      {"far out", {NUMAHEAP_ON_NODE, INT32_MAX, 0}, 64, 0, EINVAL},
      {"no such place", {8, node, 0}, 64, 0, EINVAL},
      {"a negative place", {-1, node, 0}, 64, 0, EINVAL},
      {"an unknown flag", {NUMAHEAP_LOCAL, -1, 8}, 64, 0, EINVAL},
      {"strict first touch", {NUMAHEAP_FIRST_TOUCH, -1, NUMAHEAP_ALLOC_STRICT}, 64, 0, EINVAL},
      {"alignment of 3", {NUMAHEAP_LOCAL, -1, 0}, 64, 3, EINVAL},
      {"alignment of 48", {NUMAHEAP_LOCAL, -1, 0}, 64, 48, EINVAL},
      {"more than PTRDIFF_MAX", {NUMAHEAP_ON_NODE, node, 0}, std::size_t{PTRDIFF_MAX} + 1, 0, ENOMEM},
      {"SIZE_MAX", {NUMAHEAP_INTERLEAVED, -1, 0}, SIZE_MAX, 0, ENOMEM},
      {"SIZE_MAX by first touch", {NUMAHEAP_FIRST_TOUCH, -1, NUMAHEAP_ALLOC_ZERO}, SIZE_MAX, 0, ENOMEM},
      {"half the address space as alignment", {NUMAHEAP_LOCAL, -1, 0}, 64, SIZE_MAX / 2 + 1, ENOMEM},
  };
  for (const Case& c : cases) {
    errno = 0;
    EXPECT_EQ(numaheap_alloc(c.size, c.alignment, &c.placement), nullptr) << c.name;
    EXPECT_EQ(errno, c.error) << c.name;
  }
  errno = 0;
  EXPECT_EQ(numaheap_alloc(64, 0, nullptr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  errno = 0;
  EXPECT_EQ(numaheap_malloc_on_node(64, 1000), nullptr);
  EXPECT_EQ(errno, EINVAL);
  errno = 0;
  EXPECT_EQ(numaheap_malloc_on_node_strict(64, 1000), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST(Placed, SuccessKeepsErrno) {
  errno = 77;
  for (const numaheap_placement& placement : all_placements()) {
    for (const std::size_t size : kSizes) free(numaheap_alloc(size, 0, &placement));
  }
  EXPECT_EQ(numaheap_node_count() > 0 ? numaheap_node_id(0) >= 0 : false, true);
  EXPECT_GE(numaheap_local_node(), 0);
  EXPECT_EQ(errno, 77);
}

TEST(Nodes, AreListedByNumber) {
  const unsigned count = numaheap_node_count();
  ASSERT_GE(count, 1u);
  for (unsigned i = 1; i < count; i++) EXPECT_LT(numaheap_node_id(i - 1), numaheap_node_id(i));
  bool found = false;
  for (unsigned i = 0; i < count; i++) found |= numaheap_node_id(i) == numaheap_local_node();
  EXPECT_TRUE(found);
  errno = 0;
  EXPECT_EQ(numaheap_node_id(count), -1);
  EXPECT_EQ(errno, EINVAL);
}

// The kernel's answer for objects, other memory, and what is no memory at all.
class NodeOf : public ::testing::Test {
 protected:
  void SetUp() override {
    int here = 0;
    errno = 0;
    if (numaheap_node_of(&here) < 0 && (errno == EPERM || errno == ENOSYS)) GTEST_SKIP() << "the kernel does not tell";
    map_ = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(map_, MAP_FAILED);
    madvise(map_, 3 * kPage, MADV_NOHUGEPAGE);
  }
  void TearDown() override {
    if (map_ != nullptr) munmap(map_, 3 * kPage);
  }
  char* page(unsigned i) { return static_cast<char*>(map_) + i * kPage; }
  int error_at(const void* p) {
    errno = 0;
    EXPECT_EQ(numaheap_node_of(p), -1);
    return errno;
  }
  static constexpr std::size_t kPage = 4096;
  void* map_ = nullptr;
};

TEST_F(NodeOf, IsKnownOncePagesAreThere) {
  page(0)[0] = 1;
  errno = 55;
  EXPECT_GE(numaheap_node_of(page(0)), 0);
  EXPECT_GE(numaheap_node_of(page(0) + 1234), 0) << "anywhere in the page";
  EXPECT_EQ(errno, 55);
  EXPECT_EQ(error_at(page(1)), ENOENT);
  volatile char c = *page(1);
  EXPECT_EQ(c, 0);
  EXPECT_EQ(error_at(page(1)), ENOENT) << "read only so far";
  munmap(page(2), kPage);
  EXPECT_EQ(error_at(page(2)), EFAULT);
  EXPECT_EQ(error_at(nullptr), EFAULT);
  EXPECT_EQ(error_at(reinterpret_cast<void*>(UINTPTR_MAX)), EFAULT);
}

TEST_F(NodeOf, OfPlacedObjects) {
  for (unsigned i = 0; i < numaheap_node_count(); i++) {
    for (const std::size_t size : {std::size_t{64}, std::size_t{20000}, std::size_t{200000}, 6 * kMiB}) {
      auto* p = static_cast<char*>(numaheap_malloc_on_node_strict(size, numaheap_node_id(i)));
      ASSERT_NE(p, nullptr) << size;
      memset(p, 1, size);
      for (std::size_t at = 0; at < size; at += kPage) ASSERT_EQ(numaheap_node_of(p + at), numaheap_node_id(i));
      free(p);
    }
  }
}

using Verify = NodeOf;

int verify_error(const void* p, std::size_t size, const numaheap_placement* placement) {
  errno = 0;
  EXPECT_EQ(numaheap_verify(p, size, placement), -1);
  return errno;
}

TEST_F(Verify, WhatWasAskedForLiesThere) {
  for (const numaheap_placement& placement : all_placements()) {
    if (placement.where == NUMAHEAP_FIRST_TOUCH) continue;
    for (const std::size_t size : {std::size_t{64}, std::size_t{20000}, std::size_t{200000}, 6 * kMiB}) {
      void* p = numaheap_alloc(size, 0, &placement);
      ASSERT_NE(p, nullptr) << size;
      memset(p, 1, size);
      EXPECT_EQ(numaheap_verify(p, size, &placement), 1) << placement.where << " " << size;
      free(p);
    }
  }
}

TEST_F(Verify, OtherNodesAreElsewhere) {
  if (numaheap_node_count() < 2) GTEST_SKIP() << "one node";
  auto* p = static_cast<char*>(numaheap_malloc_on_node_strict(kMiB, numaheap_node_id(0)));
  memset(p, 1, kMiB);
  const numaheap_placement first = {NUMAHEAP_ON_NODE, numaheap_node_id(0), 0};
  const numaheap_placement second = {NUMAHEAP_ON_NODE, numaheap_node_id(1), 0};
  EXPECT_EQ(numaheap_verify(p, kMiB, &first), 1);
  EXPECT_EQ(numaheap_verify(p, kMiB, &second), 0);
  free(p);
}

TEST_F(Verify, PagesThatAreNotThereDoNotCount) {
  const numaheap_placement here = {NUMAHEAP_ON_NODE, numaheap_local_node(), 0};
  EXPECT_EQ(verify_error(page(0), 3 * kPage, &here), ENOENT);
  volatile char c = *page(1);
  EXPECT_EQ(c, 0);
  EXPECT_EQ(verify_error(page(0), 3 * kPage, &here), ENOENT) << "read only so far";
  page(1)[5] = 1;
  const numaheap_placement there = {NUMAHEAP_ON_NODE, numaheap_node_of(page(1)), 0};
  EXPECT_EQ(numaheap_verify(page(0) + 7, 2 * kPage, &there), 1);
  EXPECT_EQ(verify_error(page(0), kPage, &there), ENOENT);
  munmap(page(2), kPage);
  EXPECT_EQ(verify_error(page(1), kPage + 1, &there), EFAULT);
  EXPECT_EQ(numaheap_verify(page(1), kPage, &there), 1);
  EXPECT_EQ(verify_error(reinterpret_cast<void*>(UINTPTR_MAX - 10), 100, &there), EFAULT);
}

TEST_F(Verify, BadQuestions) {
  int here = 0;
  const numaheap_placement good = {NUMAHEAP_LOCAL, -1, 0}, touch = {NUMAHEAP_FIRST_TOUCH, -1, 0},
                           bad_flag = {NUMAHEAP_LOCAL, -1, 64}, bad_where = {99, -1, 0}, bad_node = {NUMAHEAP_ON_NODE, 999, 0};
  EXPECT_EQ(verify_error(&here, 4, nullptr), EINVAL);
  EXPECT_EQ(verify_error(&here, 0, &good), EINVAL);
  for (const numaheap_placement* placement : {&touch, &bad_flag, &bad_where, &bad_node}) {
    EXPECT_EQ(verify_error(&here, 4, placement), EINVAL);
  }
}

}  // namespace
