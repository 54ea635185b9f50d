// The topology as /sys and /proc tell it: what the first allocation of a process starts from.
//
// No allocation, no lock. A machine with one node costs two small files.
#pragma once

#include "numa/topology.h"

namespace nh {

// The directory that stands for "/", so that tests can hand in trees of machines that we do not have. "" is the real
// one.
struct SysfsRoot {
  const char* path = "";
};

// Fills *topology, the allowed nodes included, and always leaves a usable one: where /sys cannot be read (a container
// without it, a kernel without NUMA) one node holds everything, source kSingleNode. Where a file is missing or garbled,
// what it would have said is left out: distances at their defaults, sizes 0, CPUs with the first node.
void load_sysfs_topology(const SysfsRoot& root, Topology* topology);

// The nodes from which cpuset and cgroup let this process take memory (Mems_allowed_list). false, and an empty set,
// where that cannot be read.
bool read_allowed_nodes(const SysfsRoot& root, NodeSet* nodes);
// The CPUs on which its main thread may run at this moment (Cpus_allowed_list).
bool read_allowed_cpus(const SysfsRoot& root, CpuSet* cpus);

}  // namespace nh
