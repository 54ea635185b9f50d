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
#include "os/maps.h"
#include "os/os.h"
#include "os/procfs.h"

namespace nh {
namespace {

using test::mappings_within;
using test::permissions_of;
using test::resident_pages;

const OsOps& os = linux_os();

// A reservation for the length of a test; errno must be what it was at the end.
class LinuxOs : public testing::Test {
 protected:
  static constexpr std::size_t kBytes = 64 * kOsPageSize;
  void SetUp() override {
    errno = 4711;
    p_ = static_cast<char*>(os.reserve(kBytes, kOsPageSize));
    ASSERT_NE(p_, nullptr);
  }
  void TearDown() override {
    os.unmap(p_, kBytes);
    EXPECT_EQ(errno, 4711) << "a call changed errno";
  }
  char* page(std::size_t i) { return p_ + i * kOsPageSize; }
  // For what is not under test.
  template <typename F>
  static auto keeping_errno(F f) {
    const int saved = errno;
    auto result = f();
    errno = saved;
    return result;
  }
  char* p_ = nullptr;
};

// How a child that runs f ends: 0 and more its exit status, less a signal.
template <typename F>
int in_child(F f) {
  const int saved = errno;
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (const int s : {SIGSEGV, SIGBUS}) signal(s, SIG_DFL);  // sanitizers have handlers of their own
    errno = 4711;
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  errno = saved;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

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

// A place where nothing is mapped.
char* free_place(std::size_t bytes, std::size_t alignment = kOsPageSize) {
  char* const p = static_cast<char*>(os.reserve(bytes, alignment));
  os.unmap(p, bytes);
  return p;
}

TEST_F(LinuxOs, MapNewWhereNothingIs) {
  char* const p = free_place(kBytes);
  ASSERT_EQ(os.map_new(p, kBytes), 0);
  EXPECT_EQ(p[kBytes - 1], 0);
  std::memset(p, 1, kBytes);
  EXPECT_EQ(os.unmap(p, kBytes), 0);
  ASSERT_EQ(os.map_new_readable(p, kBytes), 0);
  EXPECT_EQ(p[0], 0);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(p); }), "r--p");
  EXPECT_EQ(in_child([&] { p[0] = 1; }), -SIGSEGV);
  EXPECT_EQ(os.unmap(p, kBytes), 0);
}

TEST_F(LinuxOs, MapNewOverAMappingChangesNothing) {
  ASSERT_EQ(os.make_writable(page(4), kOsPageSize), 0);
  *page(4) = 1;
  const std::size_t before = keeping_errno([&] { return mappings_within(p_, kBytes); });
  EXPECT_EQ(os.map_new(page(4), kOsPageSize), EEXIST);
  EXPECT_EQ(os.map_new_readable(page(4), kOsPageSize), EEXIST);
  // Only the last page of it is taken.
  char* const hole = free_place(kBytes);
  ASSERT_EQ(os.map_new(hole + kBytes - kOsPageSize, kOsPageSize), 0);
  EXPECT_EQ(os.map_new(hole, kBytes), EEXIST);
  EXPECT_EQ(os.map_new_readable(hole, kBytes), EEXIST);
  EXPECT_EQ(keeping_errno([&] { return permissions_of(hole); }), "");
  EXPECT_EQ(os.unmap(hole + kBytes - kOsPageSize, kOsPageSize), 0);
  EXPECT_EQ(*page(4), 1);
  EXPECT_EQ(keeping_errno([&] { return mappings_within(p_, kBytes); }), before);
}

TEST_F(LinuxOs, NeighboursThatAreMappedOneByOneMerge) {
  char* const p = free_place(kBytes);
  for (std::size_t i = 0; i < kBytes / kOsPageSize; i++) ASSERT_EQ(os.map_new(p + i * kOsPageSize, kOsPageSize), 0);
  EXPECT_EQ(keeping_errno([&] { return mappings_within(p, kBytes); }), 1u);
  EXPECT_EQ(os.unmap(p, kBytes), 0);
}

// ---- a window that grows -----------------------------------------------------------------------------------------

constexpr std::size_t kWindow = 16 * TiB;

