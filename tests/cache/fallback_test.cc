// Caches without restartable sequences; nothing in this program registers any. Also runs under ThreadSanitizer, which
// cannot see into the sequences of the other mode.
#include "cache/cache_world.h"

namespace nh::test {
constexpr CacheMode kMode = CacheMode::kFallback;
}
#include "cache/common_cases.h"

namespace nh::test {
namespace {

TEST(Fallback, TheFastPathFindsNothing) {
  CacheWorld w(world());
  void* p = w.alloc(64);
  w.free(p);
  EXPECT_FALSE(mcache_alloc(64, &p));
}

TEST(Fallback, ThreadsLoseNothing) {
  CacheWorld w(world(2, 256 * KiB));
  run_traffic(w, {.threads = 4, .steps = 8000});
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(0), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST(Fallback, DrainedWhileTheyRun) {
  CacheWorld w(world(2, 256 * KiB));
  std::atomic<bool> stop{false};
  std::thread drainer([&] {
    std::uint64_t sums[2];
    while (!stop) {
      w.caches.drain_all();
      w.caches.totals(sums);
      w.central.heaps.trim_centrals();
    }
  });
  run_traffic(w, {.threads = 3, .steps = 6000, .migrate = true});
  stop = true;
  drainer.join();
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(0), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
}

TEST(Fallback, LargeObjectsAreNotKept) {
  CacheWorldConfig c = world();
  c.extents = true;
  CacheWorld w(c);
  for (const std::size_t size : {std::size_t{40000}, 64 * KiB, MiB, 4 * MiB, 8 * MiB}) {
    for (int i = 0; i < 4; i++) {
      void* p = w.alloc(size);
      ASSERT_NE(p, nullptr);
      EXPECT_TRUE(is_aligned(address(p), kPageSize));
      w.free(p);
      ASSERT_EQ(w.spans(), 0u) << size;
    }
  }
  EXPECT_FALSE(w.caches.drain_large());
  EXPECT_EQ(w.caches.kept_large(HeapId(0)).objects + w.caches.kept_large(w.extent_heap()).objects, 0u);
  EXPECT_EQ(w.audit(0), "");
  EXPECT_EQ(w.errors, 0);
}

TEST(Fallback, ThreadsWithLargeObjectsLoseNothing) {
  CacheWorldConfig c = world(2);
  c.extents = true;
  CacheWorld w(c);
  run_traffic(w, {.threads = 4, .steps = 3000, .migrate = true, .large = true});
  EXPECT_EQ(w.errors, 0);
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST(Fallback, RepairAbandonsALockedCache) {
  CacheWorld w(world());
  pin(0);
  std::vector<void*> live;
  for (int i = 0; i < 100; i++) live.push_back(w.alloc(64));
  w.free(live.back());
  live.pop_back();
  CpuCache& cache = *w.caches.current_cache();
  std::thread([&] { cache.lock.lock(); }).join();
  std::thread([&] { cache.tiny_lock.lock(); }).join();
  w.caches.repair_after_fork();
  EXPECT_FALSE(cache.lock.held());
  EXPECT_EQ(w.audit(0), "");
  for (void* p : live) w.free(p);
  EXPECT_NE(tiny_alloc(w.caches, 3), nullptr);
  w.empty();
  EXPECT_EQ(w.errors, 0);
  unpin();
}

}  // namespace
}  // namespace nh::test
