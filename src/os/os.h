// The contract with the operating system: one table of functions, used on slow paths only.
//
// This is the only way in which the layers above reach the kernel for memory, placement, time and sleep. Production
// uses linux_os(); tests hand in a fake (tests/support/fake_os.h) that keeps a model of the address space and can fail
// any call on demand.
//
// Conventions: functions that return int return 0 or a positive errno value and never touch errno itself. Addresses
// and lengths are multiples of kOsPageSize unless said otherwise. All functions are thread-safe. Every mapping change
// goes through libc's mmap, munmap, mremap and madvise, because RDMA libraries intercept those names to invalidate
// their registrations; never through syscall(), unless no hook may run (PastHooks).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/node_set.h"
#include "base/units.h"

namespace nh {

// What a range of memory is made of, best first.
enum class Backing : std::uint8_t { kHuge1G, kHuge2M, kThp, kBase, kNone };

// Where hugetlb pages come from.
enum class HugeSource : std::uint8_t {
  kAnonymous,   // mmap(MAP_HUGETLB)
  kMemfd,       // memfd_create(MFD_HUGETLB), mapped MAP_PRIVATE
  kHugetlbfs,   // an unlinked file on the mount named by OsConfig::hugetlbfs_path, mapped MAP_PRIVATE
  kSharedFile,  // the same, mapped MAP_SHARED: release punches holes, fork must relocate
};

enum class Reservation : std::uint8_t {
  kNone,  // MAP_NORESERVE: the pages are proven one by one with populate()
  kFull,  // the kernel sets all pages aside at map time: for memory that the program faults in
};

enum class BindMode : std::uint8_t {
  kDefault,     // forget any policy of the range
  kBind,        // only these nodes (MPOL_BIND)
  kPreferred,   // this node, others when it is full (MPOL_PREFERRED; the first of the set)
  kInterleave,  // page by page over the set (MPOL_INTERLEAVE)
  kWeighted,    // the same by the kernel's weights (MPOL_WEIGHTED_INTERLEAVE); EINVAL without kernel_has_weights()
};

// The counters of one hugetlb pool, in pages.
struct HugePool {
  std::size_t total = 0;
  std::size_t free = 0;
  std::size_t reserved = 0;  // promised but not yet faulted; 0 in per-node files, which have no such counter
  std::size_t overcommit = 0;  // may still be added on demand (nr_overcommit - surplus); 0 in per-node files
  // False while the kernel's counter of promised pages is below zero, which one of its faults brings about: then it
  // promises pages that it does not have, and a reservation does not keep a fault from ending in SIGBUS.
  bool reservations_work = true;

  // Pages that nobody was promised. Those that may be added on demand come on top.
  std::size_t available() const { return free > reserved ? free - reserved : 0; }
};

// A limit of ordinary memory, in bytes. Pages of the hugetlb pools do not count.
struct MemoryLimit {
  std::uint64_t limit = 0;
  std::uint64_t used = 0;  // what the kernel could drop instead (files) counts for half
};

struct OsOps {
  // ---- address space -------------------------------------------------------------------------------------------
  // Where a window of up to that many bytes, which grows by map_new(), can lie: nothing is mapped there at the moment, and
  // nothing is mapped by this. A multiple of kArenaSize, another one for each attempt (0, 1, ...). below: what it must end
  // at or before, 0: anywhere. 0: no such place was found; another attempt may be luckier.
  std::uintptr_t (*find_window)(std::size_t bytes, std::uintptr_t below, unsigned attempt);
  // Whether nothing is mapped in a range. True where that cannot be told (RLIMIT_AS).
  bool (*is_unmapped)(void* p, std::size_t bytes);
  // Whether every mapping counts, so that what is not in use has to go: RLIMIT_AS limits their sum, or
  // vm.overcommit_memory=2 charges them.
  bool (*mappings_are_scarce)();
  // Whether so much could be mapped there, where nothing is mapped; for when mappings are scarce. It may be gone a moment
  // later. True where something lies there.
  bool (*has_room)(void* p, std::size_t bytes);
  // Address space that costs nothing, at a place of the kernel's choice: inaccessible, not accounted. nullptr where
  // refused (RLIMIT_AS). alignment: a power of two.
  void* (*reserve)(std::size_t bytes, std::size_t alignment);
  // Makes reserved anonymous memory accessible; pages are zero until written. Contents of accessible pages stay.
  // ENOMEM under vm.overcommit_memory=2 when the commit limit is reached.
  int (*make_writable)(void* p, std::size_t bytes);
  // Unmaps, whatever was mapped there; pages and pool reservations are returned. ENOMEM: a hole in the middle of a mapping
  // needs one mapping more than vm.max_map_count allows; nothing has changed then.
  int (*unmap)(void* p, std::size_t bytes);
  // Maps fresh anonymous memory where nothing is mapped, read-write or read-only. EEXIST: something is; nothing changed.
  int (*map_new)(void* p, std::size_t bytes);
  int (*map_new_readable)(void* p, std::size_t bytes);
  // Puts fresh anonymous read-write memory (base pages or THP) in place of whatever is mapped there; contents lost.
  // After a failure (ENOMEM under vm.overcommit_memory=2, too many mappings) the range is inaccessible or what it was,
  // never a hole.
  int (*map_plain)(void* p, std::size_t bytes);

