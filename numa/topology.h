// The machine as the heaps see it: nodes, which node a CPU belongs to, how far nodes are apart, and in which order to
// try them.
//
// A Topology is about 150 KiB of fixed arrays in memory that its owner provides, all zero at first (.bss will do) and
// touched only as far as the machine fills it; nothing here allocates. Nodes have two numbers: the kernel's own
// (NodeId, sparse) and a dense index from 0. Nodes with memory come first in the dense order, so that for them the
// index is the HeapId of their heap; nodes without memory follow.
//
// Threads: a filled Topology is read without locks. set_allowed() and refine() may run beside readers, who then see the
// old or the new order, or a mixture; every heap they are given exists. These two exclude each other by their callers'
// care; settle_cpu() may run beside everything.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/node_set.h"
#include "base/units.h"
#include "numa/cpu_set.h"

namespace nh {

enum class TopologySource : std::uint8_t {
  kSingleNode,  // nothing could be read: one node holds everything
  kSysfs,       // read from /sys
  kHwloc,       // read from /sys, confirmed and refined by hwloc
  kXml,         // an hwloc XML file
  kSynthetic,   // an hwloc synthetic description
  kInherited,   // handed over by `numaheap run`
};
const char* topology_source_name(TopologySource source);

// What a node's memory is good for.
enum class NodeKind : std::uint8_t {
  kOrdinary,  // what the CPUs have beside them; the only kind that a node with CPUs can be
  kFast,      // high-bandwidth memory beside ordinary one: for those who ask
  kSlow,      // CXL, persistent memory, and memory-only nodes of which nobody knows more: helps out last
  kDevice,    // memory of a GPU: for those who name the node, and untouched until somebody does
};
const char* node_kind_name(NodeKind kind);  // "ordinary", "fast", "slow", "device"

// Why a node is of its kind.
enum class KindReason : std::uint8_t {
  kNone,  // nobody has said anything
  // What /sys or hwloc may call memory outright.
  kHighBandwidth,  // fast
  kCxl,            // slow
  kPersistent,     // slow
  kGpu,            // device
  // What Topology works out where nobody does.
  kCpus,         // ordinary: it has CPUs
  kPerformance,  // fast, slow or ordinary: its bandwidth and latency beside those of nodes with CPUs
  kTier,         // fast, slow or ordinary: its tier beside theirs
  kNoCpus,       // slow: it has no CPUs, and that is all that is known
};
const char* kind_reason_text(KindReason reason);  // "the kernel's memory tier"

// What memory can be asked for by.
enum class NodeQuality : std::uint8_t { kBandwidth, kLatency, kCapacity };

// What somebody says of a node's memory; zeros where he says nothing.
struct MemoryFacts {
  KindReason named = KindReason::kNone;  // what it is called outright: kNone .. kGpu
  std::uint8_t tier = 0;
  std::uint32_t bandwidth = 0;
  std::uint32_t latency = 0;
};

struct NodeInfo {
  int id = 0;                         // the kernel's number
  bool has_memory = false;
  std::uint8_t tier = 0;              // rank among the kernel's memory tiers, 1 = fastest; 0 = unknown
  KindReason named = KindReason::kNone;  // as in MemoryFacts
  NodeKind kind = NodeKind::kOrdinary;   // from finish() on, as is the reason
  KindReason reason = KindReason::kNone;
  std::uint32_t bandwidth = 0;        // MB/s from its nearest initiators, the mean of reads and writes; 0 = unknown
  std::uint32_t latency = 0;          // ns, likewise
  std::uint32_t cpus = 0;             // CPUs that belong to it; 0 for a memory-only node
  std::uint64_t memory_bytes = 0;     // may be 0 although has_memory, where the size could not be read