TEST_F(LinuxOs, AWindowIsAFreePlace) {
  for (unsigned attempt = 0; attempt < 3; attempt++) {
    const std::size_t bytes = attempt == 0 ? kWindow : 64 * GiB;
    std::uint64_t before = 0, after = 0;
    ASSERT_TRUE(read_field("/proc/self/status", "VmSize", &before));
    const std::uintptr_t base = os.find_window(bytes, 0, attempt);
    ASSERT_TRUE(read_field("/proc/self/status", "VmSize", &after));
#if defined(__SANITIZE_THREAD__)
    if (base == 0) continue;  // its own address space is smaller
#endif
    ASSERT_NE(base, 0u);
    EXPECT_TRUE(is_aligned(base, kArenaSize));
    EXPECT_EQ(after, before) << "nothing is mapped by it";
    void* const p = reinterpret_cast<void*>(base);
    EXPECT_TRUE(os.is_unmapped(p, bytes));
    EXPECT_EQ(keeping_errno([&] { return mappings_within(p, bytes); }), 0u);
    ASSERT_EQ(os.map_new(p, kArenaSize), 0);
    *static_cast<volatile char*>(p) = 1;
    EXPECT_FALSE(os.is_unmapped(p, bytes));
    EXPECT_TRUE(os.is_unmapped(static_cast<char*>(p) + kArenaSize, bytes - kArenaSize));
    EXPECT_EQ(os.unmap(p, kArenaSize), 0);
  }
  EXPECT_EQ(os.find_window(std::size_t{1} << 50, 0, 0), 0u);
}

// Below all that others use, and where nobody can guess it; a second one below the first, if there is room.
TEST_F(LinuxOs, WindowsLieAtRandomBelow80TiB) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "this sanitizer allows nothing but what the kernel chooses";
#endif
  const std::uintptr_t first = os.find_window(kWindow, 0, 0), first_below = os.find_window(TiB, first, 0);
  unsigned others = 0, others_below = 0;
  for (int i = 0; i < 8; i++) {
    const std::uintptr_t base = os.find_window(kWindow, 0, 0);
    ASSERT_NE(base, 0u);
    EXPECT_LE(base + kWindow, 80 * TiB);
    others += base != first;
    const std::uintptr_t below = os.find_window(TiB, first, 0);
    ASSERT_NE(below, 0u);
    EXPECT_LE(below + TiB, first);
    others_below += below != first_below;
  }
  EXPECT_GE(others, 7u);
  EXPECT_GE(others_below, 7u);
}

TEST_F(LinuxOs, AnyAttemptFindsAPlaceOrSaysThatThereIsNone) {
  for (unsigned attempt = 0; attempt < 16; attempt++) {
    for (const std::size_t below : {std::size_t{0}, 100 * GiB, 30 * TiB, 79 * TiB}) {
      for (const std::size_t bytes : {GiB, TiB, 70 * TiB}) {  // the last is more than half of all that a process has
        const std::uintptr_t base = os.find_window(bytes, below, attempt);
        if (base == 0) continue;
        EXPECT_TRUE(below == 0 || base + bytes <= below) << bytes << " below " << below;
        EXPECT_TRUE(os.is_unmapped(reinterpret_cast<void*>(base), kArenaSize));
      }
    }
  }
}

TEST_F(LinuxOs, MappingsAreScarceUnderALimit) {
  std::uint64_t policy = 0;
  ASSERT_TRUE(read_number("/proc/sys/vm/overcommit_memory", &policy));
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  EXPECT_EQ(os.mappings_are_scarce(), policy == 2 || limit.rlim_cur != RLIM_INFINITY);
  EXPECT_TRUE(os.has_room(free_place(GiB), GiB));
  EXPECT_TRUE(os.has_room(p_, kBytes)) << "something lies there";
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow alone is above any limit";
#endif
  char* const place = free_place(8 * GiB);
  const auto child = [&] {
    const rlimit some = {2 * GiB, 2 * GiB};
    if (setrlimit(RLIMIT_AS, &some) != 0) _exit(9);
    errno = 4711;
    if (!os.mappings_are_scarce()) _exit(1);
    if (os.has_room(place, 4 * GiB)) _exit(2);
    if (!os.has_room(place, GiB)) _exit(3);
    if (os.map_new(place, 4 * GiB) != ENOMEM) _exit(4);
    if (os.map_new(place, GiB) != 0) _exit(5);
    if (os.has_room(place + GiB, GiB + GiB / 2)) _exit(6);
    if (os.unmap(place, GiB) != 0 || !os.has_room(place, GiB + GiB / 2)) _exit(7);
    if (os.is_unmapped(place, 4 * GiB) != true) _exit(8);  // it cannot be told
    if (errno != 4711) _exit(10);
  };
  EXPECT_EQ(in_child(child), 0);
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
