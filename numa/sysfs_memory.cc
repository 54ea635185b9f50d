#include "numa/sysfs_memory.h"

#include <algorithm>

namespace nh {
namespace {

// Calls visit(name) for each entry of a directory of the tree.
template <typename Visit>
void for_each_in(const SysfsFile& file, std::string_view directory, Visit visit) {
  SysfsPath path(file.root(), directory);
  if (path.truncated()) return;
  for_each_entry(path.c_str(), [](void* v, const char* name) {
    (*static_cast<Visit*>(v))(std::string_view(name));
    return true;
  }, &visit);
}

// The kernel's tiers (6.1): memory_tier<N>, a lower N being faster memory. Which N exist varies, and what the firmware
// says of a device may make them large; the rank counts.
void read_tiers(SysfsFile& file, Topology* topology) {
  static constexpr std::string_view kDirectory = "/sys/devices/virtual/memory_tiering";
  std::uint32_t numbers[64];
  unsigned count = 0;
  for_each_in(file, kDirectory, [&](std::string_view name) {
    std::uint64_t n = 0;
    if (count == 64 || !take(&name, "memory_tier") || !parse_number(name, &n) || n > ~0u) return;
    numbers[count++] = static_cast<std::uint32_t>(n);
  });
  std::sort(numbers, numbers + count);
  std::uint8_t rank = 1;
  for (unsigned i = 0; i < count; i++) {
    Text<96> path;
    path.text(kDirectory).text("/memory_tier").dec(numbers[i]).text("/nodelist");
    NodeSet nodes;
    if (!file.read_nodes(path.view(), &nodes) || nodes.empty()) continue;
    for (NodeId n = nodes.first(); n.valid(); n = nodes.next(NodeId(n.value + 1))) {
      topology->describe_memory(n, {.tier = rank});
    }
    rank++;
  }
}

// From the nearest initiators: class 1 has the nearest CPUs (5.10), class 0 may have a device that is nearer to its
// own memory than any CPU.
void read_performance(SysfsFile& file, NodeId node, Topology* topology) {
  const auto mean = [&](const char* access, const char* what) {
    const auto read = [&](const char* direction) {
      Text<64> name;
      name.text(access).text("/initiators/").text(direction).text(what);
      return file.number_of_node(node, name.view());
    };
    const std::uint64_t reads = read("read_"), writes = read("write_");
    const std::uint64_t value = reads != 0 && writes != 0 ? (reads + writes) / 2 : std::max(reads, writes);
    return static_cast<std::uint32_t>(std::min(value, std::uint64_t{~0u}));
  };
  for (const char* const access : {"access1", "access0"}) {
    // Most machines tell nothing: one look for each class.
    SysfsPath initiators(file.root(), "/sys/devices/system/node/node");
    initiators.dec(static_cast<std::uint64_t>(node.value)).ch('/').text(access).text("/initiators");
    if (!path_exists(initiators.c_str())) continue;
    const MemoryFacts facts{.bandwidth = mean(access, "bandwidth"), .latency = mean(access, "latency")};
    if (facts.bandwidth == 0 && facts.latency == 0) continue;
    topology->describe_memory(node, facts);
    return;
  }
}

// Memory that the kmem driver has made a node of.
void read_dax_names(SysfsFile& file, Topology* topology) {
  static constexpr std::string_view kDevices = "/sys/bus/dax/devices/";
  for_each_in(file, kDevices, [&](std::string_view name) {
    SysfsPath driven(file.root(), "/sys/bus/dax/drivers/kmem/"), device(file.root(), kDevices);
    driven.text(name);
    if (name[0] == '.' || !path_exists(driven.c_str())) return;
    device.text(name);
    char target[512];
    if (!read_link(device.c_str(), target, sizeof target)) return;
    const KindReason named = name_of_dax(target);
    device.text("/target_node");
    std::uint64_t node = 0;
    if (!read_number(device.c_str(), &node) || node >= NodeSet::kBits) return;
    topology->describe_memory(NodeId(static_cast<int>(node)), {.named = named});
  });
}

// The driver of NVIDIA's GPUs with coherent memory names its nodes: "Node: 2". Firmware that knows a device as an
// initiator gives it nodes; their memory is the device's.
void read_gpu_names(SysfsFile& file, Topology* topology) {
  NodeSet initiators;
  file.read_nodes("/sys/devices/system/node/has_generic_initiator", &initiators);
  for (NodeId n = initiators.first(); n.valid(); n = initiators.next(NodeId(n.value + 1))) {
    topology->describe_memory(n, {.named = KindReason::kGpu});
  }
  for_each_in(file, "/proc/driver/nvidia/gpus", [&](std::string_view name) {
    Text<256> path;
    path.text("/proc/driver/nvidia/gpus/").text(name).text("/numa_status");
    if (name[0] == '.' || path.truncated() || !file.read(path.view())) return;
    std::string_view text = file.text();
    for (std::string_view line; take_line(&text, &line);) {
      std::uint64_t node = 0;
      if (before(line, ':') != "Node" || !parse_number(after(line, ':'), &node) || node >= NodeSet::kBits) continue;
      topology->describe_memory(NodeId(static_cast<int>(node)), {.named = KindReason::kGpu});
    }
  });
}

// Knights Landing and Mill have MCDRAM, and tell nobody: no HMAT, and distances that say it is far away.
bool has_mcdram(SysfsFile& file) {
  if (!file.read("/proc/cpuinfo")) return false;
  std::string_view text = file.text();
  std::uint64_t family = 0, model = 0;
  for (std::string_view line; take_line(&text, &line) && !trimmed(line).empty();) {
    const std::string_view key = trimmed(before(line, ':'));
    if (key == "cpu family") parse_number(after(line, ':'), &family);
    if (key == "model") parse_number(after(line, ':'), &model);
  }
  return family == 6 && (model == 87 || model == 133);
}

}  // namespace

KindReason name_of_dax(std::string_view device_path) {
  if (device_path.find("ndbus") != device_path.npos) return KindReason::kPersistent;
  const bool cxl = device_path.find("dax_region") != device_path.npos || device_path.find("cxl") != device_path.npos;
  return cxl ? KindReason::kCxl : KindReason::kNone;
}

void read_memory_of_nodes(SysfsFile& file, Topology* topology) {
  bool memory_only = false;
  for (unsigned i = 0; i < topology->node_count(); i++) {
    const NodeInfo& node = topology->node(i);
    if (!node.has_memory) continue;
    memory_only |= node.memory_only();
    read_performance(file, node.node(), topology);
  }
  read_tiers(file, topology);
  if (!memory_only) return;
  read_gpu_names(file, topology);
  read_dax_names(file, topology);
  if (!has_mcdram(file)) return;
  for (unsigned i = 0; i < topology->node_count(); i++) {
    if (topology->node(i).memory_only()) topology->describe_memory(topology->node(i).node(), {.named = KindReason::kHighBandwidth});
  }
}

}  // namespace nh