  NodeId node() const { return NodeId(id); }
  bool memory_only() const { return has_memory && cpus == 0; }
};

class Topology {
 public:
  // Nodes that count as having no memory, in every filling from now on.
  void leave_out(const NodeSet& nodes) { left_out_ = nodes; }
  const NodeSet& left_out() const { return left_out_; }
  // Whether the machine has any of them.
  bool leaves_out_nodes() const;

  // ---- filling: clear(), all nodes, then CPUs and distances, then finish() ------------------------------------------

  void clear();
  // Adds a node; false where it is known already, or past kMaxNodes nodes (then truncated() turns true).
  bool add_node(const NodeInfo& node);
  // Names a CPU that exists or may come to exist. One past kMaxCpus is left out (truncated() turns true).
  void add_possible_cpu(CpuId cpu);
  // Makes a CPU one of a node. The first node named for a CPU stays; false for an unknown node or CPU number.
  bool add_cpu(CpuId cpu, NodeId node);
  // As in the ACPI SLIT: 10 is a node's distance to itself. Unset distances are 10 within a node and 20 between two.
  void set_distance(NodeId from, NodeId to, std::uint8_t distance);
  // Adds what is known of a node's memory to what is known already; a node that is not one of ours does not matter.
  void describe_memory(NodeId node, const MemoryFacts& facts);
  // Works out kinds, and the order in which nodes are tried, with all nodes allowed. Where no node has memory the first
  // one (or a node 0, where there is none) is taken to have some, so that there always is a heap.
  void finish(TopologySource source);

  // ---- changes at run time -----------------------------------------------------------------------------------------

  // The nodes that cpuset and cgroup leave us (Mems_allowed). Others are tried last. A set that names none of our nodes
  // counts as all.
  void set_allowed(const NodeSet& nodes);
  // Takes over distances, tiers, names, bandwidths, latencies and memory sizes from a topology of the same machine, and
  // works out kinds anew. false, and nothing changed, where the other one has other nodes or its CPUs belong elsewhere:
  // heaps that exist cannot be renumbered.
  bool refine(const Topology& other);

  // Gives a CPU its node that belonged to none when this was filled: it was offline. A node that is not one of ours
  // counts as the first. Such a CPU is not among known_cpus().
  void settle_cpu(CpuId cpu, NodeId node);

  // ---- reading -----------------------------------------------------------------------------------------------------

  TopologySource source() const { return source_; }
  unsigned node_count() const { return node_count_; }
  // The number of nodes with memory, at least 1: HeapIds 0 .. heap_count() - 1 are theirs.
  unsigned heap_count() const { return heap_count_; }
  // Of those, how many help others out; at least 1. They are allowed and ordinary or slow; where no ordinary node is
  // allowed fast ones help, too, and device memory only where nothing else is allowed.
  unsigned helper_count() const { return helper_count_.load(std::memory_order_relaxed); }
  bool helps_out(HeapId heap) const { return helps_[heap.value].load(std::memory_order_relaxed); }
  const NodeInfo& node(unsigned index) const { return nodes_[index]; }
  NodeId node_of_heap(HeapId heap) const { return nodes_[heap.value].node(); }
  // The dense index of a node; node_count() where it is not one of ours.
  unsigned index_of(NodeId node) const;
  // The heap of a node; false where it has none (no memory, not ours).
  bool heap_of_node(NodeId node, HeapId* heap) const;

  // False for a CPU that belonged to no node when this was filled and has not been settled since.
  bool is_settled(CpuId cpu) const;
  // The node a CPU belongs to, memory or not. CPUs out of range and those that are not settled count as the first node's.
  NodeId node_of_cpu(CpuId cpu) const;
  // The heap that serves a CPU: its own node's, or the nearest one with memory that is allowed.
  HeapId heap_of_cpu(CpuId cpu) const;

