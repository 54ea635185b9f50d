// A directory that stands for "/": the files of /proc and /sys of a machine on which all is well, to be spoilt by a
// test. Two nodes with two CPUs and 64 GiB each, a quarter of it free, and 512 pages of 2 MiB.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

namespace nh::cli {

class FakeRoot {
 public:
  FakeRoot() {
    // In memory where that can be had: a hundred machines of fifty files each take a disk many seconds.
    path_ = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm/numaheap-root-XXXXXX" : "/tmp/numaheap-root-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
    write("/proc/meminfo",
          "MemTotal: 134217728 kB\nMemFree: 33554432 kB\nHugepagesize: 2048 kB\nCommitLimit: 67108864 kB\n"
          "Committed_AS: 1048576 kB\n");
    write("/proc/self/status", "Seccomp:\t0\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1\n");
    write("/proc/self/cgroup", "0::/job/step\n");
    write("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("/proc/self/uid_map", "         0          0 4294967295\n");
    write("/sys/fs/cgroup/job/step/memory.max", "max\n");
    write("/sys/fs/cgroup/job/step/memory.current", "1073741824\n");
    write("/sys/fs/cgroup/job/memory.current", "1073741824\n");
    write("/sys/devices/system/cpu/possible", "0-3\n");
    write(kNodes + "/online", "0-1\n");
    write(kNodes + "/has_memory", "0-1\n");
    std::string blocks;
    for (const std::string n : {"0", "1"}) {
      const std::string node = kNodes + "/node" + n;
      write(node + "/cpulist", n == "0" ? "0-1\n" : "2-3\n");
      write(node + "/distance", n == "0" ? "10 20\n" : "20 10\n");
      set_memory(n, 16);
      write(node + "/compact", "");
      blocks += "Node " + n + ", zone   Normal    100 50 20 10 5 5 5 5 5 10 4000 \n";
      set_pool(n, "2048", 512, 500);
      set_pool(n, "1048576", 0, 0);
    }
    write("/proc/buddyinfo", blocks);
    for (const std::string size : {"2048", "1048576"}) {
      const std::string pool = "/sys/kernel/mm/hugepages/hugepages-" + size + "kB/";
      write(pool + "resv_hugepages", "0\n");
      write(pool + "nr_overcommit_hugepages", "0\n");
    }
    write(kThp + "/enabled", "always [madvise] never\n");
    write(kThp + "/hugepages-2048kB/enabled", "always [inherit] madvise never\n");
    write(kThp + "/hugepages-64kB/enabled", "always inherit madvise [never]\n");
    write(kThp + "/defrag", "always defer defer+madvise [madvise] never\n");
    write(kThp + "/khugepaged/defrag", "1\n");
    write(kThp + "/khugepaged/pages_to_scan", "4096\n");
    write("/proc/sys/vm/overcommit_memory", "0\n");
    write("/proc/sys/vm/max_map_count", "65530\n");
    write("/proc/sys/vm/zone_reclaim_mode", "0\n");
    write("/proc/sys/kernel/numa_balancing", "0\n");
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream file(path_ + name);
    std::string text;
    std::getline(file, text);
    return text;
  }
  void remove(const std::string& name) const { std::filesystem::remove_all(path_ + name); }
  void link(const std::string& name, const std::string& to) const {
    remove(name);
    std::filesystem::create_directories(std::filesystem::path(path_ + name).parent_path());
    std::filesystem::create_symlink(to, path_ + name);
  }

  void set_memory(const std::string& node, unsigned free_gib) const {
    write(kNodes + "/node" + node + "/meminfo", "Node " + node + " MemTotal:   67108864 kB\nNode " + node +
                                                    " MemFree:   " + std::to_string(free_gib << 20) + " kB\n");
  }
  static std::string pool(const std::string& node, const std::string& kib = "2048") {
    return kNodes + "/node" + node + "/hugepages/hugepages-" + kib + "kB";
  }
  void set_pool(const std::string& node, const std::string& kib, unsigned pages, unsigned free) const {
    write(pool(node, kib) + "/nr_hugepages", std::to_string(pages) + "\n");
    write(pool(node, kib) + "/free_hugepages", std::to_string(free) + "\n");
    write(pool(node, kib) + "/surplus_hugepages", "0\n");
    std::filesystem::create_directories(path_ + "/sys/kernel/mm/hugepages/hugepages-" + kib + "kB");
  }

  static inline const std::string kNodes = "/sys/devices/system/node";
  static inline const std::string kThp = "/sys/kernel/mm/transparent_hugepage";

 private:
  std::string path_;
};

}  // namespace nh::cli
