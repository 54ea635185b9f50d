// Caches on restartable sequences of the real machine.
#include "cache/cache_world.h"
#include "cache/with_sequences.h"
#include "support/single_step.h"

namespace nh::test {
constexpr CacheMode kMode = CacheMode::kRseq;
}
#include "cache/common_cases.h"

namespace nh::test {
namespace {

// ---- single sequences ------------------------------------------------------------------------------------------------

class Sequences : public Pinned {
 protected:
  void SetUp() override {
    Pinned::SetUp();
    cpu_ = rseq_current_cpu();
    ASSERT_EQ(cpu_, 0);
    slots_.assign(2 + possible_cpus(), reinterpret_cast<char*>(&none_));
    slots_[2] = reinterpret_cast<char*>(&lists_);
    guard_ = {cpu_, &slots_[2], &lists_};
    list().cap = list().room = 10;
    for (auto& o : objects_) o[0] = o[1] = nullptr;
  }
  FreeList& list() { return lists_.of[20]; }
  bool push(void* p) { return rseq_push(slots_.data() + 2, offset_in_set(SpanClass(20)), p, address(p) + 1); }
  bool pop(void** p) { return rseq_pop(slots_.data() + 2, offset_in_set(SpanClass(20)), p); }
  void* chain_of(int first, int n) {
    for (int i = 0; i < n; i++) objects_[first + i][0] = i + 1 < n ? static_cast<void*>(objects_[first + i + 1]) : nullptr;
    return objects_[first];
  }
  // Guards that must not pass: another CPU, lists that were taken out of the slot.
  std::vector<RseqGuard> stale() {
    return {{cpu_ + 1, &slots_[2], &lists_}, {-1, &slots_[2], &lists_}, {cpu_, &slots_[2], &none_}};
  }
  void expect_untouched(const FreeList& before) {
    EXPECT_EQ(list().head, before.head);
    EXPECT_EQ(list().room, before.room);
    EXPECT_EQ(list().cap, before.cap);
  }

  int cpu_ = -1;
  ListSet lists_{};
  ListSet none_{};
  std::vector<CpuSlot> slots_;
  RseqGuard guard_{};
  void* objects_[20][4];
};

TEST_F(Sequences, PushAndPop) {
  void* p = nullptr;
  EXPECT_FALSE(pop(&p));
  for (int i = 0; i < 10; i++) EXPECT_TRUE(push(objects_[i]));
  EXPECT_FALSE(push(objects_[10])) << "no room";
  for (int i = 0; i < 20; i++) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(objects_[i][1]), i <= 10 ? address(objects_[i]) + 1 : 0) << "second word";
  }
  EXPECT_EQ(list().room, 0u);
  for (int i = 10; i-- > 0;) {
    ASSERT_TRUE(pop(&p));
    EXPECT_EQ(p, objects_[i]);
  }
  EXPECT_FALSE(pop(&p));
  EXPECT_EQ(list().room, 10u);
}

TEST_F(Sequences, AWithdrawnCacheTakesAndGivesNothing) {
  ASSERT_TRUE(push(objects_[0]));
  slots_[2] = reinterpret_cast<char*>(&none_);
  void* p;
  EXPECT_FALSE(pop(&p));
  EXPECT_FALSE(push(objects_[1]));
  EXPECT_EQ(list().head, objects_[0]);
}

TEST_F(Sequences, Take) {
  for (int i = 0; i < 4; i++) push(objects_[i]);
  const FreeList before = list();
  void* head = nullptr;
  std::uint32_t count = 0;
  for (const RseqGuard& g : stale()) EXPECT_FALSE(rseq_take(g, &list(), &head, &count));
  expect_untouched(before);
  ASSERT_TRUE(rseq_take(guard_, &list(), &head, &count));
  EXPECT_EQ(head, objects_[3]);
  EXPECT_EQ(count, 4u);
  EXPECT_EQ(list().head, nullptr);
  EXPECT_EQ(list().room, 10u);
  ASSERT_TRUE(rseq_take(guard_, &list(), &head, &count));
  EXPECT_EQ(head, nullptr);
  EXPECT_EQ(count, 0u);
}

TEST_F(Sequences, TakeSetsAWrongRoomRight) {
  push(objects_[0]);
  list().room = 13;  // pops that were cut short
  void* head;
  std::uint32_t count;
  ASSERT_TRUE(rseq_take(guard_, &list(), &head, &count));
  EXPECT_EQ(count, 0u);
  EXPECT_EQ(list().room, 10u);
}

