// The production table on the real machine, hugetlb aside (hugetlb_test.cc). No privilege is needed, except that
// placement may be refused in a container; then the refusal is what is checked.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/linux_os_world.h"
#include "os/os.h"
#include "os/procfs.h"

namespace nh {
namespace {

// ---- address space ---------------------------------------------------------------------------------------------

TEST_F(LinuxOs, ReservationIsInaccessibleAndFree) {
  EXPECT_EQ(keeping_errno([&] { return permissions_of(p_); }), "---p");
  EXPECT_EQ(in_child([&] { *static_cast<volatile char*>(p_) = 1; }), -SIGSEGV);
  EXPECT_EQ(in_child([&] { static_cast<void>(*static_cast<volatile char*>(p_)); }), -SIGSEGV);
}

TEST_F(LinuxOs, ReserveAligns) {
  for (const std::size_t alignment : {kOsPageSize, kHugeSize, kArenaSize, GiB, 64 * GiB}) {
    std::uint64_t before = 0;
    std::uint64_t after = 0;
    ASSERT_TRUE(read_field("/proc/self/status", "VmSize", &before));
    void* const p = os.reserve(3 * kOsPageSize, alignment);
    ASSERT_TRUE(read_field("/proc/self/status", "VmSize", &after));
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(is_aligned(address(p), alignment));
    EXPECT_EQ(after - before, 12u) << "the slack must be given back";
    os.unmap(p, 3 * kOsPageSize);
    ASSERT_TRUE(read_field("/proc/self/status", "VmSize", &after));
    EXPECT_EQ(after, before);
  }
}

TEST_F(LinuxOs, ReserveRefusesWhatCannotBe) {
  EXPECT_EQ(os.reserve(std::size_t{1} << 60, kOsPageSize), nullptr);
  EXPECT_EQ(os.reserve(align_down(SIZE_MAX, kOsPageSize), GiB), nullptr);
  EXPECT_EQ(os.reserve(kOsPageSize, std::size_t{1} << 62), nullptr);
}

TEST_F(LinuxOs, ReserveUnderAddressSpaceLimit) {
  const auto child = [] {
    const rlimit limit = {2 * GiB, 2 * GiB};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(9);
    errno = 4711;
    if (os.reserve(4 * GiB, kArenaSize) != nullptr) _exit(1);
    void* const small = os.reserve(kArenaSize, kArenaSize);
    if (small == nullptr || !is_aligned(address(small), kArenaSize)) _exit(2);
    if (os.make_writable(small, kHugeSize) != 0) _exit(3);
    if (errno != 4711) _exit(4);
  };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow alone is above any limit";
#endif
  EXPECT_EQ(in_child(child), 0);
}

TEST_F(LinuxOs, UnmapGivesBackWhateverIsThere) {
  void* const p = os.reserve(kBytes, kOsPageSize);
  ASSERT_EQ(os.make_writable(p, kBytes / 2), 0);
  ASSERT_EQ(os.populate(p, kBytes / 2), 0);
  EXPECT_EQ(os.unmap(p, kBytes), 0);
  EXPECT_EQ(keeping_errno([&] { return mappings_within(p, kBytes); }), 0u);
}

TEST_F(LinuxOs, ContentsOfAccessiblePagesStay) {
  ASSERT_EQ(os.make_writable(p_, kBytes / 2), 0);
  std::memset(p_, 0x5a, kBytes / 2);
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  EXPECT_EQ(p_[0], 0x5a);
  EXPECT_EQ(p_[kBytes / 2 - 1], 0x5a);
  EXPECT_EQ(p_[kBytes - 1], 0);
}

TEST_F(LinuxOs, MakeWritableMergesIntoOneMapping) {
  for (std::size_t i = 0; i < kBytes / kOsPageSize; i++) ASSERT_EQ(os.make_writable(page(i), kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return mappings_within(p_, kBytes); }), 1u);
  // Memory laid in by map_plain() must merge with it too, written or not.
  p_[0] = 1;
  ASSERT_EQ(os.map_plain(page(8), 8 * kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return mappings_within(p_, kBytes); }), 1u);
}

// Otherwise vm.overcommit_memory=0 would refuse to make large ranges writable, and charge all of them at once.
TEST_F(LinuxOs, WritableMemoryIsNotChargedInAdvance) {
  std::uint64_t policy = 0;
  ASSERT_TRUE(read_number("/proc/sys/vm/overcommit_memory", &policy));
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  const std::string flags = keeping_errno([&] { return test::smaps_text(p_, "VmFlags"); });
  EXPECT_EQ(flags.find(" nr") != std::string::npos, policy != 2) << flags;
}

TEST_F(LinuxOs, MakeWritableOfAHoleFails) {
  void* const gone = os.reserve(kOsPageSize, kOsPageSize);
  os.unmap(gone, kOsPageSize);
  EXPECT_EQ(os.make_writable(gone, kOsPageSize), ENOMEM);
}

