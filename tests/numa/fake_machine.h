// The /sys and /proc of machines that we do not have, as files in a temporary directory: what sysfs_topology.cc reads,
// and on request enough beside it (cpu topology, cpuinfo) for hwloc to read the same tree through HWLOC_FSROOT.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace nh {

struct FakeNode {
  int id = 0;
  std::vector<int> cpus;
  std::size_t memory_kib = 16 << 20;  // 0: a node without memory
  int bandwidth = 0;                  // MB/s and ns from its nearest CPUs, where the firmware has an HMAT; 0: no word
  int latency = 0;
  std::string dax = {};                  // where below /sys/devices its dax device lies, if kmem has made it of one
  std::string gpu = {};                  // the PCI address of the NVIDIA GPU whose memory it is
  bool generic_initiator = false;
};

struct FakeMachine {
  std::vector<FakeNode> nodes;              // the online ones, by number
  std::vector<std::vector<int>> distances;  // rows in the order of nodes; empty: 10 and 20
  std::string possible_cpus;                // "" = the CPUs of the nodes
  std::string mems_allowed;                 // "" = all nodes
  std::string cpus_allowed;                 // "" = all CPUs
  std::vector<std::string> memory_tiers;    // node lists, fastest first; empty: a kernel before 6.1
  bool has_memory_file = true;              // false: an old kernel
  int first_tier = 1;                       // the number of the fastest; the others follow at steps of 3
  int cpu_model = 0;                        // Intel's, family 6

  // count nodes of cpus_each consecutive CPUs, distance 10 and `remote`.
  static FakeMachine uniform(int count, int cpus_each, int remote = 21);
};

// A directory that is removed with everything in it.
class FakeTree {
 public:
  FakeTree();
  // What we read, and with for_hwloc the several files per CPU that hwloc reads beside.
  explicit FakeTree(const FakeMachine& machine, bool for_hwloc = false);
  ~FakeTree();
  FakeTree(const FakeTree&) = delete;
  FakeTree& operator=(const FakeTree&) = delete;

  const char* path() const { return path_.c_str(); }
  // path starts with a slash; directories are made as needed.
  void write(const std::string& path, const std::string& text);
  void link(const std::string& path, const std::string& target);
  void remove(const std::string& path);

 private:
  void write_memory(const FakeMachine& machine);
  void write_cpus_for_hwloc(const FakeMachine& machine);
  std::string path_;
};

// {0,1,2,5} -> "0-2,5"
std::string list_text(const std::vector<int>& numbers);
// {0..n-1} shifted
std::vector<int> range(int first, int count);

}  // namespace nh