TEST_F(Sequences, Put) {
  push(objects_[0]);
  const FreeList before = list();
  void* first = chain_of(1, 5);
  for (const RseqGuard& g : stale()) EXPECT_FALSE(rseq_put(g, &list(), first, objects_[5], 5));
  EXPECT_FALSE(rseq_put(guard_, &list(), first, objects_[5], 10)) << "room for 9";
  expect_untouched(before);
  EXPECT_EQ(objects_[5][0], nullptr);
  ASSERT_TRUE(rseq_put(guard_, &list(), first, objects_[5], 5));
  const std::vector<void*> expected = {objects_[1], objects_[2], objects_[3], objects_[4], objects_[5], objects_[0]};
  EXPECT_EQ(members(list().head), expected);
  EXPECT_EQ(list().room, 4u);
}

// Interrupted at every instruction none of them gets through. Each ends where it would if there were nothing to do.
TEST_F(Sequences, SingleStepsEnd) {
  push(objects_[0]);
  push(objects_[1]);
  const Stepped stepped = run_stepped(20000, [this] {
    // Where the kernel interrupts less often than at every instruction there is nothing to be seen.
    void* p = nullptr;
    Batch batch;
    if (pop(&p)) return 0;
    if (rseq_got_through() || !rseq_gets_through()) return 1;
    if (push(objects_[2]) || reinterpret_cast<std::uintptr_t>(objects_[2][1]) != address(objects_[2]) + 1) return 2;
    if (rseq_got_through()) return 3;
    if (rseq_take(guard_, &list(), &batch.head, &batch.count)) return 4;
    if (rseq_put(guard_, &list(), objects_[3], objects_[3], 1)) return 5;
    if (rseq_resize(guard_, &list(), 1)) return 6;
    FreeList& empty = lists_.of[21];
    empty.cap = empty.room = 10;
    if (rseq_install(guard_, &empty, objects_[3], 1) || empty.head != nullptr) return 7;
    if (list().head != objects_[1] || list().cap != 10) return 8;
    return 0;
  });
  if (!stepped.possible) GTEST_SKIP() << "ptrace is refused here";
  EXPECT_TRUE(stepped.ended) << stepped.steps;
  EXPECT_EQ(stepped.status, 0);
}

TEST_F(Sequences, Install) {
  void* first = chain_of(0, 6);
  const FreeList before = list();
  for (const RseqGuard& g : stale()) EXPECT_FALSE(rseq_install(g, &list(), first, 6));
  EXPECT_FALSE(rseq_install(guard_, &list(), first, 11)) << "more than it may hold";
  expect_untouched(before);
  list().room = 3;  // a hint gone wrong
  ASSERT_TRUE(rseq_install(guard_, &list(), first, 6));
  EXPECT_EQ(list().head, first);
  EXPECT_EQ(list().room, 4u) << "counted from the capacity";
  EXPECT_FALSE(rseq_install(guard_, &list(), objects_[10], 1)) << "not empty";
}

TEST_F(Sequences, Resize) {
  push(objects_[0]);
  const FreeList before = list();
  for (const RseqGuard& g : stale()) {
    EXPECT_FALSE(rseq_resize(g, &list(), 5));
    EXPECT_FALSE(rseq_resize(g, &list(), -5));
  }
  EXPECT_FALSE(rseq_resize(guard_, &list(), -10)) << "one place is taken";
  expect_untouched(before);
  ASSERT_TRUE(rseq_resize(guard_, &list(), 7));
  EXPECT_EQ(list().cap, 17u);
  EXPECT_EQ(list().room, 16u);
  ASSERT_TRUE(rseq_resize(guard_, &list(), -16));
  EXPECT_EQ(list().cap, 1u);
  EXPECT_EQ(list().room, 0u);
  ASSERT_TRUE(rseq_resize(guard_, &list(), 0));
  EXPECT_EQ(list().head, objects_[0]);
}

TEST_F(Sequences, ResizeNeverTakesMoreThanThereIs) {
  list().cap = 2;
  list().room = 6;  // overcounted by pops that were cut short
  EXPECT_FALSE(rseq_resize(guard_, &list(), -3));
  EXPECT_EQ(list().cap, 2u);
  ASSERT_TRUE(rseq_resize(guard_, &list(), -2));
  EXPECT_EQ(list().cap, 0u);
  EXPECT_EQ(list().room, 4u);
}

