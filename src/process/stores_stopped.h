// For work on memory that the program stores to, in a process with one thread.
#pragma once

#include "os/os.h"
#include "process/signals_blocked.h"

namespace nh {

// While one exists nobody else runs: no signal handler, and no library's function in place of mremap.
class StoresStopped {
 private:
  const SignalsBlocked signals_blocked_;
  const PastHooks past_hooks_;
};

}  // namespace nh
