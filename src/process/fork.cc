// Why a child may go on with the heap although other threads of its parent were in the middle of anything.
//
// The child sees a prefix of every thread's stores, and the prefixes fit together. While the kernel copies the page
// tables it holds the lock that every page fault of the process needs. It makes each entry read-only, in the parent, too,
// but the processors go on using entries that they have remembered until all of them are told to forget, at the end and
// before that lock is released. So a thread stores to the very page that the child got, until it meets an entry that it has
// to ask the kernel for, or until the end; from then on it waits, and repeats its store after the copy is complete, in a
// page of the parent's own. The child has what was stored before and nothing of what comes after. And a thread that saw
// another's store from after the copy was complete stores after that itself.
//
// Hence every structure that is guarded by a lock or by a busy mark is whole in the child where it finds the lock free,
// because a store of a critical section comes with the one that took the lock. Where it finds it held by a thread that
// does not exist here, the structure is repaired from what cannot be half-done: bits, descriptors, page map
// (repair_after_fork() of each layer). What takes one store needs nothing: lists of CPUs, by restartable sequences.
//
// No lock of ours is held across fork: libc takes its stdio locks between our handler and the fork itself, and another
// thread may hold one of those while it waits for one of ours.
//
// Who repairs. Our handler in the child does, but it need not be the first one to run, and _Fork() and the bare system call
// run none. So a word in a page that the kernel wipes in every child tells: where it is zero, the first wait for a lock or
// for a busy mark repairs (about_to_wait()). Nothing that is half-done can be met before that. A child that shares
// its parent's memory (vfork) shares the word, too, and leaves its locks alone.
#include "process/fork.h"

#include <atomic>
#include <cerrno>

#include <pthread.h>

#include "base/lock.h"
#include "os/fork_advice.h"
#include "os/room.h"
#include "process/background.h"
#include "process/leaks.h"
#include "process/leave_pool.h"
#include "process/pool_runs.h"
#include "process/process.h"
#include "process/sampling.h"
#include "process/stores_stopped.h"
#include "process/upkeep.h"

namespace nh {
namespace {

// Zero in a child that nobody has repaired. nullptr where the kernel does not wipe pages: then only our handler repairs.
std::atomic<std::uint32_t>* g_repaired = nullptr;

void repair_in_child() {
  // A handler could fork, and wait for what is repaired last.
  const StoresStopped stopped;
  // Before all else, since repairing may wait itself.
  if (g_repaired != nullptr && g_repaired->exchange(1, std::memory_order_relaxed) != 0) return;
  repair_os_after_fork();
  repair_leave_pool_in_child();
  forget_background_threads();
  const bool lost = lose_kept_runs();
  g_process.heaps.repair_after_fork(lost);
  g_caches.repair_after_fork(lost);
  repair_reports_after_fork();
  repair_sampling_after_fork();
  repair_leaks_after_fork();
  return_to_pool();
}

// A child that was made without our handlers and has threads of its own by now: their locks must not be torn away.
// Whoever starts threads in such a child before it has used its heap keeps the risk that malloc hangs.
void before_wait() {
  if (g_repaired == nullptr || g_repaired->load(std::memory_order_relaxed) != 0) return;
  const int saved = errno;
  if (process_facts().threads <= 1) repair_in_child();
  errno = saved;
}

void before_fork() {
  const int saved = errno;
  for (unsigned i = 0; i < g_process.heaps.count(); i++) g_process.heaps[HeapId(i)].heap.forget_places();
  leave_pool_before_fork();
  errno = saved;
}

void in_child() {
  const int saved = errno;
  repair_in_child();
  errno = saved;
}

}  // namespace

void init_fork() {
  if (void* const page = map_wiped_page(); page != nullptr) {
    g_repaired = static_cast<std::atomic<std::uint32_t>*>(page);
    g_repaired->store(1, std::memory_order_relaxed);
    set_wait_hook(before_wait);
  }
  pthread_atfork(before_fork, nullptr, in_child);
}

}  // namespace nh
