// hugetlb memory from files: memfd, and a hugetlbfs mounted for the test. Mounting takes root; without it only the
// refusals are checked, and the tests say so.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/maps.h"
#include "os/os.h"
#include "support/huge_pool_guard.h"

namespace nh {
namespace {

using test::HugePoolGuard;

const OsOps& os = linux_os();

std::size_t entries_in(const char* directory) {
  DIR* const d = opendir(directory);
  std::size_t count = 0;
  while (d != nullptr && readdir(d) != nullptr) count++;
  if (d != nullptr) closedir(d);
  return count;
}
std::size_t open_files() { return entries_in("/proc/self/fd"); }

void use_directory(const char* path) {
  OsConfig config;
  std::snprintf(config.hugetlbfs_path, sizeof config.hugetlbfs_path, "%s", path);
  configure_linux_os(config);
}

std::size_t free_pages() {
  HugePool pool;
  os.forget_state();
  return os.huge_pool(kHugeSize, NodeId(), &pool) ? pool.free : 0;
}

char* map(HugeSource source, Reservation reservation, std::size_t pages, int* error) {
  char* const p = static_cast<char*>(os.reserve(pages * kHugeSize, kHugeSize));
  os.unmap(p, pages * kHugeSize);
  errno = 4711;
  *error = os.map_new_hugetlb(p, pages * kHugeSize, kHugeSize, source, reservation);
  EXPECT_EQ(errno, 4711) << "errno was changed";
  return *error == 0 ? p : nullptr;
}

// A hugetlbfs of 2 MiB pages for the length of a test, where that is allowed. The mount is detached as soon as it is
// open, so that it goes with this process even if it is killed; a descriptor's path still leads to it.
class HugetlbSources : public testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/numaheap-mount-XXXXXX";
    ASSERT_NE(mkdtemp(directory), nullptr);
    mounted_ = mount("none", directory, "hugetlbfs", 0, "pagesize=2M") == 0;
    if (!mounted_) why_ = std::strerror(errno);
    directory_ = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(directory_, 0);
    if (mounted_) {
      ASSERT_EQ(umount2(directory, MNT_DETACH), 0);
    }
    ASSERT_EQ(rmdir(directory), 0);
    std::snprintf(path_, sizeof path_, "/proc/self/fd/%d", directory_);
    use_directory(path_);
  }
  void TearDown() override {
    use_directory("");
    close(directory_);
  }
  // What holds for every source that maps MAP_PRIVATE.
  void check_private(HugeSource source);

  int directory_ = -1;
  char path_[32] = "";
  bool mounted_ = false;
  std::string why_;
};

#define NEED_MOUNT()                                                                            \
  if (!mounted_) {                                                                              \
    int mount_error = 0;                                                                        \
    EXPECT_EQ(map(HugeSource::kHugetlbfs, Reservation::kNone, 1, &mount_error), nullptr);       \
    EXPECT_EQ(mount_error, EINVAL) << "the directory is no hugetlbfs";                          \
    GTEST_SKIP() << "only the refusal could be checked: cannot mount a hugetlbfs: " << why_;    \
  }                                                                                             \
  static_assert(true)
#define NEED_PAGES(guard) \
  if (!(guard).ok()) GTEST_SKIP() << "only an empty pool could be checked: " << (guard).why()

void HugetlbSources::check_private(HugeSource source) {
  int error = 0;
  const std::size_t files = open_files();
  {
    HugePoolGuard guard(0);
    if (HugePoolGuard::free() == 0) {
      EXPECT_EQ(map(source, Reservation::kFull, 1, &error), nullptr);
      EXPECT_EQ(error, ENOMEM);
      char* const p = map(source, Reservation::kNone, 1, &error);
      ASSERT_NE(p, nullptr) << std::strerror(error);
      EXPECT_EQ(os.populate(p, kHugeSize), EFAULT);
      os.unmap(p, kHugeSize);
    }
  }
  EXPECT_EQ(open_files(), files) << "a descriptor leaked";

  HugePoolGuard guard(3);
  NEED_PAGES(guard);
  const std::size_t before = free_pages();
  const std::size_t files_now = open_files();  // the guard's lock file among them
  char* const p = map(source, Reservation::kNone, 3, &error);
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(open_files(), files_now) << "a descriptor leaked";
  if (mounted_) {
    EXPECT_EQ(entries_in(path_), 2u) << "the name must be gone at once";
  }
  ASSERT_EQ(os.populate(p, 3 * kHugeSize), 0) << "the last page too: the file must be long enough";
  std::memset(p, 1, 3 * kHugeSize);
  EXPECT_EQ(free_pages(), before - 3);
  EXPECT_EQ(test::permissions_of(p), "rw-p");

  ASSERT_EQ(os.discard(p + kHugeSize, kHugeSize), 0);
  EXPECT_EQ(free_pages(), before - 2) << "a page of a private mapping must go back to the pool, not stay in the file";
  EXPECT_EQ(p[0], 1);

  char* const area = static_cast<char*>(os.reserve(kArenaSize, kArenaSize));
  if (os.move_mapping(p, area + kHugeSize, 3 * kHugeSize) == 0) {  // not before 5.16
    EXPECT_EQ(area[kHugeSize], 1);
    ASSERT_EQ(os.populate(area + 2 * kHugeSize, kHugeSize), 0);
    EXPECT_EQ(area[2 * kHugeSize], 0);
  } else {
    os.unmap(p, 3 * kHugeSize);
  }
  os.unmap(area, kArenaSize);
  EXPECT_EQ(free_pages(), before);

  // Two mappings do not share pages.
  char* const a = map(source, Reservation::kFull, 1, &error);
  char* const b = map(source, Reservation::kFull, 1, &error);
  ASSERT_TRUE(a != nullptr && b != nullptr) << std::strerror(error);
  a[0] = 1;
  b[0] = 2;
  EXPECT_EQ(a[0], 1);
  os.unmap(a, kHugeSize);
  os.unmap(b, kHugeSize);
  EXPECT_EQ(free_pages(), before);
}

