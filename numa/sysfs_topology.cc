#include "numa/sysfs_topology.h"

#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "base/scan.h"
#include "numa/cpu_list.h"
#include "os/os.h"
#include "os/procfs.h"

namespace nh {
namespace {

// Lists of a fragmented machine can be long (8192 CPUs, every second one: 20 KiB). Longer text is cut, which shows as a
// malformed or shorter list.
constexpr std::size_t kFileBytes = 24 * KiB;

// One file of the tree at a time. On the stack: a heap does not exist yet.
class File {
 public:
  explicit File(const SysfsRoot& root) : root_(root) {}

  // The text of <root><path>; false where it cannot be read.
  bool read(std::string_view path) {
    Text<512> full;
    full.text(root_.path).text(path);
    return !full.truncated() && read_path(full.c_str());
  }
  // The same for /sys/devices/system/node/node<id>/<name>.
  bool read_of_node(NodeId node, std::string_view name) {
    Text<512> full;
    full.text(root_.path).text("/sys/devices/system/node/node").dec(static_cast<std::uint64_t>(node.value));
    full.ch('/').text(name);
    return !full.truncated() && read_path(full.c_str());
  }
  std::string_view text() const { return {buffer_, size_}; }

 private:
  bool read_path(const char* path) {
    const long n = read_file(path, buffer_, sizeof buffer_);
    size_ = n > 0 ? static_cast<std::size_t>(n) : 0;
    return n >= 0;
  }

