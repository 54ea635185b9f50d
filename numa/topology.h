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

// What a node's memory is made of, where somebody knows.
enum class MemoryKind : std::uint8_t { kUnknown, kDram, kHighBandwidth, kPersistent, kCxl };
const char* memory_kind_name(MemoryKind kind);

struct NodeInfo {
  int id = 0;                      // the kernel's number
  bool has_memory = false;
  std::uint8_t tier = 0;           // rank among the kernel's memory tiers, 1 = fastest; 0 = unknown
  MemoryKind kind = MemoryKind::kUnknown;
  std::uint32_t cpus = 0;          // CPUs that belong to it; 0 for a memory-only node
  std::uint64_t memory_bytes = 0;  // may be 0 although has_memory, where the size could not be read

  NodeId node() const { return NodeId(id); }
  // High-bandwidth and CXL memory comes as nodes without CPUs: their heaps serve only those who ask, and otherwise wait
  // for their turn in the fallback order.
  bool memory_only() const { return has_memory && cpus == 0; }
};

class Topology {
 public:
  // ---- filling: clear(), all nodes, then CPUs and distances, then finish() ------------------------------------------

  void clear();
  // Adds a node; false where it is known already, or past kMaxNodes nodes (then truncated() turns true).
  bool add_node(const NodeInfo& node);
  // Names a CPU that exists or may come to exist. CPUs past kMaxCpus are left out.
  void add_possible_cpu(CpuId cpu);
  // Makes a CPU one of a node. The first node named for a CPU stays; false for an unknown node or CPU number.
  bool add_cpu(CpuId cpu, NodeId node);
  // As in the ACPI SLIT: 10 is a node's distance to itself. Unset distances are 10 within a node and 20 between two.
  void set_distance(NodeId from, NodeId to, std::uint8_t distance);
  // Works out the order in which nodes are tried, with all nodes allowed. Where no node has memory the first one (or a
  // node 0, where there is none) is taken to have some, so that there always is a heap.
  void finish(TopologySource source);

  // ---- changes at run time -----------------------------------------------------------------------------------------

  // The nodes that cpuset and cgroup leave us (Mems_allowed). Others are tried last. A set that names none of our nodes
  // counts as all.
  void set_allowed(const NodeSet& nodes);
  // Takes over distances, tiers, kinds and memory sizes from a topology of the same machine. false, and nothing
  // changed, where the other one has other nodes or its CPUs belong elsewhere: heaps that exist cannot be renumbered.
  bool refine(const Topology& other);

  // Gives a CPU its node that belonged to none when this was filled: it was offline. A node that is not one of ours
  // counts as the first. Such a CPU is not among known_cpus().
  void settle_cpu(CpuId cpu, NodeId node);

  // ---- reading -----------------------------------------------------------------------------------------------------

  TopologySource source() const { return source_; }
  unsigned node_count() const { return node_count_; }
  // The number of nodes with memory, at least 1: HeapIds 0 .. heap_count() - 1 are theirs.
  unsigned heap_count() const { return heap_count_; }
  // Of those, how many are allowed; at least 1.
  unsigned allowed_heap_count() const { return allowed_heap_count_.load(std::memory_order_relaxed); }
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

  // The rank-th heap to try for a node, rank 0 .. heap_count() - 1. Rank 0 of an allowed node with memory is itself.
  // The first allowed_heap_count() ranks are the allowed heaps, by distance; at equal distance ordinary nodes before
  // memory-only ones, and then by number, counted from the node's own number upwards and around, so that the neighbours
  // of a full node do not all fall upon node 0.
  HeapId fallback(unsigned node_index, unsigned rank) const {
    return HeapId(order_[node_index][rank].load(std::memory_order_relaxed));
  }

  // Between two dense indices.
  std::uint8_t distance(unsigned from, unsigned to) const;

  // The nodes with memory that are allowed; with memory-only ones or without. Never empty: where only memory-only nodes
  // are allowed they are what there is.
  NodeSet allowed_nodes(bool with_memory_only) const;
  bool is_allowed(NodeId node) const;

  // CPUs that may ever appear; what per-CPU arrays are sized by. possible_cpu_limit() is one past the highest, at least
  // 1.
  const CpuSet& possible_cpus() const { return possible_; }
  unsigned possible_cpu_limit() const { return cpu_limit_; }
  // CPUs known to belong to a node, and those of one node.
  const CpuSet& known_cpus() const { return known_; }
  CpuSet cpus_of_node(unsigned index) const;
  // The machine has more nodes than kMaxNodes, and some were left out.
  bool truncated() const { return truncated_; }

  // Audit: the arrays agree with each other.
  bool check() const;

 private:
  unsigned index_of_cpu(CpuId cpu) const {
    return CpuSet::holds(cpu) ? cpu_index_[cpu.value].load(std::memory_order_relaxed) : 0;
  }
  void compute_orders();
  void compute_order_of(unsigned node_index);

  TopologySource source_ = TopologySource::kSingleNode;
  bool truncated_ = false;
  unsigned node_count_ = 0;
  unsigned heap_count_ = 0;
  unsigned cpu_limit_ = 0;
  std::atomic<unsigned> allowed_heap_count_{0};
  CpuSet possible_;
  CpuSet known_;
  NodeInfo nodes_[kMaxNodes];                          // those with memory first, each part by number
  std::atomic<std::uint8_t> cpu_index_[kMaxCpus] = {};  // CPU -> dense index; 0 for CPUs that are not settled
  std::atomic<std::uint64_t> settled_later_[kMaxCpus / 64] = {};  // one bit per CPU
  std::uint8_t distance_[kMaxNodes][kMaxNodes] = {};   // 0 = not set
  std::atomic<bool> allowed_[kMaxNodes] = {};          // by HeapId
  std::atomic<std::uint8_t> order_[kMaxNodes][kMaxNodes] = {};
};

static_assert(kMaxNodes <= 256, "a dense index is one byte");
static_assert(sizeof(Topology) < 160 * KiB);

}  // namespace nh
