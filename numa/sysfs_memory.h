// What /sys and /proc say of nodes' memory: the kernel's tiers, bandwidth and latency from the firmware's HMAT, and whose
// memory it is.
#pragma once

#include <string_view>

#include "numa/sysfs_file.h"
#include "numa/topology.h"

namespace nh {

// For a topology with nodes and CPUs, before finish(). Names are looked for only where there are memory-only nodes.
void read_memory_of_nodes(SysfsFile& file, Topology* topology);

// By the place of a dax device below /sys/devices: memory behind an NVDIMM bus, behind CXL, or kNone. Memory that the
// firmware has merely set apart ("hmem") may be fast or slow.
KindReason name_of_dax(std::string_view device_path);

}  // namespace nh