TEST_F(LinuxOs, MapPlain) {
  ASSERT_EQ(os.map_plain(p_, kBytes), 0);
  std::memset(p_, 1, kBytes);
  ASSERT_EQ(os.map_plain(page(1), kOsPageSize), 0);
  EXPECT_EQ(*page(0), 1);
  EXPECT_EQ(*page(1), 0);
  *page(1) = 2;
}

TEST_F(LinuxOs, MoveMapping) {
  char* const from = static_cast<char*>(os.reserve(4 * kOsPageSize, kOsPageSize));
  ASSERT_EQ(os.make_writable(from, 4 * kOsPageSize), 0);
  std::memset(from, 7, 4 * kOsPageSize);
  ASSERT_EQ(os.move_mapping(from, page(10), 4 * kOsPageSize), 0);
  EXPECT_EQ(*page(13), 7);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(from); }), "");
  EXPECT_EQ(keeping_errno([&] { return permissions_of(page(14)); }), "---p");
}

TEST_F(LinuxOs, FailedMoveLeavesNoHole) {
  // Nothing is mapped in this range, so that nothing can be moved out of it.
  char* const hole = static_cast<char*>(os.reserve(16 * kOsPageSize, kOsPageSize));
  os.unmap(hole, 16 * kOsPageSize);
  char* const gone = hole + 8 * kOsPageSize;
  EXPECT_NE(os.move_mapping(gone, page(3), kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(page(3)); }), "---p");
  EXPECT_EQ(os.move_mapping(page(0), page(0), kOsPageSize), EINVAL) << "onto itself";
  // What older kernels make of the target before they refuse: a hole must not stay one.
  EXPECT_NE(os.move_mapping(gone, hole, kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(hole); }), "---p");
  os.unmap(hole, kOsPageSize);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(page(0)); }), "---p");
}

// ---- backing ---------------------------------------------------------------------------------------------------

TEST_F(LinuxOs, PopulateFaultsEveryPageIn) {
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  EXPECT_EQ(keeping_errno([&] { return resident_pages(p_, kBytes); }), 0u);
  ASSERT_EQ(os.populate(page(2), 8 * kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return resident_pages(p_, kBytes); }), 8u);
}

TEST_F(LinuxOs, PopulateSaysWhyNot) {
  char* const p = free_place(kOsPageSize);
  ASSERT_EQ(os.map_new_readable(p, kOsPageSize), 0);
  EXPECT_NE(os.populate(p, kOsPageSize), 0) << "not writable";
  os.unmap(p, kOsPageSize);
  EXPECT_NE(os.populate(page(1), kOsPageSize), 0) << "not accessible";
}

TEST_F(LinuxOs, Discard) {
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  std::memset(p_, 1, kBytes);
  ASSERT_EQ(os.discard(page(1), 2 * kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return resident_pages(p_, kBytes); }), kBytes / kOsPageSize - 2);
  EXPECT_EQ(*page(0), 1);
  EXPECT_EQ(*page(1), 0);
  *page(1) = 1;  // still mapped
}

TEST_F(LinuxOs, DiscardOfLockedMemoryIsRefused) {
  ASSERT_EQ(os.make_writable(p_, kOsPageSize), 0);
  p_[0] = 1;
  // The system call, since sanitizers make mlock() do nothing.
  const bool locked = keeping_errno([&] { return syscall(SYS_mlock, p_, kOsPageSize) == 0; });
  if (!locked) GTEST_SKIP() << "RLIMIT_MEMLOCK does not allow a single page";
  EXPECT_EQ(os.discard(p_, kOsPageSize), EINVAL);
  EXPECT_EQ(p_[0], 1) << "nothing may be dropped then";
}

TEST_F(LinuxOs, AdviseThp) {
  char* const p = static_cast<char*>(os.reserve(2 * kHugeSize, kHugeSize));
  ASSERT_EQ(os.make_writable(p, 2 * kHugeSize), 0);
  const int mode = os.thp_mode();
  if (mode < 0) {
    EXPECT_EQ(os.advise_thp(p, kHugeSize, true), EINVAL) << "a kernel without THP says so";
  } else {
    ASSERT_EQ(os.advise_thp(p, kHugeSize, true), 0);
    ASSERT_EQ(os.advise_thp(p + kHugeSize, kHugeSize, false), 0);
    ASSERT_EQ(os.populate(p, 2 * kHugeSize), 0);
    // Fresh huge pages can be missing only when memory is fragmented.
    const std::size_t huge = keeping_errno([&] { return test::smaps_kb(p, "AnonHugePages"); });
    EXPECT_EQ(huge, mode == 0 ? 0u : kHugeSize / KiB);
    EXPECT_EQ(keeping_errno([&] { return test::smaps_kb(p + kHugeSize, "AnonHugePages"); }), 0u);
  }
  os.unmap(p, 2 * kHugeSize);
}

