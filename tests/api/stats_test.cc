// The statistics and control calls of numaheap.h: numbers that follow what the program does.
#include <numaheap/numaheap.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/build.h"

namespace {

std::vector<numaheap_heap_stats> all_heaps() {
  std::vector<numaheap_heap_stats> all(numaheap_heap_count());
  for (unsigned i = 0; i < all.size(); i++) {
    EXPECT_EQ(numaheap_get_heap_stats(i, &all[i], sizeof all[i]), 0) << "heap " << i;
  }
  return all;
}

std::uint64_t sum(std::uint64_t numaheap_heap_stats::*member) {
  std::uint64_t total = 0;
  for (const numaheap_heap_stats& s : all_heaps()) total += s.*member;
  return total;
}
std::uint64_t live() { return sum(&numaheap_heap_stats::live_bytes); }

// What the vectors of the measurement itself may add or take.
constexpr std::uint64_t kOwnUse = 64 * 1024;

TEST(Stats, HeapsAreNodesThenFirstTouchThenInterleaved) {
  const auto heaps = all_heaps();
  ASSERT_GE(heaps.size(), 3u);
  for (std::size_t i = 0; i < heaps.size(); i++) {
    const int expected = i + 2 < heaps.size()    ? NUMAHEAP_HEAP_NODE
                         : i + 2 == heaps.size() ? NUMAHEAP_HEAP_FIRST_TOUCH
                                                 : NUMAHEAP_HEAP_INTERLEAVED;
    EXPECT_EQ(heaps[i].kind, expected) << "heap " << i;
    if (expected == NUMAHEAP_HEAP_NODE) {
      EXPECT_GE(heaps[i].node, 0);
      if (i != 0) {
        EXPECT_GT(heaps[i].node, heaps[i - 1].node);
      }
    } else {
      EXPECT_EQ(heaps[i].node, -1);
    }
  }
}

TEST(Stats, IndexPastTheLastHeapIsRefused) {
  numaheap_heap_stats s;
  memset(&s, 0x5a, sizeof s);
  for (const unsigned index : {numaheap_heap_count(), numaheap_heap_count() + 1, ~0u}) {
    errno = 0;
    EXPECT_EQ(numaheap_get_heap_stats(index, &s, sizeof s), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(s.node, 0x5a5a5a5a) << "a failing call must not write";
  errno = 0;
  EXPECT_EQ(numaheap_get_heap_stats(0, nullptr, sizeof s), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST(Stats, SizeBelongsToTheCaller) {
  // A program built with an older header, which ends after live_bytes, and one built with a newer, larger one.
  struct {
    numaheap_heap_stats stats;
    unsigned char beyond[64];
  } room;
  memset(&room, 0x5a, sizeof room);
  const std::size_t old_size = offsetof(numaheap_heap_stats, cached_bytes);
  ASSERT_EQ(numaheap_get_heap_stats(0, &room.stats, old_size), 0);
  EXPECT_EQ(room.stats.kind, NUMAHEAP_HEAP_NODE);
  EXPECT_EQ(room.stats.cached_bytes, 0x5a5a5a5a5a5a5a5au);
  ASSERT_EQ(numaheap_get_heap_stats(0, &room.stats, sizeof room), 0);
  for (const unsigned char byte : room.beyond) ASSERT_EQ(byte, 0);
}

TEST(Stats, CommittedIsTheSumOfItsKinds) {
  std::vector<void*> blocks;
  for (const std::size_t size : {100, 5000, 100000, 3 << 20, 9 << 20}) {
    blocks.push_back(memset(malloc(size), 1, size));
    for (const numaheap_heap_stats& s : all_heaps()) {
      EXPECT_EQ(s.committed_bytes, s.hugetlb_bytes + s.thp_bytes + s.base_bytes);
      EXPECT_LE(s.live_bytes + s.cached_bytes + s.free_bytes, s.committed_bytes);
      EXPECT_LE(s.committed_bytes, s.arenas * (std::uint64_t{64} << 20));
    }
  }
  for (void* p : blocks) free(p);
}

// Objects are counted by the size of their class, which is what malloc_usable_size() says.
TEST(Stats, LiveBytesFollowTheProgram) {
  for (const std::size_t size : {16, 50, 1000, 32768, 100000, 6 << 20}) {
    const std::size_t count = size >= (1 << 20) ? 4 : 32 * 1024 * 1024 / size / 8 + 100;
    std::vector<void*> blocks(count);
    const std::uint64_t before = live();
    for (void*& p : blocks) p = malloc(size);
    const std::uint64_t held = live();
    const std::uint64_t expected = count * malloc_usable_size(blocks[0]);
    EXPECT_GE(held - before, expected - kOwnUse) << "size " << size;
    EXPECT_LE(held - before, expected + kOwnUse) << "size " << size;
    for (void* p : blocks) free(p);
    const std::uint64_t after = live();
    EXPECT_GE(after + kOwnUse, before) << "size " << size;
    EXPECT_LE(after, before + kOwnUse) << "size " << size;
  }
}

TEST(Stats, LargeObjectsAreCounted) {
  const std::uint64_t before = sum(&numaheap_heap_stats::large_objects);
  void* p = malloc(100000);
  void* q = malloc(10 << 20);
  EXPECT_EQ(sum(&numaheap_heap_stats::large_objects), before + 2);
  free(p);
  free(q);
  EXPECT_EQ(sum(&numaheap_heap_stats::large_objects), before);
}

TEST(Stats, RefillsAndFlushesAreCounted) {
  const std::uint64_t refills = sum(&numaheap_heap_stats::refills);
  const std::uint64_t flushes = sum(&numaheap_heap_stats::flushes);
  std::vector<void*> blocks(100000);
  for (void*& p : blocks) p = malloc(200);
  EXPECT_GE(sum(&numaheap_heap_stats::refills), refills + blocks.size() / 1000);
  for (void* p : blocks) free(p);
  EXPECT_GT(sum(&numaheap_heap_stats::flushes), flushes);
}

TEST(Trim, GivesMemoryBack) {
  constexpr std::size_t kBytes = 64 << 20;
  constexpr std::size_t kSmall = 1000;
  std::vector<void*> blocks(kBytes / kSmall);
  for (void*& p : blocks) p = memset(malloc(kSmall), 1, kSmall);
  void* large = memset(malloc(kBytes), 1, kBytes);
  const std::uint64_t held = sum(&numaheap_heap_stats::committed_bytes);
  const std::uint64_t released_before = sum(&numaheap_heap_stats::released_bytes);
  EXPECT_GE(held, 2 * kBytes);
  for (void* p : blocks) free(p);
  free(large);

  const std::uint64_t syscalls = numaheap_memory_syscalls();
  const std::size_t released = numaheap_trim();
  EXPECT_GE(released, kBytes) << "half of what was freed at least";
  EXPECT_LE(sum(&numaheap_heap_stats::committed_bytes), held - released + (2 << 20));
  EXPECT_GE(sum(&numaheap_heap_stats::released_bytes), released_before + released);
  EXPECT_GT(numaheap_memory_syscalls(), syscalls);
  EXPECT_LE(sum(&numaheap_heap_stats::cached_bytes), kOwnUse) << "caches are emptied, too";
  EXPECT_EQ(numaheap_trim(), 0u) << "nothing is left to give";
  // The heap works on.
  for (void*& p : blocks) p = memset(malloc(kSmall), 2, kSmall);
  for (void* p : blocks) free(p);
}

TEST(Stats, WarmHeapMakesNoMemorySystemCalls) {
  auto churn = [] {
    std::vector<void*> blocks(2000);
    for (int round = 0; round < 20; round++) {
      for (std::size_t i = 0; i < blocks.size(); i++) blocks[i] = malloc(i);
      for (void* p : blocks) free(p);
    }
  };
  churn();
  const std::uint64_t before = numaheap_memory_syscalls();
  churn();
  EXPECT_EQ(numaheap_memory_syscalls(), before);
}

TEST(Stats, CacheModeIsOneOfTheDocumented) {
  const std::string mode = numaheap_cache_mode();
  EXPECT_TRUE(mode == "rseq" || mode == "own-rseq" || mode == "fallback" || mode == "off") << mode;
}

TEST(Stats, VersionIsTheHeaders) {
  EXPECT_EQ(numaheap_version(), std::to_string(NUMAHEAP_VERSION_MAJOR) + "." + std::to_string(NUMAHEAP_VERSION_MINOR) +
                                    "." + std::to_string(NUMAHEAP_VERSION_PATCH) + (nh::kTrustSizes ? "+trust-sizes" : ""));
}

// As snprintf: never past the capacity, always terminated, always the full length.
void check_truncation(int (*write)(char*, size_t)) {
  const int length = write(nullptr, 0);
  ASSERT_GT(length, 100);
  std::vector<char> whole(static_cast<std::size_t>(length) + 64, '?');
  // Counters may have got a digit longer or shorter since.
  const int now = write(whole.data(), whole.size());
  ASSERT_NEAR(now, length, 32);
  EXPECT_EQ(strlen(whole.data()), static_cast<std::size_t>(now));
  for (const std::size_t capacity : {1, 2, 20, 100}) {
    char cut[128];
    memset(cut, '#', sizeof cut);
    EXPECT_NEAR(write(cut, capacity), length, 32);
    EXPECT_EQ(strnlen(cut, sizeof cut), capacity - 1);
    EXPECT_EQ(memcmp(cut, whole.data(), capacity < 20 ? capacity - 1 : 19), 0);
    for (std::size_t i = capacity; i < sizeof cut; i++) ASSERT_EQ(cut[i], '#') << "capacity " << capacity;
  }
}

TEST(Stats, TextIsCutAsBySnprintf) { check_truncation(numaheap_stats_text); }
TEST(Stats, JsonIsCutAsBySnprintf) { check_truncation(numaheap_stats_json); }

TEST(Stats, ReportsAllocateNothing) {
  static char buffer[1 << 16];
  const std::uint64_t before = live();
  const std::uint64_t again = live();  // what the measurement itself takes
  for (int i = 0; i < 100; i++) {
    numaheap_stats_text(buffer, sizeof buffer);
    numaheap_stats_json(buffer, sizeof buffer);
  }
  EXPECT_EQ(live() - again, again - before);
}

}  // namespace
