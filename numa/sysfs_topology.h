// The topology as /sys and /proc tell it: what the first allocation of a process starts from.
//
// No allocation, no lock. A machine with one node costs two small files.
#pragma once

#include <string_view>

#include "numa/topology.h"

namespace nh {

// The directory that stands for "/", so that tests can hand in trees of machines that we do not have. "" is the real
// one.
struct SysfsRoot {
  const char* path = "";
};

// The kernel's name for the time since this machine was booted, which no other machine and no other boot has: a UUID.
struct BootId {
  char text[37] = "";
  std::string_view view() const { return {text, sizeof text - 1}; }
};
// false, and an empty id, where it cannot be read.
bool read_boot_id(const SysfsRoot& root, BootId* id);

// Fills *topology, the allowed nodes included, and always leaves a usable one: where /sys cannot be read (a container
// without it, a kernel without NUMA) one node holds everything, source kSingleNode. Where a file is missing or garbled,
// what it would have said is left out: distances at their defaults, sizes 0, CPUs with the first node. Of more nodes than
// we can describe those with memory are kept before others; CPUs of nodes left out go to the nearest one that is kept.
void load_sysfs_topology(const SysfsRoot& root, Topology* topology);

// Settles a CPU that was offline when the topology was filled: asks /sys for its node now. For slow paths: it takes less
// than 4 KiB of stack. The CPU of a node that came later goes to the nearest one that we know; where /sys does not tell,
// it goes to the first. There it stays.
void settle_cpu_by_sysfs(const SysfsRoot& root, CpuId cpu, Topology* topology);

// The nodes from which cpuset and cgroup let this process take memory (Mems_allowed_list). false, and an empty set,
// where that cannot be read.
bool read_allowed_nodes(const SysfsRoot& root, NodeSet* nodes);
// The CPUs on which its main thread may run at this moment (Cpus_allowed_list).
bool read_allowed_cpus(const SysfsRoot& root, CpuSet* cpus);

}  // namespace nh
