// The production table: address space, backing, placement, time. hugetlb has linux_hugetlb.cc to itself.
//
// The mappings are not given a name with PR_SET_VMA_ANON_NAME: a named mapping merges only with neighbours of the same
// name, and what mremap or a fresh mmap brings into a heap would have to be named again each time, at one system call
// apiece, or split the heap into mappings that never merge.
#include "os/os.h"

#include <cerrno>
#include <ctime>

#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/check.h"
#include "os/linux_calls.h"
#include "os/machine_state.h"
#include "os/thread_policy.h"
#include "os/userfault.h"

namespace nh {
namespace linux_os_detail {

// Constant-initialised, so that it counts before any constructor has run.
constinit std::atomic<std::uint64_t> g_memory_syscalls{0};
constinit bool g_past_hooks = false;

namespace {

constinit OsConfig g_config;

// ---- address space ---------------------------------------------------------------------------------------------

int make_writable(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return counted_mprotect(p, bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : errno;
}

int map_new(void* p, std::size_t bytes) { return map_unmapped(p, bytes, PROT_READ | PROT_WRITE, kReservedFlags, -1); }
int map_new_readable(void* p, std::size_t bytes) { return map_unmapped(p, bytes, PROT_READ, kReservedFlags, -1); }

int map_plain(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  // In two steps: under vm.overcommit_memory=2 a writable mmap(MAP_FIXED) is charged only after the old mapping is
  // gone (kernels before 6.12), and its failure leaves a hole that the next unrelated mmap can land in. Inaccessible
  // memory is never charged, so none of the checks that kernels make after they have unmapped the old pages can refuse
  // it; and mprotect is charged before it changes anything.
  if (counted_mmap(p, bytes, PROT_NONE, kReservedFlags | MAP_FIXED) == MAP_FAILED) return errno;
  return make_writable(p, bytes);
}

// ---- backing ---------------------------------------------------------------------------------------------------

int advise_thp(void* p, std::size_t bytes, bool on) {
  const ErrnoKeeper keep;
  return counted_madvise(p, bytes, on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0 ? 0 : errno;
}

int populate(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  // Interrupted calls keep what they have faulted in, so a retry makes progress. The bound is there because a caller
  // of malloc must never hang: whatever repeats a thousand times is an answer.
  for (int attempt = 0;; attempt++) {
    const bool ok = counted_madvise(p, bytes, MADV_POPULATE_WRITE) == 0;
    if (!ok && (errno == EINTR || errno == EAGAIN) && attempt < 1000) continue;
    note_populated(ok);
    return ok ? 0 : errno;
  }
}

int populate_on(void* p, std::size_t bytes, NodeId node) {
  ThreadPolicy policy;
  policy.prefer(node);
  return populate(p, bytes);
}

int discard(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  if (counted_madvise(p, bytes, MADV_DONTNEED) != 0) return errno;
  note_given_back();
  return 0;
}

int punch(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  if (counted_madvise(p, bytes, MADV_REMOVE) != 0) return errno;
  note_given_back();
  return 0;
}

int move_mapping(void* from, void* to, std::size_t bytes) {
  const ErrnoKeeper keep;
  if (counted_mremap_to(from, bytes, to) != MAP_FAILED) return 0;
  const int error = errno;
  // mremap unmaps the target before its last checks. After a failure the target is either untouched, and then this finds
  // something there, or a hole that it closes.
  map_unmapped(to, bytes, PROT_NONE, kReservedFlags, -1);
  return error;
}

// ---- placement -------------------------------------------------------------------------------------------------

constexpr int kWeightedInterleave = 6;  // MPOL_WEIGHTED_INTERLEAVE, Linux 6.9

int bind(void* p, std::size_t bytes, BindMode mode, const NodeSet& nodes) {
  const ErrnoKeeper keep;
  NodeSet one;
  const NodeSet* set = &nodes;
  int policy = MPOL_DEFAULT;
  switch (mode) {
    case BindMode::kDefault: set = nullptr; break;
    case BindMode::kBind: policy = MPOL_BIND; break;
    case BindMode::kInterleave: policy = MPOL_INTERLEAVE; break;
    case BindMode::kWeighted: policy = kWeightedInterleave; break;
    case BindMode::kPreferred:
      policy = MPOL_PREFERRED;
      // An empty set would mean "local", which the caller did not say.
      if (nodes.empty()) return EINVAL;
      one.add(nodes.first());
      set = &one;
      break;
  }
  count_memory_syscall();
  // The kernel takes one off maxnode before it counts bits. A kernel with fewer nodes accepts a longer mask as long as
  // the rest is zero.
  const unsigned long max_node = set != nullptr ? NodeSet::kBits + 1 : 0;
  // When a cpuset changes, the kernel would move the policy to other nodes and not back again.
  if (set != nullptr) policy |= MPOL_F_STATIC_NODES;
  return ::syscall(SYS_mbind, p, bytes, policy, set != nullptr ? set->words() : nullptr, max_node, 0) == 0 ? 0 : errno;
}

int nodes_of(const void* const* addresses, std::size_t count, int* result) {
  const ErrnoKeeper keep;
  // Without target nodes move_pages only reports.
  return ::syscall(SYS_move_pages, 0, count, addresses, nullptr, result, 0) >= 0 ? 0 : errno;
}

// Asked each time: it is one system call and no file, and strict placement rests on the answer.
bool allowed_nodes(NodeSet* out) {
  const ErrnoKeeper keep;
  *out = NodeSet();
  return ::syscall(SYS_get_mempolicy, nullptr, out->words(), (unsigned long){NodeSet::kBits}, nullptr, MPOL_F_MEMS_ALLOWED) == 0;
}

// ---- time and sleep --------------------------------------------------------------------------------------------

std::uint64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);  // cannot fail for this clock
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(t.tv_nsec);
}

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t), "the kernel reads the word itself");

void futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t expected, std::uint64_t timeout_ns) {
  const ErrnoKeeper keep;
  timespec t{};
  t.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000u);
  t.tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000u);
  ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns != 0 ? &t : nullptr, nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>* word, int count) {
  const ErrnoKeeper keep;
  ::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

}  // namespace

