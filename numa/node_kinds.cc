// What kind of memory each node has, who helps out, and which nodes are best for what.
#include <algorithm>
#include <bit>

#include "numa/topology.h"

namespace nh {
namespace {

constexpr unsigned kKinds = 4;
constexpr unsigned rank_of(NodeKind kind) { return static_cast<unsigned>(kind); }

NodeKind kind_named(KindReason named) {
  switch (named) {
    case KindReason::kHighBandwidth: return NodeKind::kFast;
    case KindReason::kGpu: return NodeKind::kDevice;
    default: return NodeKind::kSlow;
  }
}

// The nodes with CPUs, beside which the others are judged.
class Ordinary {
 public:
  void add(const NodeInfo& node) {
    bandwidth_ = std::max(bandwidth_, node.bandwidth);
    if (node.latency != 0) latency_ = std::min(latency_, node.latency);
    if (node.tier == 0) return;
    fastest_tier_ = std::min(fastest_tier_, node.tier);
    slowest_tier_ = std::max(slowest_tier_, node.tier);
  }

  void settle_kind(NodeInfo* node) const {
    if (!node->memory_only()) {
      set(node, NodeKind::kOrdinary, node->has_memory ? KindReason::kCpus : KindReason::kNone);
    } else if (node->named != KindReason::kNone) {
      set(node, kind_named(node->named), node->named);
    } else if (const int step = by_performance(*node); step != 0) {
      set(node, step > 0 ? NodeKind::kFast : NodeKind::kSlow, KindReason::kPerformance);
    } else if (node->tier != 0 && node->tier < fastest_tier_ && slowest_tier_ != 0) {
      set(node, NodeKind::kFast, KindReason::kTier);
    } else if (node->tier > slowest_tier_ && slowest_tier_ != 0) {
      set(node, NodeKind::kSlow, KindReason::kTier);
    } else if (is_comparable(*node)) {
      set(node, NodeKind::kOrdinary, KindReason::kPerformance);
    } else {
      // That its tier is the usual one means nothing: the kernel puts there what it knows nothing about.
      set(node, NodeKind::kSlow, KindReason::kNoCpus);
    }
  }

 private:
  static void set(NodeInfo* node, NodeKind kind, KindReason reason) {
    node->kind = kind;
    node->reason = reason;
  }
  bool is_comparable(const NodeInfo& node) const {
    return node.bandwidth != 0 && node.latency != 0 && bandwidth_ != 0 && latency_ != ~0u;
  }
  // 1 for clearly faster, -1 for clearly slower: by half as much. High-bandwidth memory may well have the longer latency.
  int by_performance(const NodeInfo& node) const {
    const std::uint64_t bandwidth = node.bandwidth, latency = node.latency;
    if (bandwidth != 0 && bandwidth_ != 0) {
      if (2 * bandwidth >= 3 * std::uint64_t{bandwidth_}) return 1;
      if (3 * bandwidth <= 2 * std::uint64_t{bandwidth_}) return -1;
    }
    return latency != 0 && latency_ != ~0u && 2 * latency >= 3 * std::uint64_t{latency_} ? -1 : 0;
  }

