// For the copy of memory that the program stores to, in a process with one thread.
#pragma once

#include <csignal>

#include <pthread.h>

#include "os/os.h"

namespace nh {

// While one exists nobody else runs: no signal handler, and no library's function in place of mremap.
class StoresStopped {
 public:
  StoresStopped() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~StoresStopped() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  StoresStopped(const StoresStopped&) = delete;
  StoresStopped& operator=(const StoresStopped&) = delete;

 private:
  sigset_t before_;
  const PastHooks past_hooks_;
};

}  // namespace nh