TEST_F(LinuxOs, BasePagesBecomeAHugeOne) {
  auto* const p = static_cast<char*>(os.reserve(kHugeSize, kHugeSize));
  ASSERT_EQ(os.make_writable(p, kHugeSize), 0);
  os.advise_thp(p, kHugeSize, false);
  ASSERT_EQ(os.populate(p, kHugeSize / 2), 0);
  EXPECT_FALSE(keeping_errno([&] { return os.all_exist(p, kHugeSize); }));
  EXPECT_TRUE(os.all_exist(p, kHugeSize / 2));
  ASSERT_EQ(os.populate(p, kHugeSize), 0);
  EXPECT_TRUE(os.all_exist(p, kHugeSize));
  std::memset(p, 7, kHugeSize);
  const int refused = keeping_errno([&] { return os.collapse(p, kHugeSize); });
  EXPECT_TRUE(refused == EINVAL || refused == ENOSYS) << refused << ", against its advice";
  if (refused == EINVAL && os.advise_thp(p, kHugeSize, true) == 0) {
    // A policy of the thread is in force again afterwards.
    const unsigned long node_0 = 1;
    const bool has_policy = ::syscall(SYS_set_mempolicy, MPOL_PREFERRED, &node_0, 8) == 0;
    ASSERT_EQ(os.collapse(p, kHugeSize), 0);
    EXPECT_EQ(keeping_errno([&] { return test::smaps_kb(p, "AnonHugePages"); }), kHugeSize / KiB);
    int mode = -1;
    const bool told = ::syscall(SYS_get_mempolicy, &mode, nullptr, 0, nullptr, 0) == 0;
    EXPECT_TRUE(!has_policy || !told || mode == MPOL_PREFERRED) << mode;
    if (has_policy) ::syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0);
    for (std::size_t at = 0; at < kHugeSize; at += 999) ASSERT_EQ(p[at], 7);
  }
  os.unmap(p, kHugeSize);
}

TEST_F(LinuxOs, ChildrenCountUntilTheyAreWaitedFor) {
  EXPECT_FALSE(keeping_errno([&] { return os.has_children(); }));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  EXPECT_TRUE(os.has_children());
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(os.has_children());
}

// ---- placement -------------------------------------------------------------------------------------------------

// The policy of a range as the kernel has it; -1 where it may not be asked.
int policy_of(void* p, NodeSet* nodes) {
  int mode = -1;
  const int saved = errno;
  *nodes = NodeSet{};
  if (syscall(SYS_get_mempolicy, &mode, nodes->words(), NodeSet::kBits, p, MPOL_F_ADDR) != 0) mode = -1;
  errno = saved;
  return mode;
}

TEST_F(LinuxOs, Bind) {
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  NodeSet home;
  int node = -1;
  unsigned cpu = 0;
  ASSERT_EQ(syscall(SYS_getcpu, &cpu, &node, nullptr), 0);
  home.add(NodeId(node));
  NodeSet nodes;

  const int refused = os.bind(p_, kBytes, BindMode::kBind, home);
  if (refused != 0) {
    EXPECT_TRUE(refused == EPERM || refused == ENOSYS) << refused;
    EXPECT_EQ(os.populate(p_, kBytes), 0) << "memory must be usable without its policy";
    GTEST_SKIP() << "mbind is not allowed here: " << std::strerror(refused);
  }
  EXPECT_EQ(policy_of(p_, &nodes), MPOL_BIND | MPOL_F_STATIC_NODES);
  EXPECT_EQ(nodes, home);
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kInterleave, home), 0);
  EXPECT_EQ(policy_of(p_, &nodes), MPOL_INTERLEAVE | MPOL_F_STATIC_NODES);
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kPreferred, home), 0);
  EXPECT_EQ(policy_of(p_, &nodes), MPOL_PREFERRED | MPOL_F_STATIC_NODES);
  EXPECT_EQ(nodes, home);
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kDefault, home), 0);
  EXPECT_EQ(policy_of(p_, &nodes), MPOL_DEFAULT);

  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kBind, NodeSet{}), EINVAL);
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kPreferred, NodeSet{}), EINVAL);
  NodeSet absent = NodeSet::of(NodeId(NodeSet::kBits - 1));
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kBind, absent), EINVAL);
  // The mask must reach the kernel whole: nodes that exist are taken out of it, but a bit behind the end of the
  // kernel's own masks (whose width Mems_allowed shows, 9 characters for 32 bits) is an error.
  char status[8192];
  ASSERT_GT(read_file("/proc/self/status", status, sizeof status), 0);
  const char* const mask = std::strstr(status, "Mems_allowed:\t") + std::strlen("Mems_allowed:\t");
  const std::size_t kernel_bits = (std::strcspn(mask, "\n") + 1) / 9 * 32;
  NodeSet both = home;
  both.add(NodeId(NodeSet::kBits - 1));
  EXPECT_EQ(os.bind(p_, kBytes, BindMode::kBind, both), kernel_bits < NodeSet::kBits ? EINVAL : 0);
}

