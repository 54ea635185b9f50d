#include "numa/topology_text.h"

#include "base/scan.h"
#include "numa/cpu_list.h"

namespace nh {
namespace {

bool take_small(std::string_view* s, std::uint64_t max, std::uint64_t* value) {
  return take_decimal(s, value) && *value <= max;
}

// What stands before the next `separator`, which is removed too; the rest where there is none.
std::string_view take_part(std::string_view* s, char separator) {
  const std::string_view part = before(*s, separator);
  *s = tail(*s, part.size() + 1);
  return part;
}

struct NodeText {
  NodeInfo info;
  std::string_view cpus;
};

bool parse_node(std::string_view s, NodeText* node) {
  constexpr std::uint64_t kMaxName = static_cast<std::uint64_t>(KindReason::kGpu), kMaxFigure = ~std::uint32_t{0};
  std::uint64_t id = 0, kib = 0, tier = 0, name = 0, bandwidth = 0, latency = 0;
  if (!take(&s, "n") || !take_small(&s, NodeSet::kBits - 1, &id) || !take(&s, ":")) return false;
  if (!take_small(&s, ~std::uint64_t{0} / KiB, &kib) || !take(&s, ":")) return false;
  const bool has_memory = take(&s, "m");
  if ((!has_memory && !take(&s, "-")) || !take(&s, ":")) return false;
  if (!take_small(&s, 255, &tier) || !take(&s, ":") || !take_small(&s, kMaxName, &name)) return false;
  if (take(&s, ",") && (!take_small(&s, kMaxFigure, &bandwidth) || !take(&s, ",") || !take_small(&s, kMaxFigure, &latency))) {
    return false;
  }
  if (!take(&s, ":")) return false;
  node->info.id = static_cast<int>(id);
  node->info.has_memory = has_memory;
  node->info.memory_bytes = kib * KiB;
  node->info.tier = static_cast<std::uint8_t>(tier);
  node->info.named = static_cast<KindReason>(name);
  node->info.bandwidth = static_cast<std::uint32_t>(bandwidth);
  node->info.latency = static_cast<std::uint32_t>(latency);
  node->cpus = s;
  return true;
}

// What stands before the possible CPUs.
struct Head {
  bool real = false;
  std::string_view boot_id;  // empty where there is none
};

bool take_head(std::string_view* s, Head* found) {
  if (!take(s, kTopologyTextPrefix)) return false;
  const std::string_view origin = take_part(s, '/');
  if (origin != "r" && origin != "d") return false;
  found->real = origin == "r";
  if (!take(s, "b")) return true;
  found->boot_id = take_part(s, '/');
  return found->boot_id.size() == BootId().view().size();
}

// ids: the nodes in the order of the text.
bool parse_distances(std::string_view s, const int* ids, unsigned count, Topology* topology) {
  const unsigned cells = count * count;
  unsigned cell = 0;
  while (cell < cells) {
    std::uint64_t distance = 0, times = 1;
    if (!take_small(&s, 255, &distance) || distance == 0) return false;
    if (take(&s, "x") && (!take_small(&s, cells - cell, &times) || times == 0)) return false;
    for (; times > 0; times--, cell++) {
      topology->set_distance(NodeId(ids[cell / count]), NodeId(ids[cell % count]), static_cast<std::uint8_t>(distance));
    }
    if (cell < cells && !take(&s, ",")) return false;
  }
  return s.empty();
}

}  // namespace

void write_topology_text(TextWriter& out, const Topology& topology, std::string_view boot_id) {
  const TopologySource source = topology.source();
  const bool described = source == TopologySource::kXml || source == TopologySource::kSynthetic;
  out.text(kTopologyTextPrefix).ch(described ? 'd' : 'r');
  if (!boot_id.empty()) out.text("/b").text(boot_id);
  out.text("/p");
  write_cpu_list(out, topology.possible_cpus());
  const unsigned count = topology.node_count();
  for (unsigned i = 0; i < count; i++) {
    const NodeInfo& node = topology.node(i);
    out.text("/n").dec(static_cast<std::uint64_t>(node.id)).ch(':').dec(node.memory_bytes / KiB);
    out.text(node.has_memory ? ":m:" : ":-:").dec(node.tier).ch(':').dec(static_cast<std::uint64_t>(node.named));
    if (node.bandwidth != 0 || node.latency != 0) out.ch(',').dec(node.bandwidth).ch(',').dec(node.latency);
    out.ch(':');
    write_cpu_list(out, topology.cpus_of_node(i));
  }
  out.text("/d");
  const unsigned cells = count * count;
  for (unsigned cell = 0; cell < cells;) {
    const auto at = [&](unsigned n) { return topology.distance(n / count, n % count); };
    const std::uint8_t distance = at(cell);
    unsigned times = 1;
    while (cell + times < cells && at(cell + times) == distance) times++;
    if (cell != 0) out.ch(',');
    out.dec(distance);
    if (times > 1) out.ch('x').dec(times);
    cell += times;
  }
}

bool is_of_another_machine(std::string_view text, const SysfsRoot& root) {
  Head found;
  if (!take_head(&text, &found) || found.boot_id.empty()) return false;
  BootId ours;
  return !read_boot_id(root, &ours) || found.boot_id != ours.view();
}

bool parse_topology_text(std::string_view text, Topology* topology, bool* real) {
  topology->clear();
  Head found;
  if (!take_head(&text, &found)) return false;
  *real = found.real;
  std::string_view possible = take_part(&text, '/');
  CpuSet cpus;
  bool left_out = false;
  if (!take(&possible, "p") || !parse_cpu_list(possible, &cpus, &left_out)) return false;
  if (left_out) topology->add_possible_cpu(CpuId(int{kMaxCpus}));
  for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) topology->add_possible_cpu(c);

  // Nodes are added before any CPU: two walks over the node parts.
  const std::string_view node_parts = text;
  int ids[kMaxNodes];
  unsigned count = 0;
  NodeText node;
  while (!text.empty() && text.front() == 'n') {
    if (count == kMaxNodes || !parse_node(take_part(&text, '/'), &node) || !topology->add_node(node.info)) return false;
    ids[count++] = node.info.id;
  }
  if (count == 0) return false;
  std::string_view again = node_parts;
  for (unsigned i = 0; i < count; i++) {
    node = NodeText();
    if (!parse_node(take_part(&again, '/'), &node) || !parse_cpu_list(node.cpus, &cpus)) return false;
    for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) {
      if (!topology->add_cpu(c, node.info.node())) return false;
    }
  }
  if (!take(&text, "d") || !parse_distances(text, ids, count, topology)) return false;
  topology->finish(TopologySource::kInherited);
  return true;
}

bool load_serialised_topology(std::string_view text, const SysfsRoot& root, Topology* topology, TextWriter* why) {
  bool real = false;
  if (!parse_topology_text(text, topology, &real)) {
    why->text("malformed topology text");
    return false;
  }
  NodeSet allowed;
  if (real && topology->heap_count() > 1 && read_allowed_nodes(root, &allowed)) topology->set_allowed(allowed);
  return true;
}

}  // namespace nh
