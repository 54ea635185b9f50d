// Objects that one node allocates and another one frees.
#include <atomic>
#include <cstdlib>
#include <sched.h>

#include "placement.h"

namespace {

// From CPU to CPU: a ring of pointers, one writer, one reader.
struct Ring {
  static constexpr std::size_t kSlots = 1 << 16;
  struct Object {
    unsigned char* p;
    std::size_t bytes;
  };
  Object slot[kSlots];
  alignas(64) std::atomic<std::size_t> written{0};
  alignas(64) std::atomic<std::size_t> read{0};

  void put(Object object) {
    const std::size_t at = written.load(std::memory_order_relaxed);
    while (at - read.load(std::memory_order_acquire) == kSlots) sched_yield();
    slot[at % kSlots] = object;
    written.store(at + 1, std::memory_order_release);
  }
  Object take() {
    const std::size_t at = read.load(std::memory_order_relaxed);
    while (written.load(std::memory_order_acquire) == at) sched_yield();
    const Object object = slot[at % kSlots];
    read.store(at + 1, std::memory_order_release);
    return object;
  }
};

constexpr std::size_t kExchanged = 5'000'000;
constexpr std::size_t kKept = Ring::kSlots;  // how many of its own the consumer holds

struct Exchange {
  Ring ring;
  Ring::Object kept[kKept] = {};
  PageSet produced, consumed;
  std::atomic<std::size_t> live{0};
  std::size_t peak = 0;
  std::size_t committed = 0;      // the most that the statistics showed
  std::size_t resident = 0;       // the most that the kernel showed
};

std::size_t committed_bytes() {
  std::size_t bytes = 0;
  for (int node = 0; node < machine().nodes; node++) bytes += heap_of(node).committed_bytes;
  return bytes;
}

unsigned char* fresh(std::size_t bytes, PageSet& pages) {
  auto* p = static_cast<unsigned char*>(malloc(bytes));
  REQUIRE(p != nullptr);
  p[0] = p[bytes - 1] = static_cast<unsigned char>(bytes);
  pages.add(p, bytes);
  return p;
}

void produce(int, void* argument) {
  Exchange& x = *static_cast<Exchange*>(argument);
  std::uint64_t seed = 12;
  for (std::size_t i = 0; i < kExchanged; i++) {
    const std::size_t bytes = 64 + next_random(&seed) % 1985;
    const std::size_t live = x.live.fetch_add(bytes) + bytes;
    if (live > x.peak) x.peak = live;
    x.ring.put({fresh(bytes, x.produced), bytes});
    if (i % 100'000 != 0) continue;
    if (const std::size_t now = committed_bytes(); now > x.committed) x.committed = now;
    if (const auto now = static_cast<std::size_t>(resident_kib()) * kKiB; now > x.resident) x.resident = now;
  }
}

// Frees what comes in and takes an object of its own of the same size for it, so that node 3 would hand out node 0's
// memory if it could.
void consume(int, void* argument) {
  Exchange& x = *static_cast<Exchange*>(argument);
  for (std::size_t i = 0; i < kExchanged; i++) {
    const Ring::Object object = x.ring.take();
    EXPECT(object.p[0] == static_cast<unsigned char>(object.bytes) && object.p[object.bytes - 1] == object.p[0]);
    free(object.p);
    Ring::Object& own = x.kept[i % kKept];
    x.live.fetch_sub(own.bytes);  // object's bytes go over to its successor
    free(own.p);
    own = {fresh(object.bytes, x.consumed), object.bytes};
  }
}

Exchange& new_exchange() { return *new Exchange; }

}  // namespace

// Five million objects go from the first node to the last one.
CASE(a_consumer_far_away_neither_keeps_nor_moves_memory) {
  Exchange& x = new_exchange();
  const std::size_t before = static_cast<std::size_t>(resident_kib()) * kKiB;
  const int far = machine().cpus - 1;
  const int home = machine().home(0), other = machine().home(far);
  pthread_t consumer;
  REQUIRE(pthread_create(&consumer, nullptr, [](void* p) -> void* {
            pin(machine().cpus - 1);
            consume(0, p);
            return nullptr;
          }, &x) == 0);
  on_cpu(0, produce, &x);
  pthread_join(consumer, nullptr);

  Census produced, consumed;
  produced.add(x.produced);
  consumed.add(x.consumed);
  // Pages that were given back meanwhile are of no node; of those that are there, all must be on the right one.
  EXPECT(produced.on[home] > 0 && produced.on[home] + produced.absent == produced.total, "%s", produced.text());
  EXPECT(consumed.on[other] > 0 && consumed.on[other] + consumed.absent == consumed.total, "%s", consumed.text());
  EXPECT(x.peak > 64 * kMiB, "%zu bytes live at most", x.peak);
  EXPECT(x.committed <= x.peak * 3 / 2, "%zu bytes committed, %zu live at most", x.committed, x.peak);
  EXPECT(x.resident - before <= x.peak * 3 / 2 + sizeof(Exchange) + 32 * kMiB, "%zu bytes resident, %zu live at most",
         x.resident - before, x.peak);
  EXPECT(heap_of(home).remote_frees > kExchanged * 9 / 10, "%lu remote frees", heap_of(home).remote_frees);
  EXPECT(heap_of(other).remote_frees == 0, "%lu", heap_of(other).remote_frees);
}

// Objects of node 0 freed on node 3, in rounds: they are not handed out there, and node 0 gets them back.
CASE(foreign_frees_come_home) {
  constexpr std::size_t kObjects = 20000;
  constexpr int kRounds = 5;
  Lists lists(kObjects);
  const int remote = machine().cpus - 1;
  const int home = machine().home(0), other = machine().home(remote);
  std::uint64_t committed_first = 0;
  for (int i = 0; i < kRounds; i++) {
    on_cpu(0, [](int, void* p) { (*static_cast<Lists*>(p))[0].allocate(kObjects, 4 * kKiB, 3); }, &lists);
    Census produced;
    lists[0].write();
    produced.add(lists[0]);
    EXPECT_ALL_ON(produced, home);
    if (i == 0) committed_first = heap_of(home).committed_bytes;
    on_cpu(remote, [](int cpu, void* p) {
      Lists& all = *static_cast<Lists*>(p);
      all[0].free_all();
      all[cpu].allocate(kObjects, 4 * kKiB, 4);
    }, &lists);
    Census consumed;
    lists[remote].write();
    consumed.add(lists[remote]);
    EXPECT_ALL_ON(consumed, other);
    on_cpu(remote, [](int cpu, void* p) { (*static_cast<Lists*>(p))[cpu].free_all(); }, &lists);
  }
  // What is left of the last round may still lie in the lists of the remote CPU.
  const std::uint64_t came_home = heap_of(home).remote_frees;
  EXPECT(came_home > kObjects * (kRounds - 1) && came_home <= kObjects * kRounds, "%lu remote frees", came_home);
  EXPECT(heap_of(other).remote_frees == 0, "%lu", heap_of(other).remote_frees);
  EXPECT(heap_of(home).committed_bytes <= committed_first * 3 / 2, "%lu after %lu", heap_of(home).committed_bytes,
         committed_first);
}
