#include "process/fork.h"

#include <cerrno>

#include <pthread.h>

#include "process/background.h"
#include "process/process.h"
#include "process/upkeep.h"

namespace nh {
namespace {

void before_fork() {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) g_process.heaps[HeapId(i)].heap.forget_places();
}

void in_child() {
  const int saved = errno;
  repair_os_after_fork();
  forget_background_threads();
  g_process.heaps.repair_after_fork();
  g_caches.repair_after_fork();
  repair_reports_after_fork();
  errno = saved;
}

}  // namespace

void init_fork() { pthread_atfork(before_fork, nullptr, in_child); }

}  // namespace nh
