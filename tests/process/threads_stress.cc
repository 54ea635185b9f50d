// Random work on several threads; every byte that goes astray and every block that is handed out twice is noticed.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include <memory>
#include <thread>
#include <vector>

#include "owned_blocks.h"

namespace {

constexpr size_t kSlots = 500;

double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// The cases run for a time, not for a count, so that a slow machine does not turn them into a timeout.
double duration() { return static_cast<double>(scaled(4, 1)); }

void work(uint64_t id, double until, Registry* registry) {
  std::vector<OwnedBlock> slots(kSlots);
  uint64_t random = id * 1000003;
  for (uint64_t sequence = 0; seconds_now() < until; sequence++) {
    for (int i = 0; i < 64; i++) {
      random_step(&slots[next_random(&random) % kSlots], &random, id << 48 | sequence << 8 | static_cast<uint64_t>(i), registry);
    }
  }
  for (OwnedBlock& block : slots) release(&block, registry);
}

void run_threads(int count, Registry* registry) {
  const double until = seconds_now() + duration();
  std::vector<std::thread> threads;
  for (int i = 0; i < count; i++) threads.emplace_back(work, static_cast<uint64_t>(i + 1), until, registry);
  for (std::thread& thread : threads) thread.join();
}

// The CPUs that this process may use.
std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void move_to(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  pthread_setaffinity_np(thread, sizeof set, &set);
}

std::atomic<long> g_signals;
void on_signal(int) { g_signals++; }

}  // namespace

CASE(one_thread) { run_threads(1, nullptr); }
CASE(two_threads) { run_threads(2, nullptr); }
CASE(eight_threads) { run_threads(8, nullptr); }

CASE(no_block_is_handed_out_twice) {
  const auto registry = std::make_unique<Registry>();
  run_threads(4, registry.get());
}

// A restartable sequence is aborted when the thread is moved, so it is moved all the time: by itself and by another.
CASE(threads_that_change_cpu) {
  const std::vector<int> cpus = usable_cpus();
  const double until = seconds_now() + duration();
  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= 4; id++) {
    threads.emplace_back([&cpus, id, until] {
      std::vector<OwnedBlock> slots(kSlots);
      uint64_t random = id;
      for (uint64_t sequence = 0; seconds_now() < until; sequence++) {
        move_to(pthread_self(), cpus[next_random(&random) % cpus.size()]);
        for (int i = 0; i < 16; i++) random_step(&slots[next_random(&random) % kSlots], &random, id << 48 | sequence, nullptr);
      }
      for (OwnedBlock& block : slots) release(&block, nullptr);
    });
  }
  // Moves them from outside, which interrupts them at any instruction.
  uint64_t random = 99;
  while (seconds_now() < until) {
    for (std::thread& thread : threads) move_to(thread.native_handle(), cpus[next_random(&random) % cpus.size()]);
    usleep(50);
  }
  for (std::thread& thread : threads) thread.join();
}

// Signals abort the sequence as well, and the handler runs in the middle of malloc.
CASE(signals_all_the_time) {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  sigaction(SIGPROF, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  const itimerval every = {{0, 100}, {0, 100}};
  setitimer(ITIMER_REAL, &every, nullptr);
  setitimer(ITIMER_PROF, &every, nullptr);
  const double until = seconds_now() + duration();
  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= 3; id++) threads.emplace_back(work, id, until, nullptr);
  while (seconds_now() < until) {
    for (std::thread& thread : threads) {
      if (seconds_now() < until - 0.2) pthread_kill(thread.native_handle(), SIGUSR1);
    }
    usleep(20);
  }
  for (std::thread& thread : threads) thread.join();
  const itimerval off = {};
  setitimer(ITIMER_REAL, &off, nullptr);
  setitimer(ITIMER_PROF, &off, nullptr);
  EXPECT(g_signals > 1000, "only %ld signals came", g_signals.load());
}

// Small objects only, as fast as it goes, on more threads than CPUs: the two halves of every pop and push get their
// chance to be interrupted.
CASE(small_objects_under_preemption) {
  const double until = seconds_now() + duration();
  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= 8; id++) {
    threads.emplace_back([id, until] {
      constexpr size_t kCount = 300;
      uint64_t* slots[kCount] = {};
      uint64_t random = id;
      while (seconds_now() < until) {
        for (int i = 0; i < 2000; i++) {
          const uint64_t r = next_random(&random);
          uint64_t*& slot = slots[r % kCount];
          if (slot != nullptr) {
            const uint64_t words = slot[1];
            bool good = words >= 2 && words <= 16 && slot[0] == (id ^ reinterpret_cast<uintptr_t>(slot));
            for (uint64_t w = 2; good && w < words; w++) good = slot[w] == (slot[0] ^ w);
            EXPECT(good, "%p of thread %zu was overwritten", static_cast<void*>(slot), size_t{id});
            free(slot);
            slot = nullptr;
          } else {
            const uint64_t words = 2 + (r >> 20) % 15;
            slot = static_cast<uint64_t*>(malloc(words * 8));
            slot[0] = id ^ reinterpret_cast<uintptr_t>(slot);
            slot[1] = words;
            for (uint64_t w = 2; w < words; w++) slot[w] = slot[0] ^ w;
          }
        }
      }
      for (uint64_t* slot : slots) free(slot);
    });
  }
  for (std::thread& thread : threads) thread.join();
}
