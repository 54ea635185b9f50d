// `numaheap topo`: the machine as the heaps see it.
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/options.h"
#include "cli/cli.h"
#include "cli/topo_json.h"
#include "cli/machine_files.h"
#include "numa/cpu_list.h"
#include "numa/hwloc_topology.h"
#include "numa/policy.h"
#include "numa/sysfs_topology.h"
#include "numa/topology_text.h"
#include "os/procfs.h"

namespace nh::cli {

const char kTopoHelp[] =
    R"(usage: numaheap topo [--xml FILE | --synthetic TEXT | --root DIR]
                     [--json | --export]

Shows the nodes with their CPUs, kinds of memory and huge-page pools, the
distances, the order in which the heaps of other nodes are tried when one's own
node is full, and why. NUMAHEAP_TOPOLOGY and NUMAHEAP_NODES count as they do for
programs.

  --xml FILE        a machine that hwloc saved (lstopo FILE)
  --synthetic TEXT  one that hwloc makes up, such as "pack:2 numa:2 core:8 pu:2"
  --root DIR        reads DIR/sys and DIR/proc instead of /sys and /proc
  --json            prints all of it as JSON
  --export          prints the one-line form that NUMAHEAP_TOPOLOGY takes
)";

namespace {

using Out = Text<2 * 1024 * 1024>;

struct Asked {
  const char* xml = nullptr;
  const char* synthetic = nullptr;
  const char* root = "";
  const char* described = nullptr;  // NUMAHEAP_TOPOLOGY
  bool for_export = false;
  bool as_json = false;

