#include "numa/sysfs_topology.h"

#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "base/scan.h"
#include "numa/sysfs_file.h"
#include "numa/sysfs_memory.h"
#include "os/os.h"

namespace nh {
namespace {

// Lists of a fragmented machine can be long (8192 CPUs, every second one: 20 KiB).
constexpr std::size_t kFileBytes = 24 * KiB;
// Distances and the list of nodes, where little stack may be used.
constexpr std::size_t kSmallFileBytes = 2 * KiB;

// "Node 0 MemTotal:       24631280 kB"
std::uint64_t read_memory_bytes(SysfsFile& file, NodeId node) {
  if (!file.read_of_node(node, "meminfo")) return 0;
  std::string_view text = file.text();
  for (std::string_view line; take_line(&text, &line);) {
    const std::size_t at = line.find("MemTotal:");
    if (at == line.npos) continue;
    std::string_view value = trimmed(tail(line, at + 9));
    std::uint64_t kib = 0;
    if (!take_decimal(&value, &kib) || kib > ~std::uint64_t{0} / KiB) return 0;
    return kib * KiB;
  }
  return 0;
}

// Calls visit(to, distance) for each node that the file names a distance to: its i-th number stands for the i-th online
// node.
template <typename Visit>
void for_each_distance(SysfsFile& file, const NodeSet& online, NodeId from, Visit visit) {
  if (!file.read_of_node(from, "distance")) return;
  std::string_view text = trimmed(file.text());
  for (NodeId to = online.first(); to.valid(); to = online.next(NodeId(to.value + 1))) {
    std::uint64_t distance = 0;
    if (!take_decimal(&text, &distance)) return;
    if (distance >= 1 && distance <= 255) visit(to, static_cast<std::uint8_t>(distance));
    text = trimmed(text);
  }
}

// Of the nodes that the topology has, the one nearest to a node that it has not; the first where that is not known.
NodeId nearest_known(SysfsFile& file, const NodeSet& online, NodeId stranger, const Topology& topology) {
  NodeId nearest = topology.node(0).node();
  unsigned least = 256;
  for_each_distance(file, online, stranger, [&](NodeId to, std::uint8_t distance) {
    if (distance >= least || topology.index_of(to) >= topology.heap_count()) return;
    least = distance;
    nearest = to;
  });
  return nearest;
}

// Node directories tell as much where a kernel has no list of nodes.
bool read_online(SysfsFile& file, NodeSet* online) {
  if (file.read_nodes("/sys/devices/system/node/online", online) && !online->empty()) return true;
  *online = NodeSet();
  SysfsPath directory(file.root(), "/sys/devices/system/node");
  if (directory.truncated()) return false;
  for_each_entry(directory.c_str(), [](void* set, const char* name) {
    std::string_view text(name);
    std::uint64_t id = 0;
    if (take(&text, "node") && parse_number(text, &id) && id < NodeSet::kBits) {
      static_cast<NodeSet*>(set)->add(NodeId(static_cast<int>(id)));
    }
    return true;
  }, online);
  return !online->empty();
}

// The list after "<key>:" in /proc/self/status.
bool find_in_status(SysfsFile& file, std::string_view key, std::string_view* value) {
  if (!file.read("/proc/self/status")) return false;
  std::string_view text = file.text();
  for (std::string_view line; take_line(&text, &line);) {
    if (before(line, ':') != key) continue;
    *value = after(line, ':');
    return true;
  }
  return false;
}

bool read_allowed_nodes(SysfsFile& file, NodeSet* nodes) {
  *nodes = NodeSet();
  std::string_view list;
  return find_in_status(file, "Mems_allowed_list", &list) && parse_node_id_list(list, nodes);
}

// Which nodes have memory. Kernels without has_memory (it came with memory hotplug) have has_normal_memory; where
// neither can be read, sizes decide, and without those every node is taken to have some.
NodeSet read_nodes_with_memory(SysfsFile& file, const NodeSet& online) {
  NodeSet nodes;
  if (file.read_nodes("/sys/devices/system/node/has_memory", &nodes)) return nodes;
  if (file.read_nodes("/sys/devices/system/node/has_normal_memory", &nodes)) return nodes;
  nodes = NodeSet();
  for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
    if (read_memory_bytes(file, n) != 0) nodes.add(n);
  }
  return nodes.empty() ? online : nodes;
}

void read_possible_cpus(SysfsFile& file, Topology* topology) {
  CpuSet cpus;
  bool left_out = false;
  const bool known = (file.read("/sys/devices/system/cpu/possible") && parse_cpu_list(file.text(), &cpus, &left_out)) ||
                     (file.read("/sys/devices/system/cpu/present") && parse_cpu_list(file.text(), &cpus, &left_out));
  if (!known) return;
  if (left_out) topology->add_possible_cpu(CpuId(int{kMaxCpus}));
  for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) topology->add_possible_cpu(c);
}

