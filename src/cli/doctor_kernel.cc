// Placement on nodes, and what the kernel offers, by the trials.
#include <algorithm>

#include "cli/doctor.h"
#include "numa/sysfs_topology.h"

namespace nh::cli {
namespace {

using Who = Remedy::Who;

struct Tried {
  Ability ability;
  const char* name;
};

// "mbind: Operation not permitted, move_pages: ...": those that do not work.
std::string refused(const Patient& patient, std::initializer_list<Tried> calls) {
  std::string text;
  for (const Tried& call : calls) {
    const int error = patient.error_of(call.ability);
    if (error != 0 && error != kNotTried)
      text += (text.empty() ? "" : ", ") + std::string(call.name) + ": " + error_text(error);
  }
  return text;
}

void check_calls(Patient& patient) {
  const std::string calls =
      refused(patient,
              {{Ability::kBind, "mbind"}, {Ability::kAskPolicy, "get_mempolicy"}, {Ability::kAskPlaces, "move_pages"}});
  if (!patient.many_nodes()) return;  // there is one place
  if (calls.empty()) {
    patient.fine.push_back("memory can be bound to nodes, and its place be asked (mbind, move_pages)");
    return;
  }
  Finding& finding = patient.add("bind-refused", Severity::kSerious, "Memory cannot be bound to nodes here");
  finding.here = calls;
  finding.costs =
      "memory lies where it is first written to: objects that one thread asks for and another fills are remote, "
      "and requests for a certain node fail";
  if (patient.container.empty()) {
    finding.remedies.push_back(advice(Who::kLauncher, "a seccomp filter without a ban on these calls"));
  } else if (patient.container == "kubernetes") {
    finding.remedies.push_back(advice(Who::kLauncher, "securityContext: {capabilities: {add: [SYS_NICE]}}"));
  } else {
    finding.remedies.push_back(advice(Who::kLauncher, "docker run --cap-add SYS_NICE (podman: the same)"));
  }
}

void check_nodes(Patient& patient) {
  const Topology& topology = *patient.topology;
  CpuSet cpus;
  const bool cpus_known = read_allowed_cpus(SysfsRoot{patient.root.c_str()}, &cpus);
  NodeSet remote, all, full;
  for (unsigned i = 0; i < topology.node_count(); i++) {
    const NodeId node = topology.node(i).node();
    const bool has_memory = i < topology.heap_count();
    if (has_memory) all.add(node);
    const NodeState& state = patient.nodes[i];
    if (patient.allowed.has(node) && state.total > 0 && state.to_be_had < state.total / 20) full.add(node);
    if (!cpus_known || !has_memory || topology.is_allowed(node)) continue;
    const CpuSet own = topology.cpus_of_node(i);
    for (unsigned cpu = 0; cpu < topology.possible_cpu_limit(); cpu++) {
      if (own.has(CpuId(static_cast<int>(cpu))) && cpus.has(CpuId(static_cast<int>(cpu)))) remote.add(node);
    }
  }
  if (!remote.empty()) {
    Finding& finding = patient.add("cpuset-remote", Severity::kCosts, "CPUs may be used whose node's memory may not");
    finding.here =
        "the cpuset gives memory of " + nodes_text(patient.allowed) + " and CPUs of " + nodes_text(remote) + ", too";
    finding.costs = "all memory of the threads there is remote";
    finding.remedies.push_back(
        advice(Who::kLauncher, "a cpuset whose CPUs and memory nodes fit (cpuset.cpus, cpuset.mems)"));
  } else if (patient.allowed != all) {
    Finding& finding = patient.add("cpuset", Severity::kNote, "Not all nodes may be used");
    finding.here = "memory of " + nodes_text(patient.allowed) + " of " + node_list(all);
    finding.costs = "nothing, if that is what the job was given";
    finding.remedies.push_back(advice(Who::kLauncher, "a larger cpuset (cpuset.mems)"));
  }
  if (!full.empty()) {
    Finding& finding = patient.add("node-full", patient.many_nodes() ? Severity::kCosts : Severity::kNote,
                                   "Memory is nearly used up on " + nodes_text(full));
    for (unsigned i = 0; i < topology.node_count(); i++) {
      if (!full.has(topology.node(i).node())) continue;
      finding.here += (finding.here.empty() ? "" : "; ") + ("node " + std::to_string(topology.node(i).id)) + ": " +
                      human(patient.nodes[i].to_be_had) + " of " + human(patient.nodes[i].total) + " to be had";
    }
    finding.costs =
        patient.many_nodes() ? "memory of the CPUs there goes to other nodes" : "the kernel's killer is near";
    finding.remedies.push_back(advice(Who::kYou, "see who holds it: numastat -m, ps -e --sort=-rss -o rss,pid,args"));
  }
  const InheritedPolicy& policy = patient.around.policy;
  if (policy.is_set() && patient.many_nodes()) {
    static constexpr const char* kModes[] = {"", "", "preferred", "preferred-many", "bind", "interleave",
                                             "weighted interleave"};
    Finding& finding = patient.add("policy", Severity::kNote, "A memory policy was inherited");
    finding.here = std::string(kModes[static_cast<unsigned>(policy.mode)]) + " " + nodes_text(policy.nodes) +
                   " (numactl, or whatever started this)";
    finding.costs = "memory lies where it says, not where the CPU is";
    finding.remedies.push_back(
        advice(Who::kLauncher, "without numactl, or NUMAHEAP_POLICY=local where it does not bind"));
  }
  const std::string arguments = " " + text_of(patient.root + "/proc/cmdline").value_or("") + " ";
  if (arguments.find(" numa=off ") != arguments.npos) {
    Finding& finding = patient.add("numa-off", Severity::kCosts, "The kernel was told to see one node");
    finding.here = "numa=off is on its command line";
    finding.costs = "where this machine has several nodes, memory is remote by chance";
    finding.remedies.push_back(advice(Who::kRoot, "a boot without numa=off", true));
  }
  if (topology.truncated()) {
    Finding& finding =
        patient.add("nodes-left-out", Severity::kCosts, "This machine has more nodes or CPUs than numaheap knows");
    finding.here = std::to_string(topology.node_count()) + " nodes are used";
    finding.costs = "memory of the CPUs of other nodes is remote";
  }
}

void check_kernel_placement(Patient& patient) {
  if (!patient.many_nodes()) return;
  const auto balancing = number_in(patient.root + "/proc/sys/kernel/numa_balancing");
  if (balancing && (*balancing & 1) != 0) {
    Finding& finding =
        patient.add("numa-balancing", Severity::kNote, "The kernel moves pages after the threads (numa_balancing)");
    finding.here = "kernel.numa_balancing is " + std::to_string(*balancing);
    finding.costs =
        "faults that only ask who uses a page. Threads that stay on their nodes gain nothing by it; of numaheap's "
        "memory only first-touch arrays are moved";
    set_sysctl(patient, "kernel.numa_balancing", "0", &finding);
  } else if (balancing) {
    patient.fine.push_back("numa_balancing is off");
  }
  const auto reclaim = number_in(patient.root + "/proc/sys/vm/zone_reclaim_mode");
  if (reclaim && *reclaim != 0) {
    Finding& finding =
        patient.add("zone-reclaim", Severity::kCosts, "A full node drops files before a neighbour helps out");
    finding.here = "vm.zone_reclaim_mode is " + std::to_string(*reclaim);
    finding.costs = "pauses of milliseconds when a node fills up, and files are read from disk again";
    set_sysctl(patient, "vm.zone_reclaim_mode", "0", &finding);
  }
}

// Whether an ability is missing: it was tried, and did not work.
bool lacks(const Patient& patient, Ability ability) {
  return patient.error_of(ability) != 0 && patient.error_of(ability) != kNotTried;
}

}  // namespace

void check_placement(Patient& patient) {
  check_calls(patient);
  check_nodes(patient);
  check_kernel_placement(patient);
}

void check_kernel(Patient& patient) {
  const bool pool = patient.pool_pages() > 0;
  const bool caged = patient.seccomp || !patient.container.empty();
  const auto lack = [&](Ability ability, const char* id, Severity severity, const char* title, const char* call,
                        const std::string& costs, const char* since) {
    if (!lacks(patient, ability)) return;
    Finding& finding = patient.add(id, severity, title);
    finding.here = std::string(call) + " was tried: " + error_text(patient.error_of(ability));
    finding.costs = costs;
    if (caged)
      finding.remedies.push_back(advice(Who::kLauncher, std::string("a seccomp profile that lets ") + call + " pass"));
    finding.remedies.push_back(advice(Who::kRoot, std::string("a kernel from ") + since + " on", true));
  };
  lack(Ability::kRestartable, "no-rseq", Severity::kSerious, "There are no restartable sequences", "rseq",
       "every malloc and free takes a lock: several times the time of the fast path", "4.18");
  if (patient.works(Ability::kRestartable)) {
    lack(Ability::kInterruptCpus, "no-membarrier", Severity::kCosts, "The lists of other CPUs cannot be emptied",
         "membarrier", "what CPUs keep (NUMAHEAP_CPU_CACHE each) stays there when the program has left them", "5.10");
  }
  lack(Ability::kPopulate, "no-populate", pool ? Severity::kCosts : Severity::kNote, "Pages of a pool cannot be proven",
       "madvise(MADV_POPULATE_WRITE)",
       pool ? "only large objects are on the pool"
            : "nothing now; with a pool only large objects "
              "would be on it",
       "5.14");
  lack(Ability::kCollapse, "no-collapse", Severity::kNote, "Small pages cannot be made huge on demand",
       "madvise(MADV_COLLAPSE)", "memory that began on small pages waits for khugepaged", "6.1");
  if (pool) {
    lack(Ability::kMapPool, "pool-unmappable", Severity::kCosts, "Memory cannot be mapped from the pool",
         "mmap(MAP_HUGETLB)", "the pool is of no use to this process", "2.6.32");
    lack(Ability::kMovePool, "no-pool-moves", Severity::kNote, "Mappings of the pool cannot be moved", "mremap",
         "pages of the pool only come into address space that is new", "5.16");
    lack(Ability::kDiscardPool, "no-pool-discard", Severity::kNote, "Single pages do not go back to the pool",
         "madvise(MADV_DONTNEED)", "idle memory goes back by being unmapped, which splits mappings", "5.18");
    if (lacks(patient, Ability::kStopStores)) {
      Finding& finding = patient.add("no-leaving", Severity::kCosts, "A fork could not take memory off the pool");
      finding.here = patient.seccomp ? "a seccomp filter is in force, under which userfaultfd is not asked for"
                                     : "userfaultfd cannot write-protect memory of the pool";
      finding.costs = "small objects stay off the pool; children of fork do not get what is on it";
      if (caged)
        finding.remedies.push_back(advice(Who::kLauncher, "no seccomp filter (--security-opt seccomp=unconfined)"));
      if (!patient.seccomp) finding.remedies.push_back(advice(Who::kRoot, "a kernel from 5.19 on", true));
    }
  }

  std::string works;
  const Tried kNamed[] = {{Ability::kInterruptCpus, "membarrier"},
                          {Ability::kPopulate, "MADV_POPULATE_WRITE"},
                          {Ability::kCollapse, "MADV_COLLAPSE"},
                          {Ability::kStopStores, "userfaultfd on the pool"},
                          {Ability::kMovePool, "mremap of the pool"}};
  for (const Tried& tried : kNamed) {
    if (patient.works(tried.ability)) works += ", " + std::string(tried.name);
  }
  if (patient.works(Ability::kRestartable)) {
    const char* const whose =
        patient.around.trials.rseq == RseqMode::kGlibc ? " (registered by libc)" : " (registered by numaheap)";
    patient.fine.push_back("tried and found to work: restartable sequences" + std::string(whose) + works);
  } else if (!works.empty()) {
    patient.fine.push_back("tried and found to work: " + works.substr(2));
  }
}

}  // namespace nh::cli