  const SysfsRoot& root_;
  std::size_t size_ = 0;
  char buffer_[kFileBytes];
};

bool read_node_list(File& file, std::string_view path, NodeSet* nodes) {
  return file.read(path) && parse_node_id_list(file.text(), nodes);
}

// "Node 0 MemTotal:       24631280 kB"
std::uint64_t read_memory_bytes(File& file, NodeId node) {
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

// The i-th number of the file stands for the i-th online node.
void read_distances(File& file, const NodeSet& online, NodeId from, Topology* topology) {
  if (!file.read_of_node(from, "distance")) return;
  std::string_view text = trimmed(file.text());
  for (NodeId to = online.first(); to.valid(); to = online.next(NodeId(to.value + 1))) {
    std::uint64_t distance = 0;
    if (!take_decimal(&text, &distance)) return;
    if (distance >= 1 && distance <= 255) topology->set_distance(from, to, static_cast<std::uint8_t>(distance));
    text = trimmed(text);
  }
}

// The kernel's tiers (since 6.1): memory_tier<N>, a lower N being faster memory. Which N exist varies; the rank counts.
struct Tiers {
  static constexpr unsigned kMax = 16;
  NodeSet nodes[kMax];
  unsigned count = 0;

  void read(File& file) {
    // Abstract distances start at 0 and the usual DRAM tier is 4; device tiers lie within a few hundred.
    constexpr unsigned kHighest = 64;
    if (!file.read("/sys/devices/virtual/memory_tiering/uevent")) return;
    for (unsigned n = 0; n < kHighest && count < kMax; n++) {
      Text<96> path;
      path.text("/sys/devices/virtual/memory_tiering/memory_tier").dec(n).text("/nodelist");
      if (read_node_list(file, path.view(), &nodes[count]) && !nodes[count].empty()) count++;
    }
  }
  std::uint8_t rank_of(NodeId node) const {
    for (unsigned i = 0; i < count; i++) {
      if (nodes[i].has(node)) return static_cast<std::uint8_t>(i + 1);
    }
    return 0;
  }
};

// The list after "<key>:" in /proc/self/status.
bool find_in_status(File& file, std::string_view key, std::string_view* value) {
  if (!file.read("/proc/self/status")) return false;
  std::string_view text = file.text();
  for (std::string_view line; take_line(&text, &line);) {
    if (before(line, ':') != key) continue;
    *value = after(line, ':');
    return true;
  }
  return false;
}

bool read_allowed_nodes(File& file, NodeSet* nodes) {
  *nodes = NodeSet();
  std::string_view list;
  return find_in_status(file, "Mems_allowed_list", &list) && parse_node_id_list(list, nodes);
}

// Which nodes have memory. Kernels without has_memory (it came with memory hotplug) have has_normal_memory; where
// neither can be read, sizes decide, and without those every node is taken to have some.
NodeSet read_nodes_with_memory(File& file, const NodeSet& online) {
  NodeSet nodes;
  if (read_node_list(file, "/sys/devices/system/node/has_memory", &nodes)) return nodes;
  if (read_node_list(file, "/sys/devices/system/node/has_normal_memory", &nodes)) return nodes;
  nodes = NodeSet();
  for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
    if (read_memory_bytes(file, n) != 0) nodes.add(n);
  }
  return nodes.empty() ? online : nodes;
}

void read_possible_cpus(File& file, Topology* topology) {
  CpuSet cpus;
  const bool known = (file.read("/sys/devices/system/cpu/possible") && parse_cpu_list(file.text(), &cpus)) ||
                     (file.read("/sys/devices/system/cpu/present") && parse_cpu_list(file.text(), &cpus));
  if (!known) return;
  for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) topology->add_possible_cpu(c);
}

void read_cpus_of_node(File& file, NodeId node, Topology* topology) {
  CpuSet cpus;
  if (!file.read_of_node(node, "cpulist") || !parse_cpu_list(file.text(), &cpus)) return;
  for (CpuId c = cpus.first(); c.valid(); c = cpus.next(CpuId(c.value + 1))) topology->add_cpu(c, node);
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
  File file(root);
  topology->clear();
  NodeSet online;
  const bool readable = read_node_list(file, "/sys/devices/system/node/online", &online) && !online.empty();
  if (!readable) online = NodeSet::of(NodeId(0));
  const bool several = online.count() > 1;

  const NodeSet with_memory = several ? read_nodes_with_memory(file, online) : online;
  Tiers tiers;
  if (several) tiers.read(file);
  for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
    NodeInfo node;
    node.id = n.value;
    node.has_memory = with_memory.has(n);
    node.tier = tiers.rank_of(n);
    // The only node of this machine has all of its memory, and that takes no file.
    const bool all = !several && root.path[0] == '\0';
    if (node.has_memory) node.memory_bytes = all ? machine_memory_bytes() : read_memory_bytes(file, n);
    topology->add_node(node);
  }
  read_possible_cpus(file, topology);
  if (several) {
    for (NodeId n = online.first(); n.valid(); n = online.next(NodeId(n.value + 1))) {
      read_cpus_of_node(file, n, topology);
      read_distances(file, online, n, topology);
    }
  } else {
    const CpuSet all = topology->possible_cpus();
    for (CpuId c = all.first(); c.valid(); c = all.next(CpuId(c.value + 1))) topology->add_cpu(c, online.first());
  }
  topology->finish(readable ? TopologySource::kSysfs : TopologySource::kSingleNode);

  NodeSet allowed;
  if (several && read_allowed_nodes(file, &allowed)) topology->set_allowed(allowed);
}

void settle_cpu_by_sysfs(const SysfsRoot& root, CpuId cpu, Topology* topology) {
  NodeId found = topology->node(0).node();
  for (unsigned i = 0; i < topology->node_count(); i++) {
    Text<512> link;
    link.text(root.path).text("/sys/devices/system/cpu/cpu").dec(static_cast<std::uint64_t>(cpu.value));
    link.text("/node").dec(static_cast<std::uint64_t>(topology->node(i).id));
    if (link.truncated() || !path_exists(link.c_str())) continue;
    found = topology->node(i).node();
    break;
  }
  topology->settle_cpu(cpu, found);
}

bool read_allowed_nodes(const SysfsRoot& root, NodeSet* nodes) {
  File file(root);
  return read_allowed_nodes(file, nodes);
}

bool read_allowed_cpus(const SysfsRoot& root, CpuSet* cpus) {
  File file(root);
  *cpus = CpuSet();
  std::string_view list;
  return find_in_status(file, "Cpus_allowed_list", &list) && parse_cpu_list(list, cpus);
}

}  // namespace nh
