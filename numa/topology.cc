#include "numa/topology.h"

#include <algorithm>
#include <cstring>

namespace nh {
namespace {

constexpr std::uint8_t kLocalDistance = 10;
constexpr std::uint8_t kRemoteDistance = 20;

bool stands_before(const NodeInfo& a, const NodeInfo& b) {
  if (a.has_memory != b.has_memory) return a.has_memory;
  return a.id < b.id;
}

}  // namespace

const char* topology_source_name(TopologySource source) {
  switch (source) {
    case TopologySource::kSingleNode: return "single-node";
    case TopologySource::kSysfs: return "sysfs";
    case TopologySource::kHwloc: return "hwloc";
    case TopologySource::kXml: return "xml";
    case TopologySource::kSynthetic: return "synthetic";
    case TopologySource::kInherited: return "inherited";
  }
  return "unknown";
}

void Topology::clear() {
  // Row by row, as far as the last machine filled it: a blanket memset would touch all pages of the arrays.
  for (unsigned i = 0; i < node_count_; i++) {
    std::memset(distance_[i], 0, sizeof distance_[i]);
    for (unsigned rank = 0; rank < heap_count_; rank++) order_[i][rank].store(0, std::memory_order_relaxed);
    allowed_[i].store(false, std::memory_order_relaxed);
    helps_[i].store(false, std::memory_order_relaxed);
    nodes_[i] = NodeInfo();
  }
  for (int cpu = 0; cpu < static_cast<int>(cpu_limit_); cpu++) {
    if (index_of_cpu(CpuId(cpu)) != 0) cpu_index_[cpu].store(0, std::memory_order_relaxed);
  }
  for (auto& word : settled_later_) {
    if (word.load(std::memory_order_relaxed) != 0) word.store(0, std::memory_order_relaxed);
  }
  possible_ = known_ = CpuSet();
  source_ = TopologySource::kSingleNode;
  truncated_ = false;
  node_count_ = heap_count_ = cpu_limit_ = 0;
  helper_count_.store(0, std::memory_order_relaxed);
}

bool Topology::add_node(const NodeInfo& as_found) {
  NodeInfo node = as_found;
  node.has_memory &= !left_out_.has(node.node());
  node.cpus = 0;
  if (node.id < 0 || node.id >= int{NodeSet::kBits} || index_of(node.node()) < node_count_) return false;
  if (node_count_ == kMaxNodes) {
    truncated_ = true;
    return false;
  }
  unsigned at = node_count_++;
  for (; at > 0 && stands_before(node, nodes_[at - 1]); at--) nodes_[at] = nodes_[at - 1];
  nodes_[at] = node;
  if (node.has_memory) heap_count_++;
  return true;
}

bool Topology::leaves_out_nodes() const {
  for (unsigned i = 0; i < node_count_; i++) {
    if (left_out_.has(nodes_[i].node())) return true;
  }
  return false;
}

void Topology::add_possible_cpu(CpuId cpu) {
  if (!CpuSet::holds(cpu)) {
    truncated_ = true;
    return;
  }
  possible_.add(cpu);
  cpu_limit_ = std::max(cpu_limit_, static_cast<unsigned>(cpu.value) + 1);
}

bool Topology::add_cpu(CpuId cpu, NodeId node) {
  const unsigned index = index_of(node);
  if (!CpuSet::holds(cpu) || index == node_count_ || known_.has(cpu)) return false;
  known_.add(cpu);
  add_possible_cpu(cpu);
  nodes_[index].cpus++;
  // Index 0 stands there already: do not touch the page for it.
  if (index != 0) cpu_index_[cpu.value].store(static_cast<std::uint8_t>(index), std::memory_order_relaxed);
  return true;
}

void Topology::set_distance(NodeId from, NodeId to, std::uint8_t distance) {
  const unsigned i = index_of(from);
  const unsigned j = index_of(to);
  if (i < node_count_ && j < node_count_) distance_[i][j] = distance;
}

void Topology::describe_memory(NodeId node, const MemoryFacts& facts) {
  const unsigned index = index_of(node);
  if (index == node_count_) return;
  NodeInfo& ours = nodes_[index];
  if (facts.named != KindReason::kNone) ours.named = facts.named;
  if (facts.tier != 0) ours.tier = facts.tier;
  if (facts.bandwidth != 0) ours.bandwidth = facts.bandwidth;
  if (facts.latency != 0) ours.latency = facts.latency;
}

void Topology::finish(TopologySource source) {
  if (node_count_ == 0) {
    NodeInfo only;
    only.has_memory = true;
    add_node(only);
  }
  if (heap_count_ == 0) {
    nodes_[0].has_memory = true;
    heap_count_ = 1;
  }
  if (cpu_limit_ == 0) add_possible_cpu(CpuId(0));
  source_ = source;
  settle_kinds();
  set_allowed(NodeSet());
}

void Topology::set_allowed(const NodeSet& nodes) {
  unsigned count = 0;
  for (unsigned h = 0; h < heap_count_; h++) count += nodes.has(nodes_[h].node());
  for (unsigned h = 0; h < heap_count_; h++) {
    allowed_[h].store(count == 0 || nodes.has(nodes_[h].node()), std::memory_order_relaxed);
  }
  settle_helpers();
  compute_orders();
}

bool Topology::is_settled(CpuId cpu) const {
  if (!CpuSet::holds(cpu) || known_.has(cpu)) return true;
  const auto at = static_cast<unsigned>(cpu.value);
  return (settled_later_[at / 64].load(std::memory_order_acquire) >> at % 64 & 1) != 0;
}

void Topology::settle_cpu(CpuId cpu, NodeId node) {
  if (is_settled(cpu)) return;
  const unsigned index = index_of(node);
  const auto at = static_cast<unsigned>(cpu.value);
  cpu_index_[at].store(static_cast<std::uint8_t>(index < node_count_ ? index : 0), std::memory_order_relaxed);
  // release: whoever sees the bit sees the index. Two threads at once have found out the same.
  settled_later_[at / 64].fetch_or(std::uint64_t{1} << at % 64, std::memory_order_release);
}

bool Topology::refine(const Topology& other) {
  if (other.node_count_ != node_count_ || other.heap_count_ != heap_count_) return false;
  for (unsigned i = 0; i < node_count_; i++) {
    if (nodes_[i].id != other.nodes_[i].id) return false;
  }
  for (CpuId c = known_.first(); c.valid(); c = known_.next(CpuId(c.value + 1))) {
    // One of the two may not know a CPU (it is offline): no contradiction.
    if (other.known_.has(c) && index_of_cpu(c) != other.index_of_cpu(c)) return false;
  }
  for (unsigned i = 0; i < node_count_; i++) {
    const NodeInfo& theirs = other.nodes_[i];
    if (theirs.memory_bytes != 0) nodes_[i].memory_bytes = theirs.memory_bytes;
    describe_memory(theirs.node(), {theirs.named, theirs.tier, theirs.bandwidth, theirs.latency});
    for (unsigned j = 0; j < node_count_; j++) {
      if (other.distance_[i][j] != 0) distance_[i][j] = other.distance_[i][j];
    }
  }
  source_ = other.source_;
  settle_kinds();
  settle_helpers();
  compute_orders();
  return true;
}

void Topology::compute_orders() {
  for (unsigned i = 0; i < node_count_; i++) compute_order_of(i);
}

std::uint64_t Topology::order_key(unsigned node_index, unsigned h) const {
  const std::uint64_t denied = allowed_[h].load(std::memory_order_relaxed) ? 0 : 1;
  const std::uint64_t other = h == node_index ? 0 : 1;
  const std::uint64_t on_request = helps_out(HeapId(h)) ? 0 : 1;
  const auto kind = static_cast<std::uint64_t>(nodes_[h].kind);
  const std::uint64_t far = distance(node_index, h);
  const std::uint64_t memory_only = nodes_[h].memory_only() ? 1 : 0;
  const auto steps_up = static_cast<std::uint64_t>(nodes_[h].id - nodes_[node_index].id) % NodeSet::kBits;
  return denied << 48 | other << 44 | on_request << 40 | kind << 36 | far << 28 | memory_only << 24 | steps_up << 8 | h;
}

void Topology::compute_order_of(unsigned node_index) {
  std::uint64_t keys[kMaxNodes];
  for (unsigned h = 0; h < heap_count_; h++) keys[h] = order_key(node_index, h);
  std::sort(keys, keys + heap_count_);
  for (unsigned rank = 0; rank < heap_count_; rank++) {
    order_[node_index][rank].store(static_cast<std::uint8_t>(keys[rank] & 0xff), std::memory_order_relaxed);
  }
}

unsigned Topology::fallback_count(unsigned node_index) const {
  const bool serves_itself = node_index < heap_count_ && allowed_[node_index].load(std::memory_order_relaxed);
  return helper_count() + (serves_itself && !helps_out(HeapId(node_index)) ? 1 : 0);
}

unsigned Topology::index_of(NodeId node) const {
  for (unsigned i = 0; i < node_count_; i++) {
    if (nodes_[i].id == node.value) return i;
  }
  return node_count_;
}

bool Topology::heap_of_node(NodeId node, HeapId* heap) const {
  const unsigned index = index_of(node);
  if (index >= heap_count_) return false;
  *heap = HeapId(index);
  return true;
}

NodeId Topology::node_of_cpu(CpuId cpu) const {
  return nodes_[index_of_cpu(cpu)].node();
}

HeapId Topology::heap_of_cpu(CpuId cpu) const {
  return fallback(index_of_cpu(cpu), 0);
}

std::uint8_t Topology::distance(unsigned from, unsigned to) const {
  const std::uint8_t known = distance_[from][to];
  if (known != 0) return known;
  return from == to ? kLocalDistance : kRemoteDistance;
}

bool Topology::is_allowed(NodeId node) const {
  HeapId heap;
  return heap_of_node(node, &heap) && allowed_[heap.value].load(std::memory_order_relaxed);
}

NodeSet Topology::allowed_nodes(bool with_memory_only) const {
  NodeSet with_cpus, host, all;
  for (unsigned h = 0; h < heap_count_; h++) {
    const NodeInfo& node = nodes_[h];
    if (!allowed_[h].load(std::memory_order_relaxed)) continue;
    all.add(node.node());
    if (node.kind != NodeKind::kDevice) host.add(node.node());
    if (!node.memory_only()) with_cpus.add(node.node());
  }
  if (!with_memory_only && !with_cpus.empty()) return with_cpus;
  return host.empty() ? all : host;
}

NodeSet Topology::requestable_nodes() const {
  NodeSet nodes;
  for (unsigned h = 0; h < heap_count_; h++) {
    if (allowed_[h].load(std::memory_order_relaxed)) nodes.add(nodes_[h].node());
  }
  return nodes;
}

CpuSet Topology::cpus_of_node(unsigned index) const {
  CpuSet cpus;
  for (CpuId c = known_.first(); c.valid(); c = known_.next(CpuId(c.value + 1))) {
    if (index_of_cpu(c) == index) cpus.add(c);
  }
  return cpus;
}

bool Topology::check() const {
  if (node_count_ == 0 || node_count_ > kMaxNodes || heap_count_ == 0 || heap_count_ > node_count_) return false;
  std::uint64_t cpus = 0;
  for (unsigned i = 0; i < node_count_; i++) {
    if (nodes_[i].has_memory != (i < heap_count_)) return false;
    if (i > 0 && !stands_before(nodes_[i - 1], nodes_[i])) return false;
    if (cpus_of_node(i).count() != nodes_[i].cpus) return false;
    cpus += nodes_[i].cpus;
  }
  if (cpus != known_.count()) return false;
  for (CpuId c = known_.first(); c.valid(); c = known_.next(CpuId(c.value + 1))) {
    if (!possible_.has(c)) return false;
  }
  if (cpu_limit_ == 0 || !possible_.has(CpuId(static_cast<int>(cpu_limit_) - 1))) return false;
  if (possible_.next(CpuId(static_cast<int>(cpu_limit_))).valid()) return false;
  if (helper_count() == 0 || helper_count() > heap_count_) return false;
  // Every order names every heap once: its own node's, those that help out, other allowed ones, the rest.
  for (unsigned i = 0; i < node_count_; i++) {
    bool seen[kMaxNodes] = {};
    std::uint64_t before = 0;
    for (unsigned rank = 0; rank < heap_count_; rank++) {
      const unsigned h = fallback(i, rank).value;
      if (h >= heap_count_ || seen[h] || order_key(i, h) < before) return false;
      seen[h] = true;
      before = order_key(i, h);
      if ((rank < fallback_count(i)) != (helps_out(HeapId(h)) || (h == i && allowed_[h].load(std::memory_order_relaxed)))) {
        return false;
      }
    }
    if (nodes_[i].kind != NodeKind::kOrdinary && !nodes_[i].memory_only()) return false;
  }
  return true;
}

}  // namespace nh