// `home`: the node, or one that stands in for it.
void read_cpus_of_node(SysfsFile& file, NodeId node, NodeId home, Topology* topology) {
  CpuSet cpus;
  if (!file.read_of_node(node, "cpulist") || !parse_cpu_list(file.text(), &cpus)) return;
  for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) topology->add_cpu(c, home);
}

// The node that /sys names for a CPU; invalid where it names none.
NodeId read_node_of_cpu(const SysfsFile& file, CpuId cpu) {
  SysfsPath directory(file.root(), "/sys/devices/system/cpu/cpu");
  directory.dec(static_cast<std::uint64_t>(cpu.value));
  NodeId found;
  if (directory.truncated()) return found;
  for_each_entry(directory.c_str(), [](void* node, const char* name) {
    std::string_view text(name);
    std::uint64_t id = 0;
    if (!take(&text, "node") || !parse_number(text, &id) || id >= NodeSet::kBits) return true;
    *static_cast<NodeId*>(node) = NodeId(static_cast<int>(id));
    return false;
  }, &found);
  return found;
}

}  // namespace

bool read_boot_id(const SysfsRoot& root, BootId* id) {
  *id = BootId();
  Text<512> path;
  path.text(root.path).text("/proc/sys/kernel/random/boot_id");
  char text[64];
  if (path.truncated() || read_file(path.c_str(), text, sizeof text) < 0) return false;
  const std::string_view found = trimmed(text);
  if (found.size() != id->view().size()) return false;
  std::memcpy(id->text, found.data(), found.size());
  return true;
}

void load_sysfs_topology(const SysfsRoot& root, Topology* topology) {
  char buffer[kFileBytes];
  SysfsFile file(root, buffer, sizeof buffer);
  topology->clear();
  NodeSet online;
  const bool readable = read_online(file, &online);
  if (!readable) online = NodeSet::of(NodeId(0));
  const bool several = online.count() > 1;

  const NodeSet with_memory = several ? read_nodes_with_memory(file, online) : online;
  // Nodes with memory before the others, should there be too many.
  for (const bool has_memory : {true, false}) {
    for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
      if (with_memory.has(n) != has_memory) continue;
      NodeInfo node;
      node.id = n.value;
      node.has_memory = has_memory;
      // The only node of this machine has all of its memory, and that takes no file.
      const bool all = !several && root.path[0] == '\0';
      if (has_memory) node.memory_bytes = all ? machine_memory_bytes() : read_memory_bytes(file, n);
      topology->add_node(node);
    }
  }
  read_possible_cpus(file, topology);
  if (several) {
    for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
      const bool kept = topology->index_of(n) < topology->node_count();
      read_cpus_of_node(file, n, kept ? n : nearest_known(file, online, n, *topology), topology);
      if (!kept) continue;
      for_each_distance(file, online, n, [&](NodeId to, std::uint8_t d) { topology->set_distance(n, to, d); });
    }
    read_memory_of_nodes(file, topology);
  } else {
    const CpuSet all = topology->possible_cpus();
    for (CpuId c = all.first(); c.valid(); c = all.next(CpuId(c.value + 1))) topology->add_cpu(c, online.first());
  }
  topology->finish(readable ? TopologySource::kSysfs : TopologySource::kSingleNode);

  NodeSet allowed;
  if (several && read_allowed_nodes(file, &allowed)) topology->set_allowed(allowed);
}

void settle_cpu_by_sysfs(const SysfsRoot& root, CpuId cpu, Topology* topology) {
  char buffer[kSmallFileBytes];
  SysfsFile file(root, buffer, sizeof buffer);
  NodeId node = read_node_of_cpu(file, cpu);
  NodeSet online;
  const bool stranger = node.valid() && topology->index_of(node) == topology->node_count();
  if (stranger && read_online(file, &online)) node = nearest_known(file, online, node, *topology);
  topology->settle_cpu(cpu, node);
}

bool read_allowed_nodes(const SysfsRoot& root, NodeSet* nodes) {
  char buffer[kFileBytes];
  SysfsFile file(root, buffer, sizeof buffer);
  return read_allowed_nodes(file, nodes);
}

bool read_allowed_cpus(const SysfsRoot& root, CpuSet* cpus) {
  char buffer[kFileBytes];
  SysfsFile file(root, buffer, sizeof buffer);
  *cpus = CpuSet();
  std::string_view list;
  return find_in_status(file, "Cpus_allowed_list", &list) && parse_cpu_list(list, cpus);
}

}  // namespace nh
