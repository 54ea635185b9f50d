// What programs with restartable sequences share: their main, and a timer whose signals cut sequences short.
//
// Each such program has one source file. The sequences refer to the functions they are in, and the linker refuses that
// where it drops one of two copies of an inline function.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <cstdio>

#include "os/rseq.h"

namespace nh::test {

inline std::atomic<unsigned> g_signals{0};
inline void on_signal(int) { g_signals.fetch_add(1, std::memory_order_relaxed); }

// Signals cut sequences short, wherever they are.
class Interrupted {
 public:
  explicit Interrupted(int usec) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, &old_);
    const itimerval timer{{0, usec}, {0, usec}};
    setitimer(ITIMER_REAL, &timer, nullptr);
  }
  ~Interrupted() {
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &old_, nullptr);
  }

 private:
  struct sigaction old_ {};
};

// Registers once, while there is one thread. Without restartable sequences (valgrind, gVisor) there is nothing to test.
inline int run_with_sequences(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (rseq_init() == RseqMode::kOff) {
    std::puts("no restartable sequences here: nothing to test");
    return 0;
  }
  if (membarrier_rseq_register() != 0) {
    std::puts("membarrier refused: drains cannot be tested here");
    return 0;
  }
  return RUN_ALL_TESTS();
}

}  // namespace nh::test