int unmap(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  const int error = counted_munmap(p, bytes) == 0 ? 0 : errno;
  note_given_back();
  return error;
}

void* reserve(std::size_t bytes, std::size_t alignment) {
  const ErrnoKeeper keep;
  NH_ASSERT(is_pow2(alignment) && is_aligned(bytes, kOsPageSize));
  // As it comes first: often it is aligned already, and twice the size may be more than RLIMIT_AS allows.
  void* const first = counted_mmap(nullptr, bytes, PROT_NONE, kReservedFlags);
  if (first == MAP_FAILED) return nullptr;
  if (is_aligned(address(first), alignment)) return first;
  counted_munmap(first, bytes);

  // No overflow: `bytes` has fitted into the address space just now, which ends far below 2^63.
  const std::size_t slack = alignment - kOsPageSize;
  void* const p = counted_mmap(nullptr, bytes + slack, PROT_NONE, kReservedFlags);
  if (p == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(p);
  const std::size_t head = align_up(address(p), alignment) - address(p);
  // A trim at either end of a mapping needs no additional mapping, so it does not fail.
  if (head != 0) counted_munmap(begin, head);
  if (head != slack) counted_munmap(begin + head + bytes, slack - head);
  return begin + head;
}

int map_unmapped(void* at, std::size_t bytes, int protection, int flags, int fd) {
  const ErrnoKeeper keep;
  void* const p = counted_mmap(at, bytes, protection, flags | MAP_FIXED_NOREPLACE, fd);
  if (p == at) return 0;
  if (p == MAP_FAILED) return errno;
  // Kernels before 4.17 take the flag for a hint and choose another place when this one is taken.
  counted_munmap(p, bytes);
  return EEXIST;
}

const char* hugetlbfs_path() { return g_config.hugetlbfs_path; }

}  // namespace linux_os_detail

namespace {

namespace detail = linux_os_detail;

constexpr OsOps kLinuxOs = {
    .find_window = detail::find_window,
    .is_unmapped = detail::is_unmapped,
    .mappings_are_scarce = detail::mappings_are_scarce,
    .has_room = detail::has_room,
    .reserve = detail::reserve,
    .make_writable = detail::make_writable,
    .unmap = detail::unmap,
    .map_new = detail::map_new,
    .map_new_readable = detail::map_new_readable,
    .map_plain = detail::map_plain,
    .advise_thp = detail::advise_thp,
    .populate = detail::populate,
    .populate_on = detail::populate_on,
    .discard = detail::discard,
    .punch = detail::punch,
    .map_new_hugetlb = detail::map_new_hugetlb,
    .move_mapping = detail::move_mapping,
    .bind = detail::bind,
    .nodes_of = detail::nodes_of,
    .collapse = detail::collapse,
    .all_exist = detail::all_exist,
    .has_children = detail::has_children,
    .huge_pool = detail::huge_pool,
    .nodes_have_room = detail::nodes_have_room,
    .memory_of = detail::memory_of,
    .allowed_nodes = detail::allowed_nodes,
    .hugetlb_fault_limited = detail::hugetlb_fault_limited,
    .can_leave_hugetlb = can_stop_hugetlb_stores,
    .thp_mode = detail::thp_mode,
    .memory_limit = detail::memory_limit,
    .forget_state = detail::forget_machine_state,
    .now_ns = detail::now_ns,
    .futex_wait = detail::futex_wait,
    .futex_wake = detail::futex_wake,
};

}  // namespace

const OsOps& linux_os() { return kLinuxOs; }

void configure_linux_os(const OsConfig& config) { detail::g_config = config; }

bool kernel_has_weights() {
  const linux_os_detail::ErrnoKeeper keep;
  // The mode is judged before the range, and an empty range is none.
  return ::syscall(SYS_mbind, nullptr, 0UL, linux_os_detail::kWeightedInterleave, nullptr, 0UL, 0) == 0;
}

std::uint64_t machine_memory_bytes() {
  const detail::ErrnoKeeper keep;
  struct sysinfo info;
  if (::sysinfo(&info) != 0) return 0;
  return std::uint64_t{info.totalram} * info.mem_unit;
}

void repair_os_after_fork() { detail::repair_machine_state_after_fork(); }

PastHooks::PastHooks() { detail::g_past_hooks = true; }
PastHooks::~PastHooks() { detail::g_past_hooks = false; }

const std::atomic<std::uint64_t>* memory_syscall_counter() { return &detail::g_memory_syscalls; }
std::uint64_t memory_syscalls() { return detail::g_memory_syscalls.load(std::memory_order_relaxed); }

}  // namespace nh
