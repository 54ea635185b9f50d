// A thread of ours that sleeps until there is something to do: its start, its sleep, its end.
//
// No call for work is lost. A look begins by forgetting the calls so far; whoever frees memory notes a call after that, and
// wakes the worker if the note is new and the worker has said that it sleeps. The worker says so first, and then sleeps
// only if there is no note. In the total order of these four steps either the worker sees the note or the caller sees the
// sleeper. A note that the caller finds is older than the look that will forget it, and since a fence stands before the
// caller's look at the note, and another behind the forgetting, that look will see what the caller has freed.
#pragma once

#include <atomic>
#include <cstdint>

#include <pthread.h>
#include <sys/types.h>

#include "numa/cpu_set.h"

namespace nh {

enum class Sleep : std::uint8_t {
  kAwake,
  kPaced,     // between two pieces of work: nobody may shorten it
  kUntilOld,  // until some memory has been idle for long enough: hurry() ends it
  kEndless,   // until memory is freed: call() and hurry() end it
};

class Worker {
 public:
  // ---- any thread --------------------------------------------------------------------------------------------------------
  bool runs() const { return state_.load(std::memory_order_acquire) == State::kRunning; }
  // Something was freed.
  void call() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (called_.load(std::memory_order_relaxed) || called_.exchange(true)) return;
    if (sleep_.load() == Sleep::kEndless) wake();
  }
  // There is something to do that does not wait for the age of memory.
  void hurry();

  // Starts the thread unless it was started, or wanted() is false by now; 0, or pthread_create()'s error. All signals are
  // blocked.
  int start(void* (*work)(void*), void* argument, bool (*wanted)());
  // Wakes the thread, which must end now that nobody wants it, and waits until it has. By one thread only.
  void stop();
  // In a fork child: the thread is gone.
  void forget();

  // ---- the worker ----------------------------------------------------------------------------------------------------------
  // A look begins. Returns what sleep() wants to know.
  std::uint32_t begin_look() {
    const std::uint32_t seen = wake_.load(std::memory_order_acquire);
    called_.store(false, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return seen;
  }
  bool was_called() const { return called_.load(); }
  // Sleeps for so long at most (0: no limit), unless it was woken since begin_look(). May end early.
  void sleep(Sleep how, std::uint32_t seen, std::uint64_t timeout_ns);

 private:
  enum class State : std::uint32_t { kNone, kStarting, kRunning };
  void wake();

  std::atomic<State> state_{State::kNone};
  std::atomic<std::uint32_t> wake_{0};  // futex: counts the times that it was woken
  std::atomic<bool> called_{false};
  std::atomic<Sleep> sleep_{Sleep::kAwake};
  pthread_t thread_{};
  pid_t process_ = 0;  // the thread is of this one
};

// The calling thread runs on these CPUs only, as far as it may run there; on none of them: as before.
void stay_on(const CpuSet& cpus);
void name_this_thread(const char* name);

}  // namespace nh
