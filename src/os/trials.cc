#include "os/trials.h"

#include <cerrno>
#include <new>

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/linux_calls.h"
#include "os/os.h"
#include "os/room.h"
#include "os/userfault.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace nh {
namespace {

constexpr std::size_t kUnit = 2 * MiB;
// What must be left for trials that take huge pages: the kernel's killer may choose another process than ours.
constexpr std::size_t kRoom = 64 * MiB;
constexpr int kPreferredMany = 5;  // MPOL_PREFERRED_MANY, Linux 5.15

// Memory of the trial. It goes with the child.
void* map(std::size_t bytes, int more_flags) {
  void* const p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
  return p != MAP_FAILED ? p : nullptr;
}
void* map_unit() {
  char* const p = static_cast<char*>(map(2 * kUnit, 0));
  return p != nullptr ? reinterpret_cast<void*>(align_up(reinterpret_cast<std::uintptr_t>(p), kUnit)) : nullptr;
}
constexpr int kPoolFlags = MAP_HUGETLB | 21 << MAP_HUGE_SHIFT;

int result(bool ok) { return ok ? 0 : errno; }

int bind(void* p, std::size_t bytes, int mode, NodeId node) {
  const NodeSet one = NodeSet::of(node);
  return result(::syscall(SYS_mbind, p, bytes, mode, &one, NodeSet::kBits + 1, 0) == 0);
}

int node_of(void* p) {
  int where = -1;
  return ::syscall(SYS_move_pages, 0, 1UL, &p, nullptr, &where, 0) == 0 ? where : -1;
}

int try_ability(Ability ability, NodeId node) {
  char* p = nullptr;
  switch (ability) {
    case Ability::kRestartable:
      return rseq_init() != RseqMode::kOff ? 0 : ENOSYS;
    case Ability::kInterruptCpus:
      if (const int error = membarrier_rseq_register(); error != 0) return error;
      return membarrier_rseq(CpuId());
    case Ability::kBind:
    case Ability::kPreferMany:
      p = static_cast<char*>(map(kOsPageSize, 0));
      return p == nullptr ? errno
                          : bind(p, kOsPageSize, ability == Ability::kBind ? int{MPOL_BIND} : kPreferredMany, node);
    case Ability::kAskPolicy:
      return result(::syscall(SYS_get_mempolicy, nullptr, nullptr, 0UL, nullptr, 0UL) == 0);
    case Ability::kAskPlaces: {
      void* const page = map(kOsPageSize, 0);
      if (page == nullptr) return errno;
      int where = 0;
      return result(::syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &where, 0) == 0);
    }
    case Ability::kPopulate:
      p = static_cast<char*>(map(kOsPageSize, 0));
      return p == nullptr ? errno : result(::madvise(p, kOsPageSize, MADV_POPULATE_WRITE) == 0);
    case Ability::kCollapse:
      p = static_cast<char*>(map_unit());
      if (p == nullptr) return errno;
      *p = 1;
      if (::madvise(p, kUnit, MADV_COLLAPSE) == 0) return 0;
      // Of nothing it is a question whether the kernel knows the advice: then there was just no huge page to be had.
      return result(::madvise(p, 0, MADV_COLLAPSE) == 0);
    case Ability::kStopStores:
      return can_stop_hugetlb_stores() ? 0 : ENOSYS;
    case Ability::kMapPool:
      return result(map(kUnit, kPoolFlags | MAP_NORESERVE) != nullptr);
    case Ability::kMovePool: {
      void* const from = map(kUnit, kPoolFlags | MAP_NORESERVE);
      void* const to = map_unit();
      if (from == nullptr || to == nullptr) return kNotTried;
      return result(::mremap(from, kUnit, kUnit, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED);
    }
    case Ability::kDiscardPool: {
      void* const mapping = map(kUnit, kPoolFlags | MAP_NORESERVE);
      return mapping == nullptr ? kNotTried : result(::madvise(mapping, kUnit, MADV_DONTNEED) == 0);
    }
    case Ability::kTakePool: {
      HugePool pool;
      if (!linux_os().huge_pool(kUnit, NodeId(), &pool) || pool.available() == 0) return kNotTried;
      // Reserved: a page that somebody else was promised is not taken.
      void* const mapping = map(kUnit, kPoolFlags);
      return mapping == nullptr ? errno : result(::madvise(mapping, kUnit, MADV_POPULATE_WRITE) == 0);
    }
    case Ability::kCount:
      break;
  }
  return kNotTried;
}

void try_huge_page(NodeId node, bool can_bind, HugePageTrial* out) {
  char* const p = static_cast<char*>(map_unit());
  if (p == nullptr) return;
  // Preferred: where memory is bound to a full node the kernel's killer comes.
  if (can_bind) bind(p, kUnit, MPOL_PREFERRED, node);
  if (::madvise(p, kUnit, MADV_HUGEPAGE) != 0) return;
  *p = 1;
  // One store brings in as much as the page is large.
  static unsigned char present[kUnit / kOsPageSize];
  if (::mincore(p, kUnit, present) != 0) return;
  std::size_t pages = 0;
  for (const unsigned char state : present) pages += state & 1;
  *out = {true, node_of(p), pages * kOsPageSize};
}

// Runs body in a child. False where the child did not come to its end.
template <typename Body>
bool apart(Body&& body) {
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status);
}

}  // namespace

void try_abilities(const NodeSet& nodes, Trials* out) {
  for (int& error : out->error) error = kNotTried;
  void* const page = ::mmap(nullptr, sizeof(Trials), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  Trials* const shared = new (page) Trials;
  const bool has_room = room_of_process() >= kRoom;
  for (unsigned i = 0; i < kAbilities; i++) {
    shared->error[i] = kNotTried;
    if (static_cast<Ability>(i) == Ability::kCollapse && !has_room) continue;
    const bool ended = apart([&] {
      shared->error[i] = try_ability(static_cast<Ability>(i), nodes.first());
      if (static_cast<Ability>(i) == Ability::kRestartable) shared->rseq = rseq_mode();
    });
    if (!ended) shared->error[i] = kTrialKilled;
  }
  apart([&] { shared->thp_forbidden = ::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1; });
  const bool can_bind = shared->of(Ability::kBind) == 0;
  unsigned index = 0;
  for (NodeId node = nodes.first(); has_room && node.valid() && index < kMaxNodes;
       node = nodes.next(NodeId(node.value + 1))) {
    apart([&] { try_huge_page(node, can_bind, &shared->thp[index]); });
    index++;
    if (!can_bind) break;  // only the node that we run on can be asked
  }
  *out = *shared;
  ::munmap(page, sizeof(Trials));
}

}  // namespace nh