// ---- the real thing --------------------------------------------------------------------------------------------------

TEST(Rseq, MigrationAndSignalsLoseNothing) {
  CacheWorld w(world(2, 512 * KiB));
  {
    const Interrupted interrupted(300);
    run_traffic(w, {.threads = 8, .steps = 150000, .migrate = true});
  }
  EXPECT_GT(g_signals, 100u);
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(200), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST(Rseq, DrainedWhileTheyRun) {
  CacheWorld w(world(2, 512 * KiB));
  ASSERT_TRUE(w.caches.drain(CpuId(0)));
  std::atomic<bool> stop{false};
  std::atomic<unsigned> drained{0};
  std::thread drainer([&] {
    std::uint64_t sums[2];
    while (!stop) {
      for (unsigned cpu = 0; cpu < possible_cpus(); cpu++) drained += w.caches.drain(CpuId(static_cast<int>(cpu)));
      w.caches.totals(sums);
      w.central.heaps.trim_centrals();
      usleep(50);
    }
  });
  {
    const Interrupted interrupted(500);
    run_traffic(w, {.threads = 8, .steps = 40000, .migrate = true});
  }
  stop = true;
  drainer.join();
  EXPECT_GT(drained, 50u);
  EXPECT_EQ(w.errors, 0);
  EXPECT_EQ(w.audit(200), "");
  w.empty();
  EXPECT_EQ(w.spans(), 0u);
  EXPECT_TRUE(w.central.heaps.check());
}

TEST_F(Caches, WithoutFencesADrainSaysNo) {
  CacheWorld w(world());
  w.free(w.alloc(64));
  w.caches.set_fences(false);
  EXPECT_FALSE(w.caches.drain(CpuId(0)));
}

TEST_F(Caches, ATrustedSizeChoosesTheListThatThePageMapNames) {
  CacheWorld w(world(3));
  w.free(w.alloc(64));  // this CPU has a cache
  for (unsigned heap = 0; heap < 3; heap++) {
    std::size_t smallest = 1;
    for (unsigned c = 2; c < kSizeClasses; c++) {
      const std::size_t size = kSizeClassTable[c].bytes;
      if (size % 16 != 0) continue;
      void* p = w.central.heaps.central(HeapId(heap), class_for(size))->fetch(1, CpuId(0)).head;
      ASSERT_NE(p, nullptr);
      FreeList& list = *reinterpret_cast<FreeList*>(all_slots()[0] + entry_list(w.central.space.entry(p)));
      const FreeList before = list;
      for (const std::size_t named : {smallest, size}) {
        list = {nullptr, 1, 1};
        mark_word(p) = 0;
        EXPECT_EQ(mcache_free_trusting(p, named, g_hot.used_bytes), FreeOutcome::kDone);
        EXPECT_EQ(list.head, p) << "heap " << heap << ", " << named << " bytes";
        EXPECT_EQ(mark_word(p), free_mark(p));
        EXPECT_EQ(mcache_free_trusting(p, named, g_hot.used_bytes), FreeOutcome::kOdd) << "freed already";
        mark_word(p) = 0;
        EXPECT_EQ(mcache_free_trusting(p, named, g_hot.used_bytes), FreeOutcome::kFull);
        EXPECT_EQ(mark_word(p), free_mark(p));
      }
      list = before;
      smallest = size + 1;
    }
  }
  void* foreign[2] = {};
  EXPECT_EQ(mcache_free_trusting(foreign, 64, g_hot.used_bytes), FreeOutcome::kOdd);
}

TEST_F(Caches, ADoubleFreeIsSeenByTheFastPath) {
  CacheWorld w(world());
  void* p = w.alloc(64);
  w.free(p);
  EXPECT_EQ(mcache_free(p), FreeOutcome::kOdd);
  EXPECT_EQ(mcache_free(static_cast<char*>(p) + 16), FreeOutcome::kOdd) << "interior";
  EXPECT_EQ(mcache_free(&w), FreeOutcome::kOdd) << "foreign";
  void* volatile null = nullptr;
  EXPECT_EQ(mcache_free(null), FreeOutcome::kOdd);
}

}  // namespace
}  // namespace nh::test

int main(int argc, char** argv) { return nh::test::run_with_sequences(argc, argv); }
