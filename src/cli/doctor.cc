// The order of the examination, and what the checks share.
#include "cli/doctor.h"

#include <algorithm>
#include <cstring>

#include "numa/sysfs_topology.h"

namespace nh::cli {

const char* severity_name(Severity severity) {
  static constexpr const char* kNames[] = {"note", "costs", "serious"};
  return kNames[static_cast<unsigned>(severity)];
}

std::uint64_t Patient::memory() const {
  std::uint64_t bytes = 0;
  for (const NodeState& node : nodes) bytes += node.total;
  return bytes;
}

std::uint64_t Patient::pool_pages(std::uint64_t kib) const {
  std::uint64_t pages = 0;
  for (std::size_t i = 0; i < sizes.size(); i++) {
    if (sizes[i] != kib) continue;
    for (const NodePool& pool : pools[i]) pages += usable.has(NodeId(pool.node)) ? pool.total : 0;
  }
  return pages;
}

const HugePageTrial* Patient::huge_page_trial(NodeId node) const {
  if (!usable.has(node)) return nullptr;
  unsigned index = 0;
  for (NodeId other = usable.first(); other != node; other = usable.next(NodeId(other.value + 1))) index++;
  return index < kMaxNodes && around.trials.thp[index].tried ? &around.trials.thp[index] : nullptr;
}

const char* Patient::variable(const char* name) const {
  const std::size_t length = std::strlen(name);
  for (const std::string& setting : around.environment) {
    if (setting.compare(0, length, name) == 0 && setting[length] == '=') return setting.c_str() + length + 1;
  }
  return nullptr;
}

Finding& Patient::add(const char* id, Severity severity, const std::string& title) {
  findings.push_back({id, severity, title, "", "", {}});
  return findings.back();
}

std::string who_text(Remedy::Who who, const Patient& patient) {
  switch (who) {
    case Remedy::Who::kYou:
      return "you";
    case Remedy::Who::kRoot:
      return patient.container.empty() ? "root" : "root on the host";
    case Remedy::Who::kLauncher:
      return patient.container.empty() ? "who starts it" : "who starts the container";
  }
  return "";
}

std::string error_text(int error) {
  if (error == kTrialKilled) return "the process that tried it was killed";
  if (error == kNotTried) return "not tried";
  return ::strerror(error);
}

NodeSet usable_nodes(const Topology& topology, const InheritedPolicy& policy) {
  // Memory without CPUs may be a device's, which is not touched unless asked for.
  NodeSet with_cpus, all;
  for (unsigned i = 0; i < topology.heap_count(); i++) {
    const NodeInfo& node = topology.node(i);
    if (!topology.is_allowed(node.node())) continue;
    if (policy.mode == InheritedPolicy::Mode::kBind && !policy.nodes.has(node.node())) continue;
    all.add(node.node());
    if (node.cpus > 0) with_cpus.add(node.node());
  }
  return with_cpus.empty() ? all : with_cpus;
}

std::string nodes_text(const NodeSet& nodes) { return (nodes.count() == 1 ? "node " : "nodes ") + node_list(nodes); }

std::string as_root(const Patient& patient, const std::string& command) {
  return patient.around.is_root || !patient.container.empty() ? command : "sudo " + command;
}

Remedy write_file(const Patient& patient, const std::string& value, const std::string& path) {
  const bool plain = patient.around.is_root || !patient.container.empty();
  return {Remedy::Who::kRoot, "echo " + value + (plain ? " > " : " | sudo tee ") + path};
}

void set_sysctl(const Patient& patient, const std::string& name, const std::string& value, Finding* finding) {
  finding->remedies.push_back({Remedy::Who::kRoot, as_root(patient, "sysctl -w " + name + "=" + value)});
  finding->remedies.push_back(
      {Remedy::Who::kRoot,
       "echo '" + name + " = " + value + "' | " + as_root(patient, "tee -a /etc/sysctl.d/90-numaheap.conf"), true,
       true});
}

Remedy advice(Remedy::Who who, const std::string& words, bool lasting) { return {who, words, false, lasting}; }

Remedy reserve_some(const Patient& patient, const NodeSet& nodes) {
  std::string command = patient.around.tool + " reserve";
  for (unsigned i = 0; i < patient.topology->node_count(); i++) {
    if (!nodes.has(patient.topology->node(i).node())) continue;
    const std::uint64_t half = patient.nodes[i].to_be_had / 2;
    const std::uint64_t bytes = half >= GiB ? half / GiB * GiB : half / (64 * MiB) * (64 * MiB);
    command += " --node " + std::to_string(patient.topology->node(i).id) + "=" + size_name(bytes);
  }
  return {Remedy::Who::kRoot, as_root(patient, command)};
}

std::unique_ptr<Patient> examine(const Surroundings& around) {
  auto patient = std::make_unique<Patient>(around);
  patient->topology = std::make_unique<Topology>();
  const Topology& topology = *patient->topology;
  load_sysfs_topology(SysfsRoot{around.root.c_str()}, patient->topology.get());
  for (unsigned i = 0; i < topology.node_count(); i++) {
    patient->nodes.push_back(node_state(around.root, topology.node(i).id));
    const NodeId node = topology.node(i).node();
    if (i < topology.heap_count() && topology.is_allowed(node)) patient->allowed.add(node);
  }
  patient->usable = usable_nodes(topology, around.policy);
  patient->sizes = pool_sizes(around.root);
  for (const std::uint64_t kib : patient->sizes) patient->pools.push_back(node_pools(around.root, kib));
  if (!text_of(around.root + "/proc/meminfo"))
    patient->unknown.push_back("/proc is missing: memory and limits are not seen");
  if (patient->sizes.empty() && !text_of(around.root + "/sys/kernel/mm/transparent_hugepage/enabled") &&
      !text_of(around.root + "/sys/devices/system/node/online")) {
    patient->unknown.push_back(
        "/sys is missing: numaheap sees one node, no pools, and not how transparent huge pages are set");
  }
  find_container(*patient);
  check_huge_pages(*patient);
  check_pools(*patient);
  check_placement(*patient);
  check_kernel(*patient);
  check_groups(*patient);
  check_limits(*patient);
  check_process(*patient);
  std::stable_sort(patient->findings.begin(), patient->findings.end(),
                   [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
  return patient;
}

int doctor_status(const Patient& patient) {
  for (const Finding& finding : patient.findings) {
    if (finding.severity != Severity::kNote) return 1;
  }
  return patient.unknown.empty() ? 0 : 2;
}

}  // namespace nh::cli