  // ---- backing -------------------------------------------------------------------------------------------------
  // MADV_HUGEPAGE / MADV_NOHUGEPAGE.
  int (*advise_thp)(void* p, std::size_t bytes, bool on);
  // Faults every page of the range in, writable, or says why not, never by a signal (MADV_POPULATE_WRITE).
  // EFAULT, EHWPOISON: a hugetlb pool is dry. ENOMEM: no memory. EINVAL: kernel older than 5.14, nothing done.
  int (*populate)(void* p, std::size_t bytes);
  // The same of memory without a policy, whose pages come from this node while it has any. By the thread's policy, which
  // leaves the mapping as it is: where mappings had one of their own while they were faulted in they do not merge any more.
  int (*populate_on)(void* p, std::size_t bytes, NodeId node);
  // Drops the pages; the range stays mapped and reads as zero. For hugetlb multiples of its page size.
  // EINVAL: hugetlb on a kernel older than 5.18, or locked memory (mlockall); nothing was dropped then.
  int (*discard)(void* p, std::size_t bytes);
  // The same for HugeSource::kSharedFile (MADV_REMOVE).
  int (*punch)(void* p, std::size_t bytes);
  // Maps hugetlb memory where nothing is mapped. EEXIST: something is. Otherwise refused: no such pool, no reservation to
  // be had, no mount, no permission. Nothing has changed then.
  int (*map_new_hugetlb)(void* p, std::size_t bytes, std::size_t page_bytes, HugeSource source, Reservation reservation);
  // Moves a whole mapping over `to` (mremap MREMAP_FIXED). hugetlb: only to where it lies within a GiB as it did; otherwise the
  // kernel may lose pages (6.18). On failure `from` is unchanged, and `to` is either unchanged
  // or inaccessible.
  int (*move_mapping)(void* from, void* to, std::size_t bytes);

  // ---- placement -----------------------------------------------------------------------------------------------
  // mbind() of the range for pages still to come. EPERM, ENOSYS: not allowed here. EINVAL: the process may use none of
  // the nodes; where that comes about later, all nodes that it may use serve until one of them is back.
  int (*bind)(void* p, std::size_t bytes, BindMode mode, const NodeSet& nodes);
  // The nodes on which the pages at `addresses` lie; result[i] < 0 is -errno (-ENOENT: not backed).
  int (*nodes_of)(const void* const* addresses, std::size_t count, int* result);

  // ---- huge pages afterwards -------------------------------------------------------------------------------------
  // Makes a transparent huge page of the base pages of one, all of which exist, on the node where most of them lie, whatever
  // the thread's policy. ENOSYS: kernel older than 6.1. EINVAL: refused for this memory, or this process. Others: not now.
  int (*collapse)(void* p, std::size_t bytes);
  // Whether every page of plain memory exists. nodes_of() does not see those that NUMA balancing has taken for a moment.
  bool (*all_exist)(void* p, std::size_t bytes);
  // Whether the process has children, which may share its pages.
  bool (*has_children)();

