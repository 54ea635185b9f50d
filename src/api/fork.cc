#include "api/fork.h"

#include <pthread.h>

#include "api/background.h"
#include "api/process.h"

namespace nh {
namespace {

// No lock is held across fork: libc takes its stdio locks between our handler and the fork itself, and another thread
// may hold one of those while it waits for one of ours. Instead the child repairs what other threads were inside of.
void in_child() {
  forget_background_threads();
  g_process.heaps.repair_after_fork();
  g_caches.repair_after_fork();
}

}  // namespace

void init_fork() { pthread_atfork(nullptr, nullptr, in_child); }

}  // namespace nh
