// Where memory may go and in which order: what the user asked for, what the process inherited, settled against the
// topology.
//
// Pure functions over a filled Topology; only read_inherited_policy() asks the kernel.
#pragma once

#include <cstdint>

#include "base/format.h"
#include "base/node_set.h"
#include "base/options.h"
#include "base/units.h"
#include "numa/topology.h"

namespace nh {

// The memory policy with which the process was started (numactl, a batch system), as get_mempolicy() tells it.
struct InheritedPolicy {
  enum class Mode : std::uint8_t {
    kUnknown,  // the kernel does not say: no NUMA, or a container whose profile forbids the question
    kDefault,  // none, or "local"
    kPreferred,
    kPreferredMany,
    kBind,
    kInterleave,
    kWeighted,  // interleaved by weights
  };
  Mode mode = Mode::kUnknown;
  NodeSet nodes;
  int error = 0;  // errno value for kUnknown

  bool is_set() const { return mode != Mode::kUnknown && mode != Mode::kDefault; }
};
InheritedPolicy read_inherited_policy();

// What NUMAHEAP_NODES takes out, for Topology::leave_out() before it is filled.
NodeSet nodes_left_out(const NodesOption& nodes);
// And afterwards: what the option names and the machine has not is said in *problem. false where nothing was left, and the
// topology has to be filled again without it.
bool settle_nodes(const NodesOption& nodes, const Topology& topology, TextWriter* problem);

enum class PlacementKind : std::uint8_t { kLocal, kInterleave, kWeighted, kBind, kPreferred, kBest };

// The policy in force.
struct Placement {
  PlacementKind kind = PlacementKind::kLocal;
  NodeQuality quality = NodeQuality::kBandwidth;  // kBest: at what
  bool inherited = false;                         // not our option's doing
  NodeSet nodes;                                  // all but kLocal: nodes with memory, at least one
};

// Settles NUMAHEAP_POLICY against what was inherited and what the machine has:
//   - NUMAHEAP_POLICY not given: the inherited policy, if any, else local;
//   - nodes outside the cpuset, an inherited binding, or the machine's nodes with memory are dropped; where none is
//     left the option is ignored;
//   - a bare "interleave" means the nodes with CPUs, "all" means all but device memory; so does a bare "weighted", since it is
//     uneven memory that weights are for;
//   - "bandwidth" and its like are local where no kind of memory differs from another.
// What had to be dropped is said in *problem (one line, empty where all is well; may be nullptr).
Placement settle_placement(const PolicyOption& policy, bool given, const InheritedPolicy& inherited,
                           const Topology& topology, TextWriter* problem);

// Whether some of these nodes are better than others at anything: they are not all of one kind and tier, device memory aside.
bool differ(const NodeSet& nodes, const Topology& topology);

// The nodes that a single request may ask for, never empty: those with memory that the cpuset and an inherited binding
// leave, device memory included, and of these the ones that a binding in force names.
NodeSet nodes_for_requests(const Placement& placement, const InheritedPolicy& inherited, const Topology& topology);

// The heaps of nodes that a request from a node (by its dense index) tries under a placement, first to last:
// out[0 .. result - 1], room for heap_count(); at least one. Interleaved memory has heaps of its own, which are not this
// function's matter: its order is that of local memory.
//   bind: the nodes that the placement names, the nearest first; preferred: then those that help out.
//   best: as Topology::best_heaps() has them.
unsigned heaps_in_order(const Placement& placement, const Topology& topology, unsigned node_index, HeapId* out);

// The first of these for a CPU.
HeapId first_heap(const Placement& placement, const Topology& topology, CpuId cpu);

}  // namespace nh
