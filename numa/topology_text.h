// A Topology as one line of text, with which `numaheap run` spares its children the loading of hwloc.
//
//   nh1:r/b3d0e4c1a-5f2b-4c8e-9b39-0a53a2f6a1c7/p0-7/n0:16384:m:1:1:0-3/n1:16384:m:1:1:4-7/d10,21,21,10
//
//   r or d       the real machine, or one described by the user
//   b<boot id>   may be missing; a text with another machine's is none of ours (srun and mpiexec pass the environment on)
//   p<cpus>      possible CPUs
//   n<id>:<KiB>:<m or ->:<tier>:<name>:<cpus>   a node; m = has memory; name = what its memory is called, a KindReason,
//                                               or <name>,<MB/s>,<ns> where its bandwidth or latency is known
//   d<matrix>    distances, nodes in the order of the text, row by row; <d>x<n> stands for n equal ones
//
// Reading allocates nothing and needs no hwloc: it can serve the first allocation of a process.
#pragma once

#include <string_view>

#include "base/format.h"
#include "numa/sysfs_topology.h"
#include "numa/topology.h"

namespace nh {

inline constexpr std::string_view kTopologyTextPrefix = "nh1:";

// out.truncated() says whether it fitted. 8 KiB are enough for 64 nodes, and a variable can have 128 KiB. boot_id: of the
// machine for whose processes the text is; empty where it is to serve anywhere.
void write_topology_text(TextWriter& out, const Topology& topology, std::string_view boot_id = {});

// Whether the text carries the boot id of another machine, or of an earlier boot of this one. Where our own cannot be
// read every id is another's. false for all other texts, malformed ones included.
bool is_of_another_machine(std::string_view text, const SysfsRoot& root);

// false for anything that write_topology_text() would not have written: *topology is undefined then. *real becomes true
// where the text describes a real machine. The source becomes kInherited, all nodes are allowed.
bool parse_topology_text(std::string_view text, Topology* topology, bool* real);

// The same, and where the machine is real the nodes that this process may use are applied. *why gets a reason for
// false.
bool load_serialised_topology(std::string_view text, const SysfsRoot& root, Topology* topology, TextWriter* why);

}  // namespace nh
