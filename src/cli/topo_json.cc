#include "cli/topo_json.h"

#include "numa/cpu_list.h"

namespace nh::cli {
namespace {

// [0, 2, 1]: the nodes of heap(0) .. heap(count - 1).
template <typename HeapAt>
void write_heaps(TextWriter& out, const Topology& topology, unsigned count, HeapAt heap) {
  out.ch('[');
  for (unsigned i = 0; i < count; i++) {
    if (i != 0) out.text(", ");
    out.dec(static_cast<std::uint64_t>(topology.node_of_heap(heap(i)).value));
  }
  out.ch(']');
}

void write_node(TextWriter& out, const Topology& topology, unsigned index) {
  const NodeInfo& node = topology.node(index);
  out.text("    {\"node\": ").dec(static_cast<std::uint64_t>(node.id));
  out.text(", \"kind\": ").json_string(node.has_memory ? node_kind_name(node.kind) : "no memory");
  out.text(", \"reason\": ").json_string(node.has_memory ? kind_reason_text(node.reason) : "");
  out.text(", \"role\": ").json_string(role_text(topology, index));
  // 0 where it is not known.
  out.text(", \"tier\": ").dec(node.tier).text(", \"bandwidth_mb_per_s\": ").dec(node.bandwidth);
  out.text(", \"latency_ns\": ").dec(node.latency).text(", \"memory_bytes\": ").dec(node.memory_bytes);
  out.text(", \"cpus\": \"");
  write_cpu_list(out, topology.cpus_of_node(index));
  out.text("\",\n     \"distances\": [");
  for (unsigned to = 0; to < topology.node_count(); to++) out.text(to != 0 ? ", " : "").dec(topology.distance(index, to));
  out.text("],\n     \"fallback\": ");
  write_heaps(out, topology, topology.fallback_count(index), [&](unsigned rank) { return topology.fallback(index, rank); });
  for (const NodeQuality quality : kQualities) {
    HeapId heaps[kMaxNodes];
    const unsigned count = topology.best_heaps(quality, index, heaps);
    out.text(", \"best_").text(quality_name(quality)).text("\": ");
    write_heaps(out, topology, count, [&](unsigned i) { return heaps[i]; });
  }
  out.ch('}');
}

}  // namespace

const char* quality_name(NodeQuality quality) {
  switch (quality) {
    case NodeQuality::kBandwidth: return "bandwidth";
    case NodeQuality::kLatency: return "latency";
    case NodeQuality::kCapacity: return "capacity";
  }
  return "";
}

const char* role_text(const Topology& topology, unsigned index) {
  const NodeInfo& node = topology.node(index);
  if (topology.left_out().has(node.node())) return "left out by NUMAHEAP_NODES";
  if (!node.has_memory) return "no memory: its CPUs use the nearest node that has some";
  if (!topology.is_allowed(node.node())) return "not to be had: a cpuset forbids it, or its memory is offline";
  if (!topology.helps_out(HeapId(index))) return "for those who ask for it, and no help to others";
  return node.kind == NodeKind::kSlow ? "helps others last" : "helps others by distance";
}

void write_topology_json(TextWriter& out, const Topology& topology) {
  out.text("{\n  \"source\": ").json_string(topology_source_name(topology.source()));
  out.text(",\n  \"truncated\": ").text(topology.truncated() ? "true" : "false");
  out.text(",\n  \"known_cpus\": ").dec(topology.known_cpus().count());
  out.text(",\n  \"possible_cpus\": ").dec(topology.possible_cpus().count()).text(",\n  \"nodes\": [\n");
  for (unsigned i = 0; i < topology.node_count(); i++) {
    if (i != 0) out.text(",\n");
    write_node(out, topology, i);
  }
  out.text("\n  ]\n}\n");
}

}  // namespace nh::cli
