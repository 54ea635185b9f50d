// Objects that are freed by another thread than the one that allocated them.
#include <sched.h>

#include <atomic>
#include <memory>
#include <thread>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// A queue of pointers for one producer and one consumer. Both sides tell the other of 64 steps at once, and keep a copy
// of the other's index which they renew only where it says full or empty: the queue costs little beside what goes
// through it.
class Ring {
 public:
  void push(void* p) {
    while (tail_ - head_seen_ == kSlots) wait_for(head_told_, head_seen_);
    slots_[tail_ % kSlots] = p;
    if (++tail_ % kTold == 0) tail_told_.store(tail_, std::memory_order_release);
  }

  // After the last push.
  void close() { tail_told_.store(tail_, std::memory_order_release); }

  void* pop() {
    while (tail_seen_ == head_) wait_for(tail_told_, tail_seen_);
    void* const p = slots_[head_ % kSlots];
    if (++head_ % kTold == 0) head_told_.store(head_, std::memory_order_release);
    return p;
  }

 private:
  static constexpr std::size_t kSlots = 4096;
  static constexpr std::size_t kTold = 64;

  // Looks again; lets others run when there was nothing new for a while: there may be one CPU only.
  static void wait_for(const std::atomic<std::size_t>& index, std::size_t& seen) {
    for (int spins = 0; spins < 10'000; spins++) {
      const std::size_t now = index.load(std::memory_order_acquire);
      if (now != seen) {
        seen = now;
        return;
      }
      __builtin_ia32_pause();
    }
    sched_yield();
  }

  alignas(128) std::size_t tail_ = 0;  // of the producer
  std::size_t head_seen_ = 0;
  alignas(128) std::size_t head_ = 0;  // of the consumer
  std::size_t tail_seen_ = 0;
  alignas(128) std::atomic<std::size_t> tail_told_{0};
  alignas(128) std::atomic<std::size_t> head_told_{0};
  alignas(128) void* slots_[kSlots];
};

Result producer(const Run& run, std::size_t size) {
  const std::size_t count = run.scaled(3'000'000);
  std::uint64_t sum = 0;
  std::vector<double> times;
  for (int round = 0; round < 4; round++) {
    const auto ring = std::make_unique<Ring>();
    const auto produce = [&] {
      for (std::size_t i = 0; i < count; i++) {
        void* const p = allocate(size);
        set_word(p, i);
        ring->push(p);
      }
      ring->close();
    };
    const auto consume = [&] {
      std::uint64_t found = 0;
      for (std::size_t i = 0; i < count; i++) {
        void* const p = ring->pop();
        found += word_of(p) * (i + 1);
        std::free(p);
      }
      sum += found;
    };
    const double ns = run_threads(2, true, [&](std::size_t thread) { thread == 0 ? produce() : consume(); });
    if (round > 0) times.push_back(ns);
  }
  Checksum checksum;
  checksum.add(sum);
  return {median(times) / static_cast<double>(count), checksum.text()};
}

// Every thread puts what it allocates into a random mailbox and frees what it finds there.
Result mailboxes(const Run& run) {
  constexpr std::size_t kThreads = 2;
  constexpr std::size_t kBoxes = 4096;
  const MixedSizes sizes;
  const std::size_t steps = run.scaled(1'500'000);
  const auto boxes = std::make_unique<std::atomic<void*>[]>(kBoxes);
  std::uint64_t sums[kThreads] = {};
  std::vector<double> times;
  for (std::size_t round = 0; round < 4; round++) {
    const double ns = run_threads(kThreads, true, [&](std::size_t thread) {
      Random random(1 + thread + 100 * round);
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < steps; i++) {
        const std::uint64_t r = random.next();
        void* const mine = allocate(sizes(r));
        set_word(mine, r);
        void* const found = boxes[(r >> 32) % kBoxes].exchange(mine, std::memory_order_acq_rel);
        if (found == nullptr) continue;
        sum += word_of(found);
        std::free(found);
      }
      sums[thread] += sum;
    });
    if (round > 0) times.push_back(ns);
  }
  sample_memory();
  // What is left counts, too: the sum over everything does not depend on who met whom.
  std::uint64_t sum = sums[0] + sums[1];
  for (std::size_t i = 0; i < kBoxes; i++) {
    void* const left = boxes[i].load();
    if (left == nullptr) continue;
    sum += word_of(left);
    std::free(left);
  }
  Checksum checksum;
  checksum.add(sum);
  return {median(times) * kThreads / static_cast<double>(kThreads * steps), checksum.text()};
}

// Connections outlive the threads that serve them: a thread replaces some of its objects, hands all of them to a new
// thread, and ends. The benchmark of Larson and Krishnan (1998) in small.
Result generations(const Run& run) {
  constexpr std::size_t kLines = 2;
  constexpr std::size_t kObjects = 2000;
  constexpr std::size_t kSteps = 10'000;  // of one thread
  const std::size_t threads = run.scaled(400);
  std::uint64_t sums[kLines] = {};
  std::vector<void*> held[kLines];
  const double ns = run_threads(kLines, true, [&](std::size_t line) {
    Random random(1 + line);
    std::vector<void*>& objects = held[line];
    objects.assign(kObjects, nullptr);
    std::uint64_t sum = 0;
    const auto serve = [&] {
      for (std::size_t i = 0; i < kSteps; i++) {
        const std::uint64_t r = random.next();
        void*& object = objects[(r >> 32) % kObjects];
        if (object != nullptr) {
          sum += word_of(object);
          std::free(object);
        }
        object = allocate(16 + r % 497);
        set_word(object, r);
      }
    };
    for (std::size_t i = 0; i < threads; i++) std::thread(serve).join();
    sums[line] = sum;
  });
  sample_memory();
  for (const auto& objects : held) {
    for (void* const object : objects) std::free(object);
  }
  Checksum checksum;
  for (const std::uint64_t sum : sums) checksum.add(sum);
  return {ns * kLines / static_cast<double>(kLines * threads * kSteps), checksum.text()};
}

}  // namespace

void add_exchange(Table& table) {
  table.push_back({"producer/64", "ns/op", "64 bytes allocated on one CPU, freed on another",
                   [](const Run& run) { return producer(run, 64); }});
  table.push_back({"producer/1K", "ns/op", "1 KiB allocated on one CPU, freed on another",
                   [](const Run& run) { return producer(run, 1024); }});
  table.push_back({"server/mailboxes", "ns/op", "mixed sizes, two threads free what either has allocated; CPU time",
                   mailboxes});
  table.push_back({"server/generations", "ns/op",
                   "16 to 512 bytes, handed on from thread to thread, two at a time; CPU time", generations});
}

}  // namespace bench
