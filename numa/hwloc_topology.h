// Topology from hwloc, and from the descriptions that NUMAHEAP_TOPOLOGY can hold.
//
// hwloc allocates and takes milliseconds, so none of this belongs into the first allocation of a process: it is
// called from the constructor, or by the tool, while the process has one thread (see load_hwloc_topology). Only
// descriptions in our own form ("nh1:...") are read without hwloc and without allocation: see topology_text.h.
#pragma once

#include "base/format.h"
#include "numa/sysfs_topology.h"
#include "numa/topology.h"

namespace nh {

enum class HwlocInput : std::uint8_t {
  kMachine,    // the running machine; text is the directory that stands for "/" (HWLOC_FSROOT), "" for the real one
  kXml,        // text names a file that hwloc exported (lstopo file.xml)
  kSynthetic,  // text is a synthetic description ("pack:2 numa:2 core:8 pu:2")
};

// Fills *topology, all nodes allowed. false where hwloc is missing or refuses, or the process has other threads: *why says
// so, *topology is undefined.
//
// Other threads could read the environment: while hwloc starts, `environ` is replaced by a list that keeps it from loading
// its plugins. (hwloc_topology_set_components only stops them from being asked: by then hwloc has loaded them, and with them X11,
// OpenCL and libstdc++ into the program.) errno is kept.
bool load_hwloc_topology(HwlocInput input, const char* text, Topology* topology, TextWriter* why);

// What a description is: "nh1:..." our own form, a name with a slash or ending in ".xml" a file, else synthetic.
enum class TopologyDescription : std::uint8_t { kSerialised, kXmlFile, kSynthetic };
TopologyDescription kind_of_description(const char* description);

// Fills *topology from a description of any kind; where it describes this machine, the nodes allowed to this process
// are applied. false: *why says the reason, and *topology is undefined.
bool load_described_topology(const char* description, const SysfsRoot& root, Topology* topology, TextWriter* why);

// Has hwloc confirm and refine what sysfs said. false where hwloc is missing or sees another machine: *topology is as
// it was, and *why says what happened. scratch: memory for hwloc's view, zero or a filled Topology.
bool refine_with_hwloc(const SysfsRoot& root, Topology* topology, Topology* scratch, TextWriter* why);

}  // namespace nh