TEST_F(LinuxOs, NodesOf) {
  ASSERT_EQ(os.make_writable(p_, kBytes), 0);
  *page(0) = 1;
  *page(2) = 1;
  char* const gone = static_cast<char*>(os.reserve(kOsPageSize, kOsPageSize));
  os.unmap(gone, kOsPageSize);
  const void* const addresses[] = {page(0), page(1), page(2) + 5, gone};
  int result[4] = {77, 77, 77, 77};
  const int refused = os.nodes_of(addresses, 4, result);
  if (refused != 0) {
    EXPECT_TRUE(refused == EPERM || refused == ENOSYS) << refused;
    GTEST_SKIP() << "move_pages is not allowed here: " << std::strerror(refused);
  }
  EXPECT_GE(result[0], 0);
  EXPECT_EQ(result[1], -ENOENT);
  EXPECT_GE(result[2], 0);
  EXPECT_LT(result[3], 0);
}

// ---- information, time, sleep ----------------------------------------------------------------------------------

TEST_F(LinuxOs, NowIsTheMonotonicClock) {
  const std::chrono::nanoseconds steady = std::chrono::steady_clock::now().time_since_epoch();
  const auto difference = static_cast<std::int64_t>(os.now_ns()) - steady.count();
  EXPECT_GE(difference, 0);
  EXPECT_LT(difference, 10'000'000'000);
}

TEST_F(LinuxOs, NowRises) {
  const std::uint64_t a = os.now_ns();
  keeping_errno([] { return usleep(2000); });
  const std::uint64_t b = os.now_ns();
  EXPECT_GE(b - a, 2'000'000u);
  EXPECT_LT(b - a, 60'000'000'000u);
}

TEST_F(LinuxOs, FutexWaitReturns) {
  std::atomic<std::uint32_t> word{1};
  os.futex_wait(&word, 0, 0);  // another value: at once, or this test hangs
  const std::uint64_t begin = os.now_ns();
  os.futex_wait(&word, 1, 20'000'000);
  EXPECT_GE(os.now_ns() - begin, 15'000'000u) << "did not sleep";
}

TEST_F(LinuxOs, FutexWakeWakes) {
  std::atomic<std::uint32_t> word{0};
  std::atomic<int> returns{0};
  std::thread sleeper([&] {
    while (word == 0) {
      os.futex_wait(&word, 0, 0);
      returns++;
    }
  });
  keeping_errno([] { return usleep(5000); });
  word = 1;
  os.futex_wake(&word, 1);
  sleeper.join();
  EXPECT_LT(returns, 10) << "did not sleep: no timeout was taken for one of 0 ns";
}

// ---- statistics ------------------------------------------------------------------------------------------------

TEST_F(LinuxOs, CountsMemorySystemCalls) {
  const auto count = [](auto f) {
    const std::uint64_t before = memory_syscalls();
    f();
    return memory_syscalls() - before;
  };
  EXPECT_EQ(count([&] { os.make_writable(p_, kBytes); }), 1u);
  EXPECT_EQ(count([&] { os.map_new(p_, kBytes); }), 1u);
  EXPECT_EQ(count([&] { os.map_plain(p_, kBytes); }), 2u);
  EXPECT_EQ(count([&] { os.populate(p_, kBytes); }), 1u);
  EXPECT_EQ(count([&] { os.discard(p_, kBytes); }), 1u);
  EXPECT_EQ(count([&] { os.punch(p_, kBytes); }), 1u) << "failed calls count too";
  EXPECT_EQ(count([&] { os.advise_thp(p_, kBytes, false); }), 1u);
  EXPECT_EQ(count([&] { os.bind(p_, kBytes, BindMode::kDefault, NodeSet{}); }), 1u);
  EXPECT_EQ(count([&] {
              void* const p = os.reserve(kOsPageSize, kOsPageSize);
              os.unmap(p, kOsPageSize);
            }),
            2u);
  EXPECT_EQ(count([&] {
              std::atomic<std::uint32_t> word{0};
              int node = 0;
              HugePool pool;
              const void* const where = p_;
              os.now_ns();
              os.futex_wake(&word, 1);
              os.futex_wait(&word, 1, 0);
              os.nodes_of(&where, 1, &node);
              os.huge_pool(kHugeSize, NodeId(), &pool);
              os.thp_mode();
            }),
            0u);
}

}  // namespace
}  // namespace nh
