#include "fake_machine.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace nh {
namespace {

// The kernel's mask format: words of 32 bits in hex, the highest first, commas between.
std::string mask_text(const std::vector<int>& numbers) {
  const int highest = numbers.empty() ? 0 : *std::max_element(numbers.begin(), numbers.end());
  std::string text;
  for (int word = highest / 32; word >= 0; word--) {
    unsigned bits = 0;
    for (const int n : numbers) {
      if (n / 32 == word) bits |= 1u << (n % 32);
    }
    char hex[16];
    std::snprintf(hex, sizeof hex, "%08x", bits);
    if (!text.empty()) text += ',';
    text += hex;
  }
  return text + "\n";
}

std::string cpu_text(const FakeMachine& machine, int cpu) {
  std::string text = "processor\t: " + std::to_string(cpu) + "\nvendor_id\t: GenuineIntel\n";
  if (machine.cpu_model != 0) text += "cpu family\t: 6\nmodel\t\t: " + std::to_string(machine.cpu_model) + "\n";
  return text + "\n";
}

// By distance; the first of equals.
std::size_t nearest_with_cpus(const FakeMachine& machine, const FakeNode& node) {
  const auto from = static_cast<std::size_t>(&node - machine.nodes.data());
  std::size_t nearest = from;
  for (std::size_t to = 0; to < machine.nodes.size(); to++) {
    if (machine.nodes[to].cpus.empty()) continue;
    const bool better = machine.nodes[nearest].cpus.empty() ||
                        (!machine.distances.empty() && machine.distances[from][to] < machine.distances[from][nearest]);
    if (better) nearest = to;
  }
  return nearest;
}

}  // namespace

std::string list_text(const std::vector<int>& numbers) {
  std::vector<int> sorted = numbers;
  std::sort(sorted.begin(), sorted.end());
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t j = i;
    while (j + 1 < sorted.size() && sorted[j + 1] == sorted[j] + 1) j++;
    if (!text.empty()) text += ',';
    text += std::to_string(sorted[i]);
    if (j > i) text.append("-").append(std::to_string(sorted[j]));
    i = j + 1;
  }
  return text;
}

std::vector<int> range(int first, int count) {
  std::vector<int> numbers;
  for (int i = 0; i < count; i++) numbers.push_back(first + i);
  return numbers;
}

FakeMachine FakeMachine::uniform(int count, int cpus_each, int remote) {
  FakeMachine machine;
  for (int n = 0; n < count; n++) machine.nodes.push_back({n, range(n * cpus_each, cpus_each)});
  machine.distances.assign(static_cast<std::size_t>(count), std::vector<int>(static_cast<std::size_t>(count), remote));
  for (int n = 0; n < count; n++) machine.distances[static_cast<std::size_t>(n)][static_cast<std::size_t>(n)] = 10;
  return machine;
}

