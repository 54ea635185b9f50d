// Limits of huge pages and of memory, over trees that look like /proc and /sys/fs/cgroup of other machines.
#include "os/cgroup.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "base/units.h"

namespace nh {
namespace {

class Tree {
 public:
  Tree() {
    char name[] = "/tmp/nh-cgroup-XXXXXX";
    root_ = ::mkdtemp(name);
  }
  ~Tree() { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  const char* root() const { return root_.c_str(); }
  bool limited(std::size_t page = 2 * MiB) const {
    ControlGroups groups{};
    groups.find(root_.c_str());
    return groups.limits_hugetlb(page);
  }
  // What is left of the tightest memory limit below 16 GiB; -1: there is none.
  std::int64_t left() const {
    ControlGroups groups{};
    groups.find(root_.c_str());
    groups.find_memory_limits(16 * GiB);
    MemoryLimit limit;
    return groups.memory_limit(&limit) ? static_cast<std::int64_t>(limit.limit - limit.used) : -1;
  }

 private:
  std::string root_;
};

constexpr char kMountV2[] = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
constexpr char kMountV1[] = "31 23 0:27 / /sys/fs/cgroup/hugetlb rw,relatime shared:5 - cgroup cgroup rw,hugetlb\n";

TEST(Cgroup, NothingReadableIsNoLimit) {
  const Tree tree;
  EXPECT_FALSE(tree.limited());
}

TEST(Cgroup, Version2OwnGroup) {
  Tree tree;
  tree.write("/proc/self/cgroup", "0::/job/step\n");
  tree.write("/proc/self/mountinfo", std::string("22 1 8:1 / / rw - ext4 /dev/sda rw\n") + kMountV2);
  tree.write("/sys/fs/cgroup/job/step/hugetlb.2MB.max", "max\n");
  EXPECT_FALSE(tree.limited());
  tree.write("/sys/fs/cgroup/job/step/hugetlb.2MB.max", "4194304\n");
  EXPECT_TRUE(tree.limited());
  EXPECT_FALSE(tree.limited(1 * GiB)) << "the other size has a limit of its own";
  tree.write("/sys/fs/cgroup/job/step/hugetlb.1GB.max", "0\n");
  EXPECT_TRUE(tree.limited(1 * GiB));
}

TEST(Cgroup, GroupsAboveCountToo) {
  Tree tree;
  tree.write("/proc/self/cgroup", "0::/job/step/task\n");
  tree.write("/proc/self/mountinfo", kMountV2);
  tree.write("/sys/fs/cgroup/job/step/task/hugetlb.2MB.max", "max\n");
  EXPECT_FALSE(tree.limited());
  tree.write("/sys/fs/cgroup/job/hugetlb.2MB.max", "0\n");
  EXPECT_TRUE(tree.limited());
}

TEST(Cgroup, LimitAtTheMountPointOfAContainer) {
  Tree tree;
  tree.write("/proc/self/cgroup", "0::/docker/abc\n");
  // The container sees its own group as the root of the mount.
  tree.write("/proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
  tree.write("/sys/fs/cgroup/hugetlb.2MB.max", "2097152\n");
  EXPECT_TRUE(tree.limited());
}

TEST(Cgroup, Version1) {
  Tree tree;
  tree.write("/proc/self/cgroup", "9:name=systemd:/\n4:cpuset,hugetlb:/box\n0::/\n");
  tree.write("/proc/self/mountinfo", std::string(kMountV2) + kMountV1);
  tree.write("/sys/fs/cgroup/hugetlb/box/hugetlb.2MB.limit_in_bytes", "9223372036854771712\n");
  EXPECT_FALSE(tree.limited());
  tree.write("/sys/fs/cgroup/hugetlb/box/hugetlb.2MB.limit_in_bytes", "2097152\n");
  EXPECT_TRUE(tree.limited());
}

TEST(Cgroup, MemoryOfVersion2) {
  Tree tree;
  EXPECT_EQ(tree.left(), -1);
  tree.write("/proc/self/cgroup", "0::/job/step\n");
  tree.write("/proc/self/mountinfo", kMountV2);
  const std::string job = "/sys/fs/cgroup/job/";
  tree.write(job + "step/memory.max", "max\n");
  tree.write(job + "step/memory.current", "4000000\n");
  EXPECT_EQ(tree.left(), -1);
  tree.write(job + "memory.max", "314572800\n");
  EXPECT_EQ(tree.left(), -1) << "a limit whose use cannot be read is of no use";
  tree.write(job + "memory.current", "104857600\n");
  EXPECT_EQ(tree.left(), 200 * std::int64_t{MiB});
  // The tighter one counts, be it above or below.
  tree.write(job + "step/memory.max", "209715200\n");
  EXPECT_EQ(tree.left(), 209715200 - 4000000);
  tree.write(job + "memory.current", "304857600\n");
  EXPECT_EQ(tree.left(), 314572800 - 304857600);
  // Files that the kernel could drop count for half.
  tree.write(job + "memory.stat", "anon 100\ninactive_file 20000000\nactive_file 40000000\ntotal_inactive_file 7\n");
  EXPECT_EQ(tree.left(), 314572800 - 304857600 + 30000000);
  tree.write(job + "memory.max", "999999999999\n");
  tree.write(job + "step/memory.max", "max\n");
  EXPECT_EQ(tree.left(), -1) << "more than the machine has is no limit";
}

TEST(Cgroup, MemoryOfVersion1) {
  Tree tree;
  tree.write("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box/inner\n0::/\n");
  tree.write("/proc/self/mountinfo", std::string(kMountV2) +
                                         "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" + kMountV1);
  const std::string box = "/sys/fs/cgroup/memory/box/";
  tree.write(box + "inner/memory.limit_in_bytes", "9223372036854771712\n");
  tree.write(box + "memory.limit_in_bytes", "314572800\n");
  tree.write(box + "memory.usage_in_bytes", "300000000\n");
  EXPECT_EQ(tree.left(), 14572800);
  tree.write(box + "memory.stat", "inactive_file 1\nactive_file 1\ntotal_inactive_file 20000\ntotal_active_file 4000\n");
  EXPECT_EQ(tree.left(), 14572800 + 12000);
  EXPECT_FALSE(tree.limited());
}

// A process may be moved while it runs. Where it was not, the table of mounts is not read again.
TEST(Cgroup, LookedUpAgain) {
  Tree tree;
  tree.write("/proc/self/cgroup", "0::/one\n");
  tree.write("/proc/self/mountinfo", kMountV2);
  tree.write("/sys/fs/cgroup/one/hugetlb.2MB.max", "max\n");
  tree.write("/sys/fs/cgroup/two/hugetlb.2MB.max", "0\n");
  ControlGroups groups{};
  groups.find(tree.root());
  EXPECT_FALSE(groups.limits_hugetlb(2 * MiB));
  tree.write("/proc/self/cgroup", "0::/two\n");
  groups.find(tree.root());
  EXPECT_TRUE(groups.limits_hugetlb(2 * MiB));
  tree.write("/proc/self/mountinfo", "");
  groups.find(tree.root());
  EXPECT_TRUE(groups.limits_hugetlb(2 * MiB));
  groups.forget();
  groups.find(tree.root());
  EXPECT_FALSE(groups.limits_hugetlb(2 * MiB));
  tree.write("/proc/self/mountinfo", kMountV2);
  tree.write("/proc/self/cgroup", "");
  groups.find(tree.root());
  EXPECT_FALSE(groups.limits_hugetlb(2 * MiB));
}

TEST(Cgroup, TooLongAPathIsNone) {
  Tree tree;
  const std::string group = "/" + std::string(200, 'g') + "/" + std::string(200, 'h');
  for (const std::string& below : {group, group + group + group}) {
    tree.write("/proc/self/cgroup", "0::" + below + "\n");
    tree.write("/proc/self/mountinfo", kMountV2);
    tree.write("/sys/fs/cgroup/memory.max", "1000000\n");
    tree.write("/sys/fs/cgroup/memory.current", "1000\n");
    EXPECT_EQ(tree.left(), below == group ? 999000 : -1);
  }
}

TEST(Cgroup, Garbage) {
  Tree tree;
  tree.write("/proc/self/cgroup", ":::\n0\n0::\n\n");
  tree.write("/proc/self/mountinfo", "cgroup2\n - cgroup2\n");
  EXPECT_FALSE(tree.limited());
}

}  // namespace
}  // namespace nh
