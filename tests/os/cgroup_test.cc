// Limits of huge pages, over trees that look like /proc and /sys/fs/cgroup of other machines.
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
  bool limited(std::size_t page = 2 * MiB) const { return cgroup_limits_hugetlb(root_.c_str(), page); }

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

TEST(Cgroup, Garbage) {
  Tree tree;
  tree.write("/proc/self/cgroup", ":::\n0\n0::\n\n");
  tree.write("/proc/self/mountinfo", "cgroup2\n - cgroup2\n");
  EXPECT_FALSE(tree.limited());
}

}  // namespace
}  // namespace nh