  // The rank-th heap to try for a node, rank 0 .. heap_count() - 1. Rank 0 of an allowed node with memory is itself. The
  // first fallback_count() ranks are for everybody: itself and those that help out. The others serve those who name them:
  // allowed ones first. Among helpers, and among the others, ordinary nodes come first, then fast, slow and device
  // memory; of a kind by distance, at equal distance nodes with CPUs before those without, and then by number, counted
  // from the node's own number upwards and around, so that the neighbours of a full node do not all fall upon node 0.
  HeapId fallback(unsigned node_index, unsigned rank) const {
    return HeapId(order_[node_index][rank].load(std::memory_order_relaxed));
  }

  unsigned fallback_count(unsigned node_index) const;

  // The heaps that a request for bandwidth, latency or capacity tries, seen from a node, best first: out[0 .. result - 1],
  // room for heap_count(). All allowed ones but device memory; at least one. Nodes of one kind and tier are equally good, and
  // of those the nearest comes first: what a machine tells of a node holds for its own neighbourhood. How good a kind
  // is its best node says (sizes that differ by less than an eighth are equal); where not all tell, fast memory has the
  // most bandwidth and the least capacity, and ordinary memory the least latency.
  unsigned best_heaps(NodeQuality quality, unsigned node_index, HeapId* out) const;
  // Whether there is an allowed node of this kind.
  bool has_kind(NodeKind kind) const;

  // Between two dense indices.
  std::uint8_t distance(unsigned from, unsigned to) const;

  // The nodes with memory that are allowed, without memory-only ones or with all of them but device memory. Never empty:
  // where no others are allowed they are what there is.
  NodeSet allowed_nodes(bool with_memory_only) const;
  // Every allowed node with memory, device memory too: what a request may name.
  NodeSet requestable_nodes() const;
  bool is_allowed(NodeId node) const;

  // CPUs that may ever appear; what per-CPU arrays are sized by. possible_cpu_limit() is one past the highest, at least
  // 1.
  const CpuSet& possible_cpus() const { return possible_; }
  unsigned possible_cpu_limit() const { return cpu_limit_; }
  // CPUs known to belong to a node, and those of one node.
  const CpuSet& known_cpus() const { return known_; }
  CpuSet cpus_of_node(unsigned index) const;
  // The machine has more than kMaxNodes nodes or kMaxCpus CPUs, and some were left out.
  bool truncated() const { return truncated_; }

  // Audit: the arrays agree with each other.
  bool check() const;

 private:
  unsigned index_of_cpu(CpuId cpu) const {
    return CpuSet::holds(cpu) ? cpu_index_[cpu.value].load(std::memory_order_relaxed) : 0;
  }
  void settle_kinds();
  void settle_helpers();
  void compute_orders();
  void compute_order_of(unsigned node_index);
  // The place of a heap in a node's order as one number, the parts of the rule from the weightiest bits down.
  std::uint64_t order_key(unsigned node_index, unsigned h) const;

  TopologySource source_ = TopologySource::kSingleNode;
  bool truncated_ = false;
  unsigned node_count_ = 0;
  unsigned heap_count_ = 0;
  unsigned cpu_limit_ = 0;
  std::atomic<unsigned> helper_count_{0};
  NodeSet left_out_;
  CpuSet possible_;
  CpuSet known_;
  NodeInfo nodes_[kMaxNodes];                          // those with memory first, each part by number
  std::atomic<std::uint8_t> cpu_index_[kMaxCpus] = {};  // CPU -> dense index; 0 for CPUs that are not settled
  std::atomic<std::uint64_t> settled_later_[kMaxCpus / 64] = {};  // one bit per CPU
  std::uint8_t distance_[kMaxNodes][kMaxNodes] = {};   // 0 = not set
  std::atomic<bool> allowed_[kMaxNodes] = {};          // by HeapId
  std::atomic<bool> helps_[kMaxNodes] = {};
  std::atomic<std::uint8_t> order_[kMaxNodes][kMaxNodes] = {};
};

static_assert(kMaxNodes <= 256, "a dense index is one byte");
static_assert(sizeof(Topology) < 160 * KiB);

}  // namespace nh
