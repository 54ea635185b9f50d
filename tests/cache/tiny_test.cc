// The tiny allocator against a model that knows every byte, and the 8-byte class.
#include "cache/tiny.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>

#include "cache/cache_world.h"

namespace nh::test {
namespace {

class Tiny : public ::testing::Test {
 protected:
  Tiny() { pin(0); }
  ~Tiny() override { unpin(); }
  MSpan& span_of(const void* p) { return *w_.central.space.span_of(p); }
  bool free(void* p) { return tiny_free(w_.caches, p, span_of(p)); }
  std::size_t usable(const void* p) { return tiny_usable(w_.caches, p, span_of(p)); }
  CacheWorld w_;
};

std::size_t natural_alignment(std::size_t size) { return size % 8 == 0 ? 8 : size % 4 == 0 ? 4 : size % 2 == 0 ? 2 : 1; }

TEST_F(Tiny, EveryByteHasOneOwner) {
  std::mt19937 random(99);
  std::map<char*, std::size_t> live;  // size asked for
  auto fill_of = [](char* p) { return static_cast<char>(address(p) * 37 | 1); };
  for (int step = 0; step < 40000; step++) {
    if (random() % 2 == 0 && live.size() < 3000) {
      const std::size_t size = 1 + random() % 15;
      auto* p = static_cast<char*>(tiny_alloc(w_.caches, size));
      ASSERT_NE(p, nullptr);
      ASSERT_TRUE(is_aligned(address(p), natural_alignment(size)));
      ASSERT_EQ(address(p) / 16, (address(p) + size - 1) / 16) << "within one block";
      const auto after = live.lower_bound(p);
      if (after != live.end()) {
        ASSERT_LE(p + size, after->first);
      }
      if (after != live.begin()) {
        ASSERT_LE(std::prev(after)->first + std::prev(after)->second, p);
      }
      live[p] = size;
      const std::size_t usable_now = usable(p);
      ASSERT_GE(usable_now, size);
      if (after != live.end()) {
        ASSERT_LE(p + usable_now, after->first) << "usable bytes of two objects overlap";
      }
      std::memset(p, fill_of(p), size);
    } else if (!live.empty()) {
      const auto it = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % std::min<std::size_t>(live.size(), 50)));
      char* p = it->first;
      for (std::size_t i = 0; i < it->second; i++) ASSERT_EQ(p[i], fill_of(p));
      const auto next = std::next(it);
      const std::size_t n = usable(p);
      ASSERT_GE(n, it->second);
      if (next != live.end()) {
        ASSERT_LE(p + n, next->first);
      }
      ASSERT_TRUE(free(p));
      live.erase(it);
    }
  }
  for (auto& [p, size] : live) ASSERT_TRUE(free(p));
  w_.empty();
  EXPECT_LE(w_.spans(), 1u) << "all but the block that is being filled went home";
  EXPECT_TRUE(w_.central.heaps.check());
}

TEST_F(Tiny, ManyShareABlock) {
  std::map<std::uintptr_t, int> blocks;
  for (int i = 0; i < 1500; i++) blocks[address(tiny_alloc(w_.caches, 1)) / 16]++;
  for (auto it = blocks.begin(); it != blocks.end(); ++it) EXPECT_LE(it->second, 15) << "none begins at byte 15";
  EXPECT_LE(blocks.size(), 1500u / 15 + 1);
}

TEST_F(Tiny, DoubleFreesAndInteriorPointersAreRefused) {
  auto* a = static_cast<char*>(tiny_alloc(w_.caches, 5));
  auto* b = static_cast<char*>(tiny_alloc(w_.caches, 5));
  ASSERT_EQ(address(a) / 16, address(b) / 16);
  EXPECT_FALSE(free(a + 1));
  EXPECT_EQ(usable(a + 1), 0u);
  EXPECT_TRUE(free(a));
  EXPECT_FALSE(free(a));
  EXPECT_EQ(usable(a), 0u);
  EXPECT_GE(usable(b), 5u);
  EXPECT_TRUE(free(b));
  EXPECT_FALSE(free(b)) << "also in a block that is still being filled";
  std::vector<void*> more;
  for (int i = 0; i < 10; i++) more.push_back(tiny_alloc(w_.caches, 15));
  EXPECT_FALSE(free(b)) << "and in one that was given back";
  for (void* p : more) EXPECT_TRUE(free(p));
}

