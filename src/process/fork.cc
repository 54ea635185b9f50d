// What a fork does with huge pages of a pool. They are copy-on-write like all private memory, but a copy needs another
// huge page, and where the pool is dry the kernel ends the process with SIGBUS. Measured with a dry pool (2 CPUs, Linux
// 6.18; time in fork, and until the parent has written to every page again):
//
//                     40 MiB              1 GiB
//   relocate          12 ms               160 - 200 ms; no copies afterwards
//   cow with rescue   0.4 ms + 13 ms      1 - 4 ms + 180 ms
//   THP instead       0.2 ms + 1 ms       0.6 ms + 20 - 40 ms
//
//   prepare (parent)     decides; where the child is to relocate, opens the window; freezes what a store of the parent
//                        would take away from the child
//   parent               waits until the child has let go of its pages, or is gone; closes the window
//   child                relocates, lets the parent go on, repairs the heap's structures
//
// No lock is held across fork: libc takes its stdio locks between our handler and the fork itself, and another thread may
// hold one of those while it waits for one of ours. Instead the child repairs what other threads were inside of.
#include "process/fork.h"

#include <cerrno>

#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process/background.h"
#include "process/fork_pages.h"
#include "process/process.h"
#include "process/upkeep.h"
#include "heap/relocate.h"

namespace nh {
namespace {

enum class Plan : std::uint8_t {
  kNothing,      // no huge pages of a pool
  kCopyOnWrite,  // the pool covers a copy of everything
  kRelocate,     // the child copies everything at once
  kRescue,       // copy-on-write, and pages whose copy fails are moved by hand
};

// One fork of one thread. A signal handler that interrupts a fork may fork, too.
struct Fork {
  unsigned depth;
  Plan plan;
  bool nested;  // a signal handler forked in between; its child shares pages
  int ours;     // parent's and child's end of a socket pair: the child's end closes when it is done or dead
  int theirs;
};
[[gnu::tls_model("initial-exec")]] thread_local Fork t_fork;

// The ends that windows have open at the moment (+ 1), for children of other threads: an end that such a child inherits
// would keep a parent waiting.
constexpr unsigned kMaxWindows = 64;
std::atomic<int> g_ends[2 * kMaxWindows];

struct Needs {
  std::size_t pages_2m = 0;
  std::size_t pages_1g = 0;
  bool shared = false;
  bool covered = true;  // by the free pages of the nodes that heaps are bound to
  std::size_t bytes() const { return pages_2m * kHugeSize + pages_1g * GiB; }
};

bool pool_covers(std::size_t page_bytes, NodeId node, std::size_t pages) {
  if (pages == 0) return true;
  HugePool pool;
  if (!linux_os().huge_pool(page_bytes, node, &pool)) return false;
  const std::size_t all = pool.free + pool.overcommit;
  return all >= pool.reserved && all - pool.reserved >= pages;
}

Needs count_needs() {
  Needs needs;
  linux_os().forget_state();  // another process may have emptied a pool a moment ago
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    MHeap& heap = g_process.heaps[HeapId(i)].heap;
    std::size_t here_2m = 0, here_1g = 0;
    for_each_huge_piece(heap, [&](const HugePiece& piece) {
      (piece.page_bytes == GiB ? here_1g : here_2m) += piece.bytes / piece.page_bytes;
    });
    if (here_2m + here_1g == 0) continue;
    needs.pages_2m += here_2m;
    needs.pages_1g += here_1g;
    needs.shared |= huge_kind(heap) == HugeKind::kShared;
    const Backer::Config& config = heap.backer().config();
    if (config.bind && config.bind_mode == BindMode::kBind && config.strict) {
      needs.covered &= pool_covers(kHugeSize, heap.node(), here_2m) && pool_covers(GiB, heap.node(), here_1g);
    }
  }
  needs.covered &= pool_covers(kHugeSize, NodeId(), needs.pages_2m) && pool_covers(GiB, NodeId(), needs.pages_1g);
  return needs;
}

Plan choose_plan() {
  const Needs needs = count_needs();
  if (needs.bytes() == 0) return Plan::kNothing;
  // Parent and child would write to the same memory.
  if (needs.shared) return Plan::kRelocate;
  switch (g_process.options.fork) {
    case ForkOption::kRelocate: return Plan::kRelocate;
    case ForkOption::kCow: break;
    case ForkOption::kAuto:
      if (!needs.covered && needs.bytes() <= g_process.options.fork_max) return Plan::kRelocate;
      break;
  }
  return needs.covered ? Plan::kCopyOnWrite : Plan::kRescue;
}

// ---- the wait of the parent ---------------------------------------------------------------------------------------------
// By system call: libc's functions are cancellation points.

void close_end(int end) {
  for (std::atomic<int>& slot : g_ends) {
    int expected = end + 1;
    if (slot.compare_exchange_strong(expected, 0)) break;
  }
  ::syscall(SYS_close, end);
}

bool open_ends(Fork& f) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
  unsigned noted = 0;
  for (std::atomic<int>& slot : g_ends) {
    int free = 0;
    if (noted < 2 && slot.compare_exchange_strong(free, ends[noted] + 1)) noted++;
  }
  f.ours = ends[0];
  f.theirs = ends[1];
  if (noted == 2) return true;
  close_end(f.ours);
  close_end(f.theirs);
  return false;
}