  // ---- information ---------------------------------------------------------------------------------------------
  // What takes files of /proc and /sys to answer is read at most once in some ms and kept (machine_state.h). So an answer
  // may be that old; what this process has given back, reserved or been refused since counts at once.
  // The pool of huge pages of this size; node invalid = the whole machine. false where there is none.
  bool (*huge_pool)(std::size_t page_bytes, NodeId node, HugePool* out);
  // Whether these nodes together can be made to give that many bytes of ordinary memory without a visit of the kernel's
  // killer, which comes when memory that is bound to full nodes is faulted in; populate() does not fail there. With a margin
  // for what others take meanwhile; what a true has granted counts as taken, in equal parts. true where the kernel does not
  // tell of one of them.
  bool (*nodes_have_room)(const NodeSet& nodes, std::size_t bytes);
  // The memory of these nodes and the machine's swap, in use or not: what is larger they could not hold even if they held
  // nothing else. UINT64_MAX where the kernel does not tell, or is told to promise anything (vm.overcommit_memory=1).
  std::uint64_t (*memory_of)(const NodeSet& nodes);
  // The nodes whose memory the process may use at the moment. false: the kernel does not tell.
  bool (*allowed_nodes)(NodeSet* out);
  // Whether a control group limits pages of this size when they are faulted in: then a reservation proves nothing.
  bool (*hugetlb_fault_limited)(std::size_t page_bytes);
  // Whether a process with several threads can take its memory off hugetlb pages before it forks: the kernel stops stores
  // to such memory (userfaultfd, Linux 5.19), and no seccomp filter judges system calls. Found out once.
  bool (*can_leave_hugetlb)();
  // THP mode: 0 never, 1 madvise, 2 always; -1 unknown.
  int (*thp_mode)();
  // The limit of the control group that has the least left, our own or one above it. false: none is lower than the
  // machine's memory.
  bool (*memory_limit)(MemoryLimit* out);
  // Has the answers above read anew when they are next asked for, for decisions that an old one would make dangerous.
  void (*forget_state)();

  // ---- time and sleep --------------------------------------------------------------------------------------------
  std::uint64_t (*now_ns)();  // monotonic
  // Sleeps while *word == expected, for at most timeout_ns (0 = no limit). May wake early.
  void (*futex_wait)(std::atomic<std::uint32_t>* word, std::uint32_t expected, std::uint64_t timeout_ns);
  void (*futex_wake)(std::atomic<std::uint32_t>* word, int count);
};

// Settings of the production table, fixed before it is first used.
struct OsConfig {
  char hugetlbfs_path[256] = "";  // directory for kHugetlbfs and kSharedFile
};

// The production table.
const OsOps& linux_os();
void configure_linux_os(const OsConfig& config);

// The memory of the machine; 0: the kernel does not tell. No file is read.
std::uint64_t machine_memory_bytes();

// Whether the kernel has weights for interleaved memory (Linux 6.9).
bool kernel_has_weights();

// To be called in a fork child, whose parent's other threads may have been inside of this layer.
void repair_os_after_fork();

// While one exists, calls that change memory go past libc's functions, in place of which other libraries may have put their
// own. For a fork child while it repairs its heaps: a hook that allocates would wait for locks that nobody holds any more.
// What is mapped and unmapped then nobody was handed, so there is nothing that a hook could miss. Only where the process has
// one thread.
class PastHooks {
 public:
  PastHooks();
  ~PastHooks();
  PastHooks(const PastHooks&) = delete;
  PastHooks& operator=(const PastHooks&) = delete;
};

// The number of system calls made so far to change memory (mmap, munmap, mremap, mprotect, madvise, mbind).
std::uint64_t memory_syscalls();
// Where it is counted, for readers outside the process (base/live_block.h).
const std::atomic<std::uint64_t>* memory_syscall_counter();

}  // namespace nh