TEST_F(Tiny, UsableGrowsToTheNextObjectAndNoFurther) {
  auto* a = static_cast<char*>(tiny_alloc(w_.caches, 3));
  ASSERT_EQ(address(a) % 16, 0u);
  EXPECT_EQ(usable(a), 3u) << "the next one may begin right behind it";
  auto* b = static_cast<char*>(tiny_alloc(w_.caches, 8));
  EXPECT_EQ(b - a, 8);
  EXPECT_EQ(usable(a), 8u);
  EXPECT_EQ(usable(b), 8u);
  EXPECT_TRUE(free(b));
  EXPECT_EQ(usable(a), 16u);
}

TEST_F(Tiny, OutOfMemoryIsSaid) {
  w_.central.os.fail_all(FakeCall::kReserve, ENOMEM);
  w_.central.os.fail_all(FakeCall::kMakeWritable, ENOMEM);
  std::size_t n = 0;
  while (tiny_alloc(w_.caches, 15) != nullptr) ASSERT_LT(n++, 1000000u);
  w_.central.os.clear_failures();
  EXPECT_NE(tiny_alloc(w_.caches, 15), nullptr);
}

TEST_F(Tiny, EightByteObjects) {
  std::vector<void*> live;
  for (int i = 0; i < 3000; i++) {
    live.push_back(eight_alloc(w_.caches));
    ASSERT_TRUE(is_aligned(address(live.back()), 8));
    w_.taken(live.back());
    *static_cast<std::uint64_t*>(live.back()) = address(live.back());
  }
  for (void* p : live) {
    ASSERT_EQ(*static_cast<std::uint64_t*>(p), address(p));
    ASSERT_TRUE(eight_is_object(p, span_of(p)));
    ASSERT_FALSE(eight_is_object(static_cast<char*>(p) + 4, span_of(p)));
    ASSERT_FALSE(eight_free(w_.caches, static_cast<char*>(p) + 4, span_of(p)));
    ASSERT_TRUE(eight_free(w_.caches, p, span_of(p)));
    w_.given_back(p);
    ASSERT_FALSE(eight_is_object(p, span_of(p)));
    ASSERT_FALSE(eight_free(w_.caches, p, span_of(p))) << "a double free";
  }
  EXPECT_EQ(w_.errors, 0);
  w_.empty();
  EXPECT_EQ(w_.spans(), 0u);
}

// Objects are handed over and freed elsewhere, while others ask how large they are and write all of it.
TEST(TinyThreads, NobodyWritesIntoAnothersBytes) {
  CacheWorld w({.heaps = 2});
  std::vector<std::atomic<char*>> desk(64);
  std::atomic<int> errors{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int step = 0; step < 15000; step++) {
        const std::size_t size = 1 + random() % 15;
        auto* p = static_cast<char*>(tiny_alloc(w.caches, size));
        if (p == nullptr) {
          errors++;
          continue;
        }
        const MSpan& span = *w.central.space.span_of(p);
        const std::size_t n = tiny_usable(w.caches, p, span);
        errors += n < size;
        std::memset(p, static_cast<char>(address(p)), n);
        char* other = desk[random() % desk.size()].exchange(p);
        if (other == nullptr) continue;
        errors += other[0] != static_cast<char>(address(other));
        errors += !tiny_free(w.caches, other, *w.central.space.span_of(other));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (auto& slot : desk) {
    if (char* p = slot.load(); p != nullptr) errors += !tiny_free(w.caches, p, *w.central.space.span_of(p));
  }
  EXPECT_EQ(errors, 0);
  w.empty();
  EXPECT_LE(w.spans(), possible_cpus());
  EXPECT_TRUE(w.central.heaps.check());
}

}  // namespace
}  // namespace nh::test
