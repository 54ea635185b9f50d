#include "central/transfer_cache.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "central/central_world.h"

namespace nh::test {
namespace {

const SpanClass kOf1024 = class_for(1024);

// Objects that belong to no span: the transfer cache does not know the difference.
class Transfer : public ::testing::Test {
 protected:
  static constexpr unsigned kObjects = 4096;
  Batch batch(unsigned n) {
    std::vector<void*> objects;
    for (unsigned i = 0; i < n; i++) objects.push_back(&objects_[next_++]);
    return {chain(objects), n};
  }
  unsigned fill() {
    unsigned batches = 0;
    while (cache_.put(batch(16))) batches++;
    return batches;
  }

  struct Object {
    void* link;
    std::uint64_t mark;
  };
  std::vector<Object> objects_{kObjects};
  unsigned next_ = 0;
  TransferCache cache_{kOf1024};
};

TEST_F(Transfer, LastInFirstOut) {
  EXPECT_EQ(cache_.take(16).count, 0u);
  const Batch a = batch(16), b = batch(5);
  ASSERT_TRUE(cache_.put(a));
  ASSERT_TRUE(cache_.put(b));
  EXPECT_EQ(cache_.objects(), 21u);
  EXPECT_TRUE(cache_.check());
  EXPECT_EQ(cache_.take(2).head, b.head) << "a whole batch";
  EXPECT_EQ(cache_.objects(), 16u);
  EXPECT_EQ(cache_.take(100).head, a.head);
  EXPECT_EQ(cache_.objects(), 0u);
  EXPECT_EQ(cache_.takes(), 2u);
  EXPECT_EQ(cache_.puts(), 2u);
}

TEST_F(Transfer, OneByOne) {
  const Batch a = batch(3);
  const std::vector<void*> expected = members(a.head);
  ASSERT_TRUE(cache_.put(a));
  for (unsigned i = 0; i < 3; i++) {
    const Batch one = cache_.take(1);
    EXPECT_EQ(one.count, 1u);
    EXPECT_EQ(members(one.head), std::vector<void*>{expected[i]});
    EXPECT_EQ(cache_.objects(), 2u - i);
    EXPECT_TRUE(cache_.check());
  }
  EXPECT_EQ(cache_.take(1).head, nullptr);
}

TEST_F(Transfer, IsBounded) {
  EXPECT_TRUE(cache_.has_room());
  EXPECT_EQ(fill(), 128 * KiB / (16 * 1024));
  EXPECT_FALSE(cache_.has_room());
  cache_.take(16);
  EXPECT_TRUE(cache_.has_room());
}

// Whoever would find nothing does not wait for those at work.
TEST_F(Transfer, AnEmptyCacheIsSeenWithoutItsLock) {
  std::thread([&] { cache_.lock().lock(); }).join();
  EXPECT_EQ(cache_.take(16).count, 0u);
  EXPECT_TRUE(cache_.has_room());
}

TEST_F(Transfer, RepairLosesWhatMayBeHalfWritten) {
  fill();
  cache_.repair_after_fork();
  EXPECT_FALSE(cache_.has_room()) << "nobody was inside";
  std::thread([&] { cache_.lock().lock(); }).join();
  cache_.repair_after_fork();
  EXPECT_FALSE(cache_.lock().held());
  EXPECT_EQ(cache_.objects(), 0u);
  EXPECT_EQ(cache_.take(16).count, 0u);
  EXPECT_TRUE(cache_.put(batch(16)));
  EXPECT_TRUE(cache_.check());
}

TEST_F(Transfer, ThreadsShareOutWhatIsThere) {
  constexpr int kThreads = 4;
  std::vector<std::vector<void*>> mine(kThreads);
  for (auto& m : mine) m = members(batch(64).head);
  std::atomic<int> errors{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (unsigned step = 0; step < 20000; step++) {
        std::vector<void*>& m = mine[static_cast<std::size_t>(t)];
        if (step % 2 == 0 && m.size() >= 16) {
          const std::vector<void*> out(m.end() - 16, m.end());
          for (void* p : out) mark_word(p) = 0;
          if (cache_.put({chain(out), 16})) m.resize(m.size() - 16);
        } else {
          const Batch b = cache_.take(step % 3 == 0 ? 1 : 16);
          for (void* p : members(b.head)) {
            errors += mark_word(p) != 0;
            mark_word(p) = static_cast<std::uint64_t>(t) + 1;
            m.push_back(p);
          }
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(errors, 0);
  EXPECT_TRUE(cache_.check());
  std::set<void*> all;
  std::size_t count = cache_.objects();
  for (Batch b = cache_.take(16); b.count != 0; b = cache_.take(16)) {
    for (void* p : members(b.head)) all.insert(p);
  }
  EXPECT_EQ(all.size(), count);
  for (const auto& m : mine) {
    count += m.size();
    all.insert(m.begin(), m.end());
  }
  EXPECT_EQ(count, std::size_t{64} * kThreads);
  EXPECT_EQ(all.size(), count) << "an object had two owners";
}

}  // namespace
}  // namespace nh::test
