#include "process/worker.h"

#include <cerrno>

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/units.h"
#include "os/os.h"

namespace nh {

void Worker::wake() {
  wake_.fetch_add(1, std::memory_order_release);
  linux_os().futex_wake(&wake_, 1);
}

void Worker::hurry() {
  const Sleep how = sleep_.load();
  if (how == Sleep::kUntilOld || how == Sleep::kEndless) wake();
}

void Worker::sleep(Sleep how, std::uint32_t seen, std::uint64_t timeout_ns) {
  sleep_.store(how);
  if (how != Sleep::kEndless || !called_.load()) linux_os().futex_wait(&wake_, seen, timeout_ns);
  sleep_.store(Sleep::kAwake, std::memory_order_relaxed);
}

int Worker::start(void* (*work)(void*), void* argument, bool (*wanted)()) {
  State expected = State::kNone;
  if (!state_.compare_exchange_strong(expected, State::kStarting)) return 0;
  // After the exchange: stop() comes after nobody wants a worker any more. In the total order either it sees that one is
  // being started and waits, or we see that none is wanted.
  if (!wanted()) {
    state_.store(State::kNone);
    return 0;
  }
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  std::size_t usual_stack = 0;
  pthread_attr_getstacksize(&attributes, &usual_stack);
  pthread_attr_setstacksize(&attributes, 128 * KiB);
  int error = pthread_create(&thread_, &attributes, work, argument);
  if (error == EINVAL) {
    // Thread-local storage comes out of the stack, and some programs have megabytes of it (Fortran's threadprivate).
    pthread_attr_setstacksize(&attributes, usual_stack);
    error = pthread_create(&thread_, &attributes, work, argument);
  }
  pthread_attr_destroy(&attributes);
  process_ = ::getpid();
  state_.store(error == 0 ? State::kRunning : State::kNone);
  return error;
}

void Worker::stop() {
  constexpr std::uint64_t kMillisecond = 1'000'000;
  // Rare and short: another thread is inside start().
  while (state_.load() == State::kStarting) {
    std::atomic<std::uint32_t> never{0};
    linux_os().futex_wait(&never, 0, kMillisecond);
  }
  // A child that was made without our fork handlers may not have forgotten it yet.
  if (!runs() || process_ != ::getpid()) return;
  wake();
  pthread_join(thread_, nullptr);
  state_.store(State::kNone);
}

void Worker::forget() {
  state_.store(State::kNone, std::memory_order_relaxed);
  sleep_.store(Sleep::kAwake, std::memory_order_relaxed);
}

void stay_on(const CpuSet& cpus) {
  // As many bits as a kernel can have CPUs; libc's cpu_set_t has 1024.
  unsigned long allowed[kMaxCpus / 64] = {};
  const long bytes = ::syscall(SYS_sched_getaffinity, 0, sizeof allowed, allowed);
  if (bytes <= 0) return;
  bool any = false;
  for (unsigned cpu = 0; cpu < kMaxCpus; cpu++) {
    unsigned long& word = allowed[cpu / 64];
    const unsigned long bit = 1ul << (cpu % 64);
    if (!cpus.has(CpuId(static_cast<int>(cpu)))) word &= ~bit;
    any |= (word & bit) != 0;
  }
  // A memory-only node has no CPUs, and the thread that started us may be bound elsewhere: then anywhere will do.
  if (any) ::syscall(SYS_sched_setaffinity, 0, static_cast<std::size_t>(bytes), allowed);
}

void name_this_thread(const char* name) { ::prctl(PR_SET_NAME, name, 0, 0, 0); }

}  // namespace nh