  std::uint32_t bandwidth_ = 0;
  std::uint32_t latency_ = ~0u;
  std::uint8_t fastest_tier_ = 255;
  std::uint8_t slowest_tier_ = 0;
};

// The larger the better; 0 where it is not known.
std::uint64_t worth_of(const NodeInfo& node, NodeQuality quality) {
  switch (quality) {
    case NodeQuality::kBandwidth: return node.bandwidth;
    case NodeQuality::kLatency: return node.latency != 0 ? ~std::uint64_t{0} - node.latency : 0;
    case NodeQuality::kCapacity: {
      // In steps of an eighth or so, upwards a little: firmware and kernel keep a part of what was bought.
      const std::uint64_t bytes = node.memory_bytes + node.memory_bytes / 16;
      const int shift = std::max(4, static_cast<int>(std::bit_width(bytes))) - 4;
      return bytes >> shift << shift;
    }
  }
  return 0;
}

// Where nobody tells figures: the better kind has the lower number.
unsigned usual_rank(NodeKind kind, NodeQuality quality) {
  // Rows in the order of NodeQuality, columns in that of NodeKind.
  static constexpr std::uint8_t kRanks[][kKinds] = {{1, 0, 2, 3}, {0, 1, 2, 3}, {1, 2, 0, 3}};
  return kRanks[static_cast<unsigned>(quality)][rank_of(kind)];
}

}  // namespace

const char* node_kind_name(NodeKind kind) {
  switch (kind) {
    case NodeKind::kOrdinary: return "ordinary";
    case NodeKind::kFast: return "fast";
    case NodeKind::kSlow: return "slow";
    case NodeKind::kDevice: return "device";
  }
  return "unknown";
}

const char* kind_reason_text(KindReason reason) {
  switch (reason) {
    case KindReason::kNone: return "nothing is known";
    case KindReason::kHighBandwidth: return "high-bandwidth memory";
    case KindReason::kCxl: return "CXL memory";
    case KindReason::kPersistent: return "persistent memory";
    case KindReason::kGpu: return "a GPU's memory";
    case KindReason::kCpus: return "it has CPUs";
    case KindReason::kPerformance: return "its bandwidth and latency";
    case KindReason::kTier: return "the kernel's memory tier";
    case KindReason::kNoCpus: return "it has no CPUs";
  }
  return "unknown";
}

void Topology::settle_kinds() {
  Ordinary ordinary;
  for (unsigned h = 0; h < heap_count_; h++) {
    if (!nodes_[h].memory_only()) ordinary.add(nodes_[h]);
  }
  for (unsigned i = 0; i < node_count_; i++) ordinary.settle_kind(&nodes_[i]);
}

void Topology::settle_helpers() {
  bool have[kKinds] = {};
  for (unsigned h = 0; h < heap_count_; h++) {
    if (allowed_[h].load(std::memory_order_relaxed)) have[rank_of(nodes_[h].kind)] = true;
  }
  const bool ordinary = have[rank_of(NodeKind::kOrdinary)];
  const bool no_others = !ordinary && !have[rank_of(NodeKind::kFast)] && !have[rank_of(NodeKind::kSlow)];
  unsigned count = 0;
  for (unsigned h = 0; h < heap_count_; h++) {
    bool helps = allowed_[h].load(std::memory_order_relaxed);
    if (nodes_[h].kind == NodeKind::kFast) helps &= !ordinary;
    if (nodes_[h].kind == NodeKind::kDevice) helps &= no_others;
    helps_[h].store(helps, std::memory_order_relaxed);
    count += helps;
  }
  helper_count_.store(count, std::memory_order_relaxed);
}

unsigned Topology::best_heaps(NodeQuality quality, unsigned node_index, HeapId* out) const {
  unsigned count = 0;
  for (unsigned h = 0; h < heap_count_; h++) {
    const HeapId heap(h);
    if (!allowed_[h].load(std::memory_order_relaxed)) continue;
    if (nodes_[h].kind != NodeKind::kDevice || helps_out(heap)) out[count++] = heap;
  }
  // What the best node of each one's kind and tier has.
  std::uint64_t worth[kMaxNodes] = {};
  bool all_known = true;
  for (unsigned i = 0; i < count; i++) {
    const NodeInfo& node = nodes_[out[i].value];
    std::uint64_t best = 0;
    for (unsigned j = 0; j < count; j++) {
      const NodeInfo& alike = nodes_[out[j].value];
      if (alike.kind == node.kind && alike.tier == node.tier) best = std::max(best, worth_of(alike, quality));
    }
    worth[out[i].value] = best;
    all_known &= best != 0;
  }
  std::sort(out, out + count, [&](HeapId a, HeapId b) {
    const NodeInfo& x = nodes_[a.value];
    const NodeInfo& y = nodes_[b.value];
    if (all_known && worth[a.value] != worth[b.value]) return worth[a.value] > worth[b.value];
    const unsigned kind_x = usual_rank(x.kind, quality), kind_y = usual_rank(y.kind, quality);
    if (kind_x != kind_y) return kind_x < kind_y;
    if (x.tier != y.tier) return x.tier < y.tier;
    return order_key(node_index, a.value) < order_key(node_index, b.value);
  });
  return count;
}

bool Topology::has_kind(NodeKind kind) const {
  for (unsigned h = 0; h < heap_count_; h++) {
    if (nodes_[h].kind == kind && allowed_[h].load(std::memory_order_relaxed)) return true;
  }
  return false;
}

}  // namespace nh
