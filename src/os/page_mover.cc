#include "os/page_mover.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "os/linux_calls.h"
#include "os/raw_call.h"

namespace nh {
namespace {

using linux_os_detail::raw_call;

// One order is carried out at a time.
alignas(64) char g_probe_stack[4 * KiB];
alignas(64) char g_mover_stack[64 * KiB];

std::uintptr_t number(long n) { return static_cast<std::uintptr_t>(n); }

// Ends with the thread that made it, at the latest: a pool would miss the pages that it shares.
int be_a_probe(void* parent) {
  raw_call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  while (raw_call(SYS_getppid) == static_cast<long>(address(parent))) raw_call(SYS_pause);
  raw_call(SYS_exit_group);
  return 0;
}

// The child runs on a stack of its own that is in no page of a pool: it could not store there. It has no signal to tell
// its end with, so that no wait() of the program sees it. glibc's clone() stores errno if it fails, and that may lie in
// a protected page; hence the call itself.
long start_probe() {
  const long parent = raw_call(SYS_getpid);
  char* const top = g_probe_stack + sizeof g_probe_stack;
  long child;
  register long no_parent_tid asm("r10") = 0;
  register long no_tls asm("r8") = 0;
  asm volatile(
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "mov %[parent], %%rdi\n"
      "call *%[run]\n"
      "hlt\n"
      "1:\n"
      : "=a"(child)
      : "a"(SYS_clone), "D"(0), "S"(top), "d"(0), "r"(no_parent_tid), "r"(no_tls), [parent] "r"(parent),
        [run] "r"(be_a_probe)
      : "rcx", "r11", "memory");
  return child;
}

void end_probe(long child) {
  raw_call(SYS_kill, number(child), SIGKILL);
  while (raw_call(SYS_wait4, number(child), 0, __WCLONE) == -EINTR) {
  }
}

bool lives(long child) { return raw_call(SYS_wait4, number(child), 0, __WCLONE | WNOHANG) == 0; }

// What is wanted of pages that nobody can tell anything about.
MoveResult without_knowledge(const PageMove& move) {
  return move.even_unknown ? MoveResult::kPlanned : MoveResult::kUnknown;
}

template <typename Visit>
void for_each(MoveOrder& order, MoveResult result, Visit&& visit) {
  for (std::size_t i = 0; i < order.count; i++) {
    if (order.moves[i].result == result) visit(order.moves[i]);
  }
}

// Looks at the pages of one result while a child lives: those that are still ours alone become kPinned, others kPlanned.
void look(MoveOrder& order, MoveResult which) {
  const long child = order.pages->is_open() ? start_probe() : -1;
  if (child < 0) {
    for_each(order, which, [](PageMove& move) { move.result = without_knowledge(move); });
    return;
  }
  for_each(order, which, [&](PageMove& move) {
    const PageFacts facts = order.pages->facts(move.page);
    move.result = facts.present && facts.exclusive ? MoveResult::kPinned : MoveResult::kPlanned;
  });
  // A child that was killed meanwhile shared nothing any more: what looks pinned may not be.
  const bool lived = lives(child);
  end_probe(child);
  if (!lived) for_each(order, MoveResult::kPinned, [](PageMove& move) { move.result = without_knowledge(move); });
}

void find_pinned(MoveOrder& order) {
  for_each(order, MoveResult::kPlanned, [&](PageMove& move) {
    const PageFacts facts = order.pages->facts(move.page);
    // A page that is not ours alone to begin with would tell nothing; one that is not there cannot be pinned.
    if (!facts.known || !move.probed || (facts.present && !facts.exclusive)) move.result = MoveResult::kUnknown;
  });
  look(order, MoveResult::kPlanned);
  // Linux 6.18 leaves out a page of 1 GiB now and then when it forks, because it takes a number that means something else
  // for that of the users of a shared page table. Such a page looks pinned, the next time most likely not.
  const auto again = [&] {
    bool any = false;
    for_each(order, MoveResult::kPinned, [&](PageMove& move) { any |= move.bytes > kHugeSize; });
    return any;
  };
  for (int round = 0; round < 4 && again(); round++) look(order, MoveResult::kPinned);
  for_each(order, MoveResult::kUnknown, [](PageMove& move) { move.result = without_knowledge(move); });
}

bool is_mapped(const void* p) {
  unsigned char residency;
  return raw_call(SYS_mincore, address(p), kOsPageSize, address(&residency)) != -ENOMEM;
}

bool move_over(const PageMove& move) {
  linux_os_detail::count_memory_syscall();
  const auto call = [&] {
    return raw_call(SYS_mremap, address(move.copy), move.bytes, move.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, address(move.page));
  };
  if (call() >= 0) return true;
  if (is_mapped(move.page)) return false;
  // The kernel has unmapped the page before it found that it cannot go on: for want of memory for its own use. The data is
  // in the copy alone.
  while (call() < 0) raw_call(SYS_sched_yield);
  return true;
}

void move_page(MoveOrder& order, PageMove& move) {
  const PageFacts facts = order.pages->facts(move.page);
  // A page that is not there reads as zero, as the copy does that has not been touched.
  if (facts.present || !facts.known) std::memcpy(move.copy, move.page, move.bytes);
  if (move.read_only) raw_call(SYS_mprotect, address(move.copy), move.bytes, PROT_READ);
  move.result = move_over(move) ? MoveResult::kMoved : MoveResult::kFailed;
  if (order.protection != nullptr) order.protection->wake(move.page, move.bytes);
}

// Neighbours in one call: each interrupts all CPUs that run a thread of ours.
void protect_all(MoveOrder& order) {
  for (std::size_t first = 0; first < order.count;) {
    if (order.moves[first].result != MoveResult::kPlanned) {
      first++;
      continue;
    }
    char* const start = order.moves[first].page;
    std::size_t bytes = 0, end = first;
    while (end < order.count && order.moves[end].page == start + bytes && order.moves[end].result == MoveResult::kPlanned) {
      bytes += order.moves[end++].bytes;
    }
    const bool ok = order.protection->protect(start, bytes);
    for (; first < end; first++) {
      if (!ok) order.moves[first].result = MoveResult::kFailed;
    }
  }
}

// From the first protected page to the end this stores to its own stack, to the order and into the copies.
int carry_out(void* argument) {
  MoveOrder& order = *static_cast<MoveOrder*>(argument);
  if (order.protection != nullptr) protect_all(order);
  find_pinned(order);
  for (std::size_t i = 0; i < order.count; i++) {
    if (order.moves[i].result == MoveResult::kPlanned) move_page(order, order.moves[i]);
  }
  if (order.protection != nullptr) order.protection->close();
  return 0;
}

}  // namespace

void move_pages(MoveOrder& order, bool on_own_stack) {
  if (on_own_stack) {
    carry_out(&order);
    return;
  }
  // A process that shares all memory with us does it while we are suspended: a stack in use cannot be copied.
  const linux_os_detail::ErrnoKeeper keep;
  const int helper = ::clone(carry_out, g_mover_stack + sizeof g_mover_stack, CLONE_VM | CLONE_VFORK, &order);
  if (helper < 0) {
    for (std::size_t i = 0; i < order.count; i++) order.moves[i].result = MoveResult::kFailed;
    return;
  }
  // __WCLONE: it ends without a signal, and no wait() of the program sees it.
  while (::syscall(SYS_wait4, helper, nullptr, __WCLONE, nullptr) < 0 && errno == EINTR) {
  }
}

}  // namespace nh
