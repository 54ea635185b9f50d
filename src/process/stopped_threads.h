// The other threads of the process, stopped for a moment, with what their registers hold.
//
// By a signal to each: its handler waits until it may go on. ptrace, the other way, takes a permission that containers and
// hardened systems (yama, seccomp) refuse and that a debugger or strace has used up, and a snapshot by fork would have to
// take the heap off the huge pages of a pool first (leave_pool.h) and has no registers. What a signal costs: system calls
// that are not restarted (poll, nanosleep) end with EINTR, and a thread that blocks all signals is not stopped.
//
// The signal is the highest real-time one that has no handler. Nothing here allocates.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "process/scratch.h"

namespace nh {

class StoppedThreads {
 public:
  struct Thread {
    std::atomic<int> id;
    std::atomic<const void*> context;  // its ucontext_t; nullptr: it was not stopped
    bool asked;                        // it was sent the signal
    bool awaited;
  };

  // Room for as many threads as there are now, and some more. False: no memory.
  bool prepare();
  // Stops them. From here to resume() all signals are blocked in the calling thread, and it must not wait for any lock.
  void stop();
  void resume();

  // Those of the program that go on, since they block the signal or did not get it within a second.
  unsigned running() const { return running_; }

  // Calls visit(start, end) for the saved registers of each, whole words.
  void for_each_registers(void (*visit)(void* argument, std::uintptr_t start, std::uintptr_t end), void* argument) const;
  // The lowest stack pointer in a range of addresses; 0: there is none.
  std::uintptr_t lowest_stack_pointer(std::uintptr_t start, std::uintptr_t end) const;
  // Where they are noted, which is no memory of the program's.
  const Scratch<Thread>& memory() const { return threads_; }

 private:
  static bool add(void* self, const char* name);
  bool is_known(int id) const;
  void ask(Thread& thread, bool again);
  void wait_for_answers();

  Scratch<Thread> threads_;
  std::uint64_t before_ = 0;  // the signals that the caller had blocked
  int signal_ = 0;            // 0: there was none to be had
  bool found_ = false;
  unsigned running_ = 0;
};

// In a fork child: another thread may have been stopping the rest.
void repair_stopped_threads_after_fork();

}  // namespace nh
