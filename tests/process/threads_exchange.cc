// Blocks that travel: allocated by one thread, freed by another; and threads that come and go.
#include <pthread.h>
#include <string.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "owned_blocks.h"

namespace {

class Queue {
 public:
  void push(const OwnedBlock& block) {
    std::unique_lock<std::mutex> lock(mutex_);
    room_.wait(lock, [this] { return blocks_.size() < 2000; });
    blocks_.push_back(block);
    filled_.notify_one();
  }
  // false when the producers are done and nothing is left
  bool pop(OwnedBlock* block) {
    std::unique_lock<std::mutex> lock(mutex_);
    filled_.wait(lock, [this] { return !blocks_.empty() || closed_; });
    if (blocks_.empty()) return false;
    *block = blocks_.front();
    blocks_.pop_front();
    room_.notify_one();
    return true;
  }
  void close() {
    const std::lock_guard<std::mutex> guard(mutex_);
    closed_ = true;
    filled_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_, room_;
  std::deque<OwnedBlock> blocks_;
  bool closed_ = false;
};

size_t exchanged_size(uint64_t* random) {
  const uint64_t r = next_random(random);
  return r % 64 == 0 ? 1 + (r >> 32) % 200000 : 1 + (r >> 32) % 1000;
}

void produce(Queue* queue, uint64_t id, long count) {
  uint64_t random = id;
  for (long i = 0; i < count; i++) {
    OwnedBlock block;
    block.n = exchanged_size(&random);
    block.p = malloc(block.n);
    block.tag = id << 32 | static_cast<uint64_t>(i);
    REQUIRE(block.p != nullptr);
    own(&block);
    queue->push(block);
  }
}

void consume(Queue* queue, std::atomic<long>* received) {
  OwnedBlock block;
  while (queue->pop(&block)) {
    release(&block, nullptr);
    (*received)++;
  }
}

void exchange(int producers, int consumers, long count) {
  Queue queue;
  std::atomic<long> received{0};
  std::vector<std::thread> sending, taking;
  for (int i = 0; i < producers; i++) sending.emplace_back(produce, &queue, static_cast<uint64_t>(i + 1), count);
  for (int i = 0; i < consumers; i++) taking.emplace_back(consume, &queue, &received);
  for (std::thread& t : sending) t.join();
  queue.close();
  for (std::thread& t : taking) t.join();
  EXPECT(received == producers * count, "%ld of %ld blocks arrived", received.load(), producers * count);
}

// Bytes that the heap holds by its own account, or by the kernel's where the library has no say.
long long committed_kib() {
  static char json[1 << 18];
  if (nh_stats_json == nullptr) return resident_kib();
  const int length = nh_stats_json(json, sizeof json);
  REQUIRE(length > 0 && static_cast<size_t>(length) < sizeof json, "%d bytes of statistics", length);
  const long long committed = json_sum(json, "committed_bytes");
  REQUIRE(committed >= 0, "no committed_bytes in %.300s", json);
  return committed / 1024;
}

struct ShortLife {
  uint64_t seed = 0;
  pthread_barrier_t* all_alive = nullptr;  // to be met with everything allocated
};

void* short_life(void* argument) {
  const auto* life = static_cast<const ShortLife*>(argument);
  uint64_t random = life->seed;
  void* blocks[200];
  for (void*& p : blocks) {
    const size_t n = 1 + next_random(&random) % 3000;
    p = malloc(n);
    memset(p, 1, n);
  }
  free(calloc(1, 100000));
  if (life->all_alive != nullptr) pthread_barrier_wait(life->all_alive);
  for (void* p : blocks) free(p);
  return nullptr;
}

}  // namespace

CASE(one_to_one) { exchange(1, 1, scaled(300000, 60000)); }
CASE(many_to_many) { exchange(3, 3, scaled(100000, 20000)); }
CASE(one_to_many) { exchange(1, 4, scaled(200000, 40000)); }

// Memory must not pile up on the side that frees: what is live never exceeds the queue.
CASE(exchange_does_not_grow) {
  exchange(1, 1, 50000);
  const long long before = committed_kib();
  exchange(1, 1, scaled(500000, 100000));
  const long long after = committed_kib();
  EXPECT(after - before < 16 * 1024, "%lld KiB, then %lld KiB", before, after);
}

// Each thread frees what the one before it allocated.
CASE(ring) {
  constexpr int kThreads = 4;
  Queue queues[kThreads];
  const long count = scaled(50000, 10000);
  std::vector<std::thread> threads;
  for (int id = 0; id < kThreads; id++) {
    threads.emplace_back([&queues, id, count] {
      uint64_t random = static_cast<uint64_t>(id) + 5;
      for (long i = 0; i < count; i++) {
        OwnedBlock block;
        block.n = exchanged_size(&random);
        block.p = malloc(block.n);
        block.tag = static_cast<uint64_t>(id) << 32 | static_cast<uint64_t>(i);
        own(&block);
        queues[(id + 1) % kThreads].push(block);
        if (i >= 100 && queues[id].pop(&block)) release(&block, nullptr);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (Queue& queue : queues) {
    queue.close();
    OwnedBlock block;
    while (queue.pop(&block)) release(&block, nullptr);
  }
}

CASE(a_hundred_threads_come_and_go) {
  const auto round = [](pthread_barrier_t* all_alive) {
    pthread_t threads[100];
    ShortLife lives[100];
    for (unsigned i = 0; i < 100; i++) {
      lives[i] = {i, all_alive};
      REQUIRE(pthread_create(&threads[i], nullptr, short_life, &lives[i]) == 0);
    }
    for (const pthread_t t : threads) pthread_join(t, nullptr);
  };
  // The first rounds fill caches, libc's stacks included, and reach what the others cannot exceed: everybody is alive.
  pthread_barrier_t all_alive;
  pthread_barrier_init(&all_alive, nullptr, 100);
  for (int i = 0; i < 10; i++) round(&all_alive);
  const long long committed = committed_kib();
  const long resident = resident_kib();
  const long virtual_size = status_kib("VmSize");
  for (int i = 0; i < 40; i++) round(nullptr);
  EXPECT(committed_kib() - committed <= 4096, "committed: %lld KiB, then %lld KiB", committed, committed_kib());
  EXPECT(resident_kib() - resident <= 6 * 1024, "resident: %ld KiB, then %ld KiB", resident, resident_kib());
  EXPECT(status_kib("VmSize") - virtual_size <= 300 * 1024, "address space: %ld KiB, then %ld KiB", virtual_size,
         status_kib("VmSize"));
}

// Threads that leave live blocks behind, freed by the main thread only.
CASE(inherited_blocks) {
  static void* blocks[64][500];
  for (int round = 0; round < 10; round++) {
    std::vector<std::thread> threads;
    for (auto& row : blocks) {
      threads.emplace_back([&row] {
        for (size_t i = 0; i < 500; i++) {
          row[i] = malloc(i + 1);
          fill_pattern(row[i], i + 1, i);
        }
      });
    }
    for (std::thread& t : threads) t.join();
    for (auto& row : blocks) {
      for (size_t i = 0; i < 500; i++) {
        EXPECT(verify_pattern(row[i], i + 1, i) == i + 1);
        free(row[i]);
      }
    }
  }
}