FakeTree::FakeTree() {
  // Thousands of small files: in memory where that can be had.
  const std::filesystem::path memory = "/dev/shm";
  const bool usable = ::access(memory.c_str(), W_OK | X_OK) == 0;
  std::string name = (usable ? memory : std::filesystem::temp_directory_path()) / "numaheap-tree-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}

FakeTree::FakeTree(const FakeMachine& machine, bool for_hwloc) : FakeTree() {
  const std::string nodes = "/sys/devices/system/node/";
  std::vector<int> ids, with_memory, cpus;
  for (const FakeNode& node : machine.nodes) {
    ids.push_back(node.id);
    if (node.memory_kib != 0) with_memory.push_back(node.id);
    cpus.insert(cpus.end(), node.cpus.begin(), node.cpus.end());
  }
  std::sort(cpus.begin(), cpus.end());
  write(nodes + "online", list_text(ids) + "\n");
  write(nodes + "possible", list_text(ids) + "\n");
  if (machine.has_memory_file) {
    write(nodes + "has_memory", list_text(with_memory) + "\n");
    write(nodes + "has_normal_memory", list_text(with_memory) + "\n");
  }
  for (std::size_t i = 0; i < machine.nodes.size(); i++) {
    const FakeNode& node = machine.nodes[i];
    const std::string dir = nodes + "node" + std::to_string(node.id) + "/";
    const std::string head = "Node " + std::to_string(node.id) + " ";
    write(dir + "cpulist", list_text(node.cpus) + "\n");
    write(dir + "cpumap", mask_text(node.cpus));
    write(dir + "meminfo", head + "MemTotal:       " + std::to_string(node.memory_kib) + " kB\n" + head +
                               "MemFree:        " + std::to_string(node.memory_kib / 2) + " kB\n");
    std::string row;
    for (std::size_t j = 0; j < machine.nodes.size(); j++) {
      const int distance = machine.distances.empty() ? (i == j ? 10 : 20) : machine.distances[i][j];
      if (j != 0) row += ' ';
      row += std::to_string(distance);
    }
    write(dir + "distance", row + "\n");
  }
  const std::string cpu_lists = "/sys/devices/system/cpu/";
  write(cpu_lists + "online", list_text(cpus) + "\n");
  write(cpu_lists + "present", list_text(cpus) + "\n");
  write(cpu_lists + "possible", (machine.possible_cpus.empty() ? list_text(cpus) : machine.possible_cpus) + "\n");
  write("/proc/self/status",
        "Name:\tcat\nUmask:\t0022\nCpus_allowed_list:\t" +
            (machine.cpus_allowed.empty() ? list_text(cpus) : machine.cpus_allowed) + "\nMems_allowed_list:\t" +
            (machine.mems_allowed.empty() ? list_text(ids) : machine.mems_allowed) + "\nvoluntary_ctxt_switches:\t1\n");
  write_memory(machine);
  if (for_hwloc) write_cpus_for_hwloc(machine);
}

void FakeTree::write_memory(const FakeMachine& machine) {
  for (std::size_t i = 0; i < machine.memory_tiers.size(); i++) {
    // Their numbers say the order, not more: DRAM is tier 4 on most machines.
    const std::string number = std::to_string(static_cast<int>(3 * i) + machine.first_tier);
    write("/sys/devices/virtual/memory_tiering/memory_tier" + number + "/nodelist", machine.memory_tiers[i] + "\n");
  }
  std::vector<int> initiators;
  int devices = 0;
  for (const FakeNode& node : machine.nodes) {
    const std::string id = std::to_string(node.id);
    if (node.generic_initiator) initiators.push_back(node.id);
    if (node.bandwidth != 0) {
      // Writes are slower than reads: the mean counts.
      for (const std::string access : {"0", "1"}) {
        const std::string dir = "/sys/devices/system/node/node" + id + "/access" + access + "/initiators/";
        write(dir + "read_bandwidth", std::to_string(node.bandwidth + 1000) + "\n");
        write(dir + "write_bandwidth", std::to_string(node.bandwidth - 1000) + "\n");
        write(dir + "read_latency", std::to_string(node.latency) + "\n");
        write(dir + "write_latency", std::to_string(node.latency) + "\n");
        const int nearest = machine.nodes[nearest_with_cpus(machine, node)].id;
        link(dir + "node" + std::to_string(nearest), "../../../node" + std::to_string(nearest));
      }
    }
    if (!node.dax.empty()) {
      const std::string name = "dax" + std::to_string(devices++) + ".0";
      write("/sys/devices/" + node.dax + "/" + name + "/target_node", id + "\n");
      link("/sys/bus/dax/devices/" + name, "../../../devices/" + node.dax + "/" + name);
      link("/sys/bus/dax/drivers/kmem/" + name, "../../../../devices/" + node.dax + "/" + name);
    }
    if (!node.gpu.empty()) {
      write("/proc/driver/nvidia/gpus/" + node.gpu + "/numa_status", "Node:        " + id + "\nStatus:      online\n");
    }
  }
  if (!initiators.empty()) write("/sys/devices/system/node/has_generic_initiator", list_text(initiators) + "\n");
  // hwloc asks a page of each CPU; we need the first.
  if (machine.cpu_model != 0) write("/proc/cpuinfo", cpu_text(machine, 0));
}

void FakeTree::write_cpus_for_hwloc(const FakeMachine& machine) {
  std::string cpuinfo;
  for (const FakeNode& node : machine.nodes) {
    for (const int cpu : node.cpus) {
      const std::string dir = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
      write(dir + "physical_package_id", std::to_string(node.id) + "\n");
      write(dir + "core_id", std::to_string(cpu) + "\n");
      write(dir + "core_siblings", mask_text(node.cpus));
      write(dir + "package_cpus", mask_text(node.cpus));
      write(dir + "thread_siblings", mask_text({cpu}));
      write(dir + "core_cpus", mask_text({cpu}));
      cpuinfo += cpu_text(machine, cpu);
    }
  }
  write("/proc/cpuinfo", cpuinfo);
}

FakeTree::~FakeTree() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void FakeTree::write(const std::string& path, const std::string& text) {
  const std::filesystem::path file = path_ + path;
  std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out) std::abort();
}

void FakeTree::link(const std::string& path, const std::string& target) {
  const std::filesystem::path from = path_ + path;
  std::filesystem::create_directories(from.parent_path());
  std::filesystem::create_symlink(target, from);
}

void FakeTree::remove(const std::string& path) { std::filesystem::remove_all(path_ + path); }

}  // namespace nh