  bool real() const { return xml == nullptr && synthetic == nullptr && described == nullptr; }
};

int parse(Words words, Asked* asked) {
  bool root_given = false;
  for (std::size_t at = 0; at < words.size();) {
    const char* value = "";
    const std::string word = words[at];
    if (word == "--export") {
      asked->for_export = true;
      at++;
    } else if (word == "--json") {
      asked->as_json = true;
      at++;
    } else if (take_value(words, &at, "--xml", &value)) {
      asked->xml = value;
    } else if (take_value(words, &at, "--synthetic", &value)) {
      asked->synthetic = value;
    } else if (take_value(words, &at, "--root", &value)) {
      asked->root = value;
      root_given = true;
    } else {
      return refuse_option(kUsage, "topo", word, {"--export", "--json", "--xml", "--synthetic", "--root", "--help"});
    }
    if (value == nullptr) return complain(kUsage, "topo: " + word + " needs a value; see `numaheap topo --help`");
  }
  if (asked->as_json && asked->for_export) return complain(kUsage, "topo: one of --json and --export at most");
  if ((asked->xml != nullptr) + (asked->synthetic != nullptr) + root_given > 1) {
    return complain(kUsage, "topo: one of --xml, --synthetic and --root at most");
  }
  const char* const variable = std::getenv("NUMAHEAP_TOPOLOGY");
  const bool counts = variable != nullptr && variable[0] != '\0' && !is_of_another_machine(variable, SysfsRoot{});
  if (asked->real() && !root_given && counts) asked->described = variable;
  return 0;
}

int fill(const Asked& asked, Topology* topology) {
  Text<256> why;
  bool loaded = true;
  const char* source = "topo";
  if (asked.xml != nullptr) {
    source = asked.xml;
    loaded = load_hwloc_topology(HwlocInput::kXml, asked.xml, topology, &why);
  } else if (asked.synthetic != nullptr) {
    source = asked.synthetic;
    loaded = load_hwloc_topology(HwlocInput::kSynthetic, asked.synthetic, topology, &why);
  } else if (asked.described != nullptr) {
    source = "NUMAHEAP_TOPOLOGY";
    loaded = load_described_topology(asked.described, SysfsRoot{}, topology, &why);
  } else {
    const SysfsRoot root{asked.root};
    load_sysfs_topology(root, topology);
    const auto scratch = std::make_unique<Topology>();
    if (topology->node_count() > 1 && !refine_with_hwloc(root, topology, scratch.get(), &why)) {
      complain(0, std::string("topo: ") + why.c_str() + "; showing what /sys says");
    }
  }
  return loaded ? 0 : complain(1, std::string(source) + ": " + why.c_str());
}

// What is exported is for processes that have a NUMAHEAP_NODES of their own.
int load(const Asked& asked, Topology* topology) {
  Options options;
  Text<300> problem;
  const char* const nodes = std::getenv("NUMAHEAP_NODES");
  const bool given = nodes != nullptr && nodes[0] != '\0' && !asked.for_export;
  if (given && !set_option(OptionId::kNodes, nodes, &options, &problem)) complain(0, problem.c_str());
  topology->leave_out(nodes_left_out(options.nodes));
  if (const int status = fill(asked, topology); status != 0) return status;
  problem.clear();
  const bool some_left = settle_nodes(options.nodes, *topology, &problem);
  if (problem.size() != 0) complain(0, problem.c_str());
  if (some_left) return 0;
  topology->leave_out(NodeSet());
  return fill(asked, topology);
}

// "3/512": free and all pages of a node's pool.
std::string pool_text(const std::string& root, int node, std::uint64_t kib) {
  const std::string dir = root + "/sys/devices/system/node/node" + std::to_string(node) + "/hugepages/hugepages-" +
                          std::to_string(kib) + "kB/";
  const auto pages = [&](const char* name) { return std::to_string(number_in(dir + name).value_or(0)); };
  return pages("free_hugepages") + "/" + pages("nr_hugepages");
}

// "-" where it is not known.
void write_figure(TextWriter& out, std::uint32_t value, std::size_t width) {
  out.right(value != 0 ? std::to_string(value) : "-", width);
}

void write_nodes(TextWriter& out, const Topology& topology, const Asked& asked) {
  const std::vector<std::uint64_t> sizes = asked.real() ? pool_sizes(asked.root) : std::vector<std::uint64_t>();
  out.text("node  kind       tier    MB/s    ns  memory          ");
  if (asked.real()) out.text("free            ");
  for (const std::uint64_t kib : sizes) {
    Text<32> title;
    write_size(title, kib * KiB);
    title.text(" pages");
    out.right(title.view(), 14);
    out.text("  ");
  }
  out.text("CPUs\n");
  for (unsigned i = 0; i < topology.node_count(); i++) {
    const NodeInfo& node = topology.node(i);
    out.right(std::to_string(node.id), 4).text("  ").text(node.has_memory ? node_kind_name(node.kind) : "no memory");
    out.pad_to(17);
    write_figure(out, node.tier, 4);
    write_figure(out, node.bandwidth, 8);
    write_figure(out, node.latency, 6);
    out.text("  ").bytes(node.memory_bytes);
    out.pad_to(53);
    if (asked.real()) out.bytes(node_state(asked.root, node.id).free).pad_to(69);
    for (const std::uint64_t kib : sizes) out.right(pool_text(asked.root, node.id, kib), 14).text("  ");
    const CpuSet cpus = topology.cpus_of_node(i);
    if (cpus.empty()) out.ch('-');
    write_cpu_list(out, cpus);
    out.ch('\n');
  }
  if (!sizes.empty()) out.text("(pools: free/all pages)\n");
}

void write_distances(TextWriter& out, const Topology& topology) {
  out.text("\ndistances\nnode");
  for (unsigned j = 0; j < topology.node_count(); j++) out.right(std::to_string(topology.node(j).id), 5);
  out.ch('\n');
  for (unsigned i = 0; i < topology.node_count(); i++) {
    out.right(std::to_string(topology.node(i).id), 4);
    for (unsigned j = 0; j < topology.node_count(); j++) out.right(std::to_string(topology.distance(i, j)), 5);
    out.ch('\n');
  }
}

void write_orders(TextWriter& out, const Topology& topology) {
  out.text("\nfallback order\n");
  for (unsigned i = 0; i < topology.node_count(); i++) {
    out.right(std::to_string(topology.node(i).id), 4).ch(':');
    for (unsigned rank = 0; rank < topology.fallback_count(i); rank++) {
      out.ch(' ').dec(static_cast<std::uint64_t>(topology.node_of_heap(topology.fallback(i, rank)).value));
    }
    out.ch('\n');
  }
  out.text("(the node itself, then those that help: ordinary memory before fast, and that before slow; of a kind the nearest)\n");
}

// Why each node stands where it does.
void write_reasons(TextWriter& out, const Topology& topology) {
  out.text("\nkinds\n");
  for (unsigned i = 0; i < topology.node_count(); i++) {
    const NodeInfo& node = topology.node(i);
    out.right(std::to_string(node.id), 4).text(": ");
    if (node.has_memory) out.text(node_kind_name(node.kind)).text(" (").text(kind_reason_text(node.reason)).text("), ");
    out.text(role_text(topology, i)).ch('\n');
  }
}

// Where there is something to choose from.
void write_best(TextWriter& out, const Topology& topology) {
  if (!topology.has_kind(NodeKind::kFast) && !topology.has_kind(NodeKind::kSlow)) return;
  for (const NodeQuality quality : kQualities) {
    out.text("\nbest for ").text(quality_name(quality)).ch('\n');
    for (unsigned i = 0; i < topology.node_count(); i++) {
      if (topology.node(i).cpus == 0) continue;
      HeapId heaps[kMaxNodes];
      const unsigned count = topology.best_heaps(quality, i, heaps);
      out.right(std::to_string(topology.node(i).id), 4).ch(':');
      for (unsigned k = 0; k < count; k++) out.ch(' ').dec(static_cast<std::uint64_t>(topology.node_of_heap(heaps[k]).value));
      out.ch('\n');
    }
  }
}

void write_system(TextWriter& out, const Asked& asked) {
  const std::string root = asked.root;
  std::uint64_t balancing = 0;
  const bool known = read_number((root + "/proc/sys/kernel/numa_balancing").c_str(), &balancing);
  const std::string thp = chosen_word(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  out.text("\ntransparent huge pages: ").text(thp.empty() ? "not available" : thp);
  out.text("\nautomatic NUMA balancing: ").text(!known ? "not available" : balancing == 0 ? "off" : "on");
  // 1 moves pages between nodes, 2 between tiers of memory. Both leave bound memory and pages of the pools alone.
  if ((balancing & 1) != 0) {
    out.text(" (memory follows the CPUs that use it; huge pages of the pools stay)");
  } else if (balancing != 0) {
    out.text(" (between memory tiers only; huge pages of the pools stay)");
  }
  CpuSet cpus;
  NodeSet nodes;
  if (read_allowed_cpus(SysfsRoot{asked.root}, &cpus)) {
    out.text("\nallowed CPUs: ");
    write_cpu_list(out, cpus);
  }
  if (read_allowed_nodes(SysfsRoot{asked.root}, &nodes)) {
    out.text("\nallowed nodes: ");
    write_node_list(out, nodes);
  }
  out.ch('\n');
  if (root.empty()) {
    static constexpr const char* kModes[] = {"unknown", "default", "preferred", "preferred-many", "bind", "interleave",
                                             "weighted interleave"};
    const InheritedPolicy policy = read_inherited_policy();
    out.text("inherited policy: ").text(kModes[static_cast<unsigned>(policy.mode)]);
    if (policy.is_set()) {
      out.ch(' ');
      write_node_list(out, policy.nodes);
    }
    out.ch('\n');
  }
}

}  // namespace

int topo_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  const auto topology = std::make_unique<Topology>();
  if (const int status = load(asked, topology.get()); status != 0) return status;
  const auto out = std::make_unique<Out>();
  if (asked.for_export) {
    write_topology_text(*out, *topology);
    out->ch('\n');
    return print(out->view());
  }
  if (asked.as_json) {
    write_topology_json(*out, *topology);
    return print(out->view());
  }
  out->dec(topology->node_count()).text(topology->node_count() == 1 ? " node, " : " nodes, ");
  out->dec(topology->known_cpus().count()).text(topology->known_cpus().count() == 1 ? " CPU (" : " CPUs (");
  out->dec(topology->possible_cpus().count()).text(" possible), from ").text(topology_source_name(topology->source()));
  if (topology->truncated()) out->text("\nmore nodes or CPUs than numaheap can use: the nodes beyond are left out");
  out->text("\n\n");
  write_nodes(*out, *topology, asked);
  write_distances(*out, *topology);
  write_orders(*out, *topology);
  if (topology->node_count() > 1) write_reasons(*out, *topology);
  write_best(*out, *topology);
  if (asked.real()) write_system(*out, asked);
  return print(out->view());
}

}  // namespace nh::cli