// True where the child said that it goes on sharing pages.
bool wait_for_child(int end) {
  char word = 0;
  for (;;) {
    const long n = ::syscall(SYS_recvfrom, end, &word, 1, 0, nullptr, nullptr);
    if (n == 1) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

void say_still_shared(int end) { ::syscall(SYS_sendto, end, "s", 1, MSG_NOSIGNAL, nullptr, 0); }

// ---- handlers -------------------------------------------------------------------------------------------------------

void before_fork() {
  Fork& f = t_fork;
  if (f.depth++ != 0) return;
  const int saved = errno;
  release_guard(true);
  for (unsigned i = 0; i < g_process.heaps.count(); i++) g_process.heaps[HeapId(i)].heap.forget_places();
  f.nested = false;
  f.plan = choose_plan();
  if (f.plan == Plan::kRelocate && !open_ends(f)) f.plan = Plan::kRescue;  // no descriptors left
  if (f.plan != Plan::kNothing) {
    set_forking(true);
    leave_huge_stack();
  }
  switch (f.plan) {
    case Plan::kNothing: break;
    case Plan::kCopyOnWrite:
      // Other processes, or the next fork, may use up the free pages that were counted.
      guard_pages(true);
      break;
    case Plan::kRelocate:
      open_window();
      freeze_pages();
      break;
    case Plan::kRescue:
      guard_pages(true);
      freeze_pages();
      break;
  }
  errno = saved;
}

// Also after a fork that failed.
void in_parent() {
  Fork& f = t_fork;
  if (f.depth == 0) return;
  if (--f.depth != 0) {
    f.nested = true;
    return;
  }
  const int saved = errno;
  if (f.plan != Plan::kRelocate) {
    set_forking(false);
    if (f.plan != Plan::kNothing) release_guard(true);  // nothing is shared if the fork failed
  } else {
    close_end(f.theirs);
    window_waits();
    const bool shared = wait_for_child(f.ours);
    close_end(f.ours);
    close_window(shared || f.nested);
    set_forking(false);
  }
  errno = saved;
}

void in_child() {
  Fork& f = t_fork;
  const int saved = errno;
  const Plan plan = f.depth != 0 ? f.plan : Plan::kNothing;
  reset_pages_in_child();
  bool own = false;
  if (plan == Plan::kRelocate) own = relocate_pages_in_child();
  if (plan != Plan::kNothing && !own) settle_pages_in_child();
  if (own) drop_guard_in_child();
  if (plan == Plan::kRelocate && f.depth == 1) {
    if (!own) {
      guard_pages(true);
      say_still_shared(f.theirs);
    }
  }
  for (std::atomic<int>& slot : g_ends) {
    if (const int end = slot.exchange(0); end != 0) ::syscall(SYS_close, end - 1);
  }
  f = {};

  repair_os_after_fork();
  forget_background_threads();
  g_process.heaps.repair_after_fork();
  g_caches.repair_after_fork();
  repair_reports_after_fork();
  errno = saved;
}

}  // namespace

void init_fork() { pthread_atfork(before_fork, in_parent, in_child); }

}  // namespace nh
