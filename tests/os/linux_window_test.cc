// The production table: new mappings where nothing is mapped, and the window that grows by them.
#include <cerrno>
#include <csignal>
#include <cstring>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/linux_os_world.h"
#include "os/procfs.h"

namespace nh {
namespace {

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

}  // namespace
}  // namespace nh