TEST_F(HugetlbSources, Anonymous) { check_private(HugeSource::kAnonymous); }
TEST_F(HugetlbSources, Memfd) { check_private(HugeSource::kMemfd); }
TEST_F(HugetlbSources, HugetlbfsFile) {
  NEED_MOUNT();
  check_private(HugeSource::kHugetlbfs);
}

TEST_F(HugetlbSources, SharedFile) {
  NEED_MOUNT();
  HugePoolGuard guard(2);
  NEED_PAGES(guard);
  const std::size_t before = free_pages();
  int error = 0;
  char* const p = map(HugeSource::kSharedFile, Reservation::kNone, 2, &error);
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(test::permissions_of(p), "rw-s");
  EXPECT_EQ(entries_in(path_), 2u);
  ASSERT_EQ(os.populate(p, 2 * kHugeSize), 0);
  std::memset(p, 1, 2 * kHugeSize);

  // Shared is shared: a fork child's write is seen here.
  const pid_t pid = fork();
  if (pid == 0) {
    p[0] = 2;
    _exit(0);
  }
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(p[0], 2);

  // Dropping the page from the mapping leaves it in the file; a hole in the file gives it back.
  ASSERT_EQ(os.discard(p, kHugeSize), 0);
  EXPECT_EQ(free_pages(), before - 2);
  EXPECT_EQ(p[0], 2);
  ASSERT_EQ(os.punch(p, kHugeSize), 0);
  EXPECT_EQ(free_pages(), before - 1);
  ASSERT_EQ(os.populate(p, kHugeSize), 0);
  EXPECT_EQ(p[0], 0);
  EXPECT_EQ(p[kHugeSize], 1);
  os.unmap(p, 2 * kHugeSize);
  EXPECT_EQ(free_pages(), before);
}

TEST_F(HugetlbSources, RefusalsLeaveNothingBehind) {
  NEED_MOUNT();
  HugePoolGuard guard(1);
  NEED_PAGES(guard);
  char* const area = static_cast<char*>(os.reserve(4 * kHugeSize, kHugeSize));
  ASSERT_NE(area, nullptr);
  os.unmap(area, 3 * kHugeSize);
  const std::size_t files = open_files();
  for (const HugeSource source : {HugeSource::kMemfd, HugeSource::kHugetlbfs, HugeSource::kSharedFile}) {
    const std::size_t before = free_pages();
    // Two promised pages are more than there are; and something lies behind the third.
    EXPECT_EQ(os.map_new_hugetlb(area, 2 * kHugeSize, kHugeSize, source, Reservation::kFull), ENOMEM);
    EXPECT_EQ(os.map_new_hugetlb(area, 4 * kHugeSize, kHugeSize, source, Reservation::kNone), EEXIST);
    EXPECT_EQ(test::mappings_within(area, 3 * kHugeSize), 0u);
    ASSERT_EQ(os.map_new_hugetlb(area + kHugeSize, kHugeSize, kHugeSize, source, Reservation::kFull), 0);
    area[kHugeSize] = 1;
    EXPECT_EQ(os.unmap(area + kHugeSize, kHugeSize), 0);
    EXPECT_EQ(free_pages(), before);
  }
  EXPECT_EQ(open_files(), files) << "a descriptor leaked";
  os.unmap(area + 3 * kHugeSize, kHugeSize);
}

TEST_F(HugetlbSources, DirectoriesThatDoNotFit) {
  int error = 0;
  for (const HugeSource source : {HugeSource::kHugetlbfs, HugeSource::kSharedFile}) {
    use_directory("");
    EXPECT_EQ(map(source, Reservation::kNone, 1, &error), nullptr);
    EXPECT_EQ(error, ENOENT);
    use_directory("/tmp/numaheap/there/is/no/such/directory");
    EXPECT_EQ(map(source, Reservation::kNone, 1, &error), nullptr);
    EXPECT_EQ(error, ENOENT);
    char plain[] = "/tmp/numaheap-plain-XXXXXX";
    ASSERT_NE(mkdtemp(plain), nullptr);
    use_directory(plain);  // a directory, but no hugetlbfs
    EXPECT_EQ(map(source, Reservation::kNone, 1, &error), nullptr);
    EXPECT_EQ(error, EINVAL);
    EXPECT_EQ(rmdir(plain), 0) << "a file was created there";
  }
  use_directory(path_);
  NEED_MOUNT();
  // Pages of another size than the mount's.
  void* const place = os.reserve(GiB, GiB);
  os.unmap(place, GiB);
  EXPECT_EQ(os.map_new_hugetlb(place, GiB, GiB, HugeSource::kHugetlbfs, Reservation::kNone), EINVAL);
  EXPECT_EQ(entries_in(path_), 2u);
}

}  // namespace
}  // namespace nh
