// Huge pages: transparent ones, the pools, free memory in pieces that are too small.
#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/scan.h"
#include "cli/doctor.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

using Who = Remedy::Who;

constexpr char kThp[] = "/sys/kernel/mm/transparent_hugepage";
constexpr char kBasePages[] =
    "memory that is not on pages of a pool lies on pages of 4 KiB: jumping about in gigabytes took 1.3 to 1.5 times as "
    "long there as on huge pages";

// The mode that holds for pages of 2 MiB: kernels from 6.8 on have a file for each size.
std::string mode_of(const Patient& patient, std::uint64_t kib) {
  const std::string thp = patient.root + kThp;
  const std::string own = chosen_word(thp + "/hugepages-" + std::to_string(kib) + "kB/enabled");
  if (!own.empty() && own != "inherit") return own;
  return own.empty() && kib != 2048 ? "never" : chosen_word(thp + "/enabled");
}

// How the trials of huge pages went: nodes on which one came, and on which it came in small pages.
struct Outcome {
  NodeSet came, did_not, elsewhere;
  std::size_t least = 2 * MiB;
};
Outcome outcome_of(const Patient& patient) {
  Outcome outcome;
  NodeId next;
  for (NodeId node = patient.usable.first(); node.valid(); node = next) {
    next = patient.usable.next(NodeId(node.value + 1));
    const HugePageTrial* const found = patient.huge_page_trial(node);
    if (found == nullptr) continue;
    const HugePageTrial& trial = *found;
    // Where mbind is refused the one trial was made on whichever node we ran on.
    const NodeId asked = patient.works(Ability::kBind) || trial.node < 0 ? node : NodeId(trial.node);
    if (trial.bytes >= 2 * MiB) {
      outcome.came.add(asked);
    } else {
      outcome.did_not.add(asked);
      outcome.least = std::min(outcome.least, trial.bytes);
    }
    if (trial.node >= 0 && NodeId(trial.node) != asked) outcome.elsewhere.add(asked);
  }
  return outcome;
}

void check_thp_mode(Patient& patient, const std::string& mode) {
  const bool pool = patient.pool_pages() > 0;
  const std::string all = chosen_word(patient.root + kThp + "/enabled");
  if (mode.empty()) {
    // Where /sys is not to be seen, or one came all the same, there is nothing to say against them.
    if (!outcome_of(patient).came.empty() || !path_exists((patient.root + "/sys/kernel/mm").c_str())) return;
    Finding& finding = patient.add("thp-missing", pool ? Severity::kCosts : Severity::kSerious,
                                   "This kernel has no transparent huge pages");
    finding.here = std::string(kThp) + " does not exist";
    finding.costs = kBasePages;
    finding.remedies.push_back(advice(Who::kRoot, "a kernel with CONFIG_TRANSPARENT_HUGEPAGE", true));
    if (!pool && !patient.sizes.empty()) finding.remedies.push_back(reserve_some(patient, patient.usable));
    return;
  }
  if (mode == "never") {
    Finding& finding = patient.add("thp-never", pool ? Severity::kCosts : Severity::kSerious,
                                   "Transparent huge pages are switched off");
    const bool by_size = all != "never";
    const std::string path = std::string(kThp) + (by_size ? "/hugepages-2048kB/enabled" : "/enabled");
    finding.here = path + " says never" + (by_size ? ", although " + std::string(kThp) + "/enabled says " + all : "");
    finding.costs = kBasePages;
    finding.remedies.push_back(write_file(patient, by_size ? "inherit" : "madvise", path));
    finding.remedies.push_back(advice(Who::kRoot,
                                      by_size ? "thp_anon=2M:inherit on the kernel's command line"
                                              : "transparent_hugepage=madvise on the kernel's command line",
                                      true));
    return;
  }
  if (patient.around.trials.thp_forbidden) {
    Finding& finding = patient.add("thp-forbidden", pool ? Severity::kCosts : Severity::kSerious,
                                   "This process and its children are denied transparent huge pages");
    finding.here = "prctl(PR_SET_THP_DISABLE) was called by one of the programs that led to this one";
    finding.costs = kBasePages;
    finding.remedies.push_back(
        advice(Who::kLauncher, "without that prctl: a launcher, job script or service manager sets it"));
  }
}

void check_thp_trials(Patient& patient, const std::string& mode) {
  if (mode == "never" || patient.around.trials.thp_forbidden) return;
  const Outcome outcome = outcome_of(patient);
  if (outcome.came.empty() && outcome.did_not.empty() && !mode.empty()) {
    patient.unknown.push_back("huge pages were not asked for: too little memory is left here for a trial (64 MiB)");
  }
  if (!outcome.did_not.empty() && !mode.empty()) {
    Finding& finding = patient.add("thp-scarce", Severity::kCosts,
                                   "Transparent huge pages do not come on " + nodes_text(outcome.did_not));
    finding.here = "one was asked for and written to: " + human(outcome.least) + " came instead of 2 MiB";
    finding.costs = "new memory of these nodes lies on small pages until the kernel has put free memory together";
    for (NodeId node = outcome.did_not.first(); node.valid(); node = outcome.did_not.next(NodeId(node.value + 1))) {
      finding.remedies.push_back(
          write_file(patient, "1", "/sys/devices/system/node/node" + std::to_string(node.value) + "/compact"));
    }
  }
  if (!outcome.elsewhere.empty()) {
    Finding& finding =
        patient.add("node-gives-nothing", Severity::kCosts,
                    "Memory that was asked for on " + nodes_text(outcome.elsewhere) + " came from another node");
    finding.here = "2 MiB were asked for there and written to; the kernel took them elsewhere";
    finding.costs = "memory of the CPUs there is remote";
    finding.remedies.push_back(advice(Who::kYou, "see who holds the node's memory: numastat -m, numastat -p PATTERN"));
  }
  if (!outcome.came.empty()) {
    patient.fine.push_back("transparent huge pages: " + (mode.empty() ? "" : mode + "; ") +
                           "one was asked for and came on " + nodes_text(outcome.came));
  }

  const std::string defrag = chosen_word(patient.root + kThp + "/defrag");
  if (defrag == "never" || defrag == "defer") {
    Finding& finding = patient.add("thp-defrag", outcome.did_not.empty() ? Severity::kNote : Severity::kCosts,
                                   "The kernel does not look for a huge page while a program waits for memory");
    finding.here = std::string(kThp) + "/defrag says " + defrag;
    finding.costs = outcome.did_not.empty()
                        ? "nothing now: huge pages came. Once free memory is in small pieces, new memory "
                          "gets small pages"
                        : "free memory in small pieces is not put together when a program asks";
    finding.remedies.push_back(write_file(patient, "madvise", std::string(kThp) + "/defrag"));
  }
  const auto khugepaged = number_in(patient.root + kThp + "/khugepaged/pages_to_scan");
  const auto collapses = number_in(patient.root + kThp + "/khugepaged/defrag");
  if (khugepaged == 0u || collapses == 0u) {
    Finding& finding = patient.add("khugepaged", Severity::kNote, "khugepaged does not make huge pages of small ones");
    const std::string file = std::string(kThp) + "/khugepaged/" + (khugepaged == 0u ? "pages_to_scan" : "defrag");
    finding.here = file + " is 0";
    finding.costs = "memory that began on small pages stays on them";
    finding.remedies.push_back(write_file(patient, khugepaged == 0u ? "4096" : "1", file));
  }
}

// Free memory that no huge page can be made of without moving others.
void check_fragments(Patient& patient) {
  const Outcome outcome = outcome_of(patient);
  for (unsigned i = 0; i < patient.topology->heap_count(); i++) {
    const NodeState& state = patient.nodes[i];
    const NodeId node = patient.topology->node(i).node();
    if (state.free < 512 * MiB || state.free_pieces >= state.free / 4 || !patient.usable.has(node)) continue;
    const std::string number = std::to_string(node.value);
    Finding& finding = patient.add("fragmented", outcome.came.has(node) ? Severity::kNote : Severity::kCosts,
                                   "Free memory of node " + number + " is in small pieces");
    finding.here = "of " + human(state.free) + " that are free, " + human(state.free_pieces) +
                   " are in pieces of 2 MiB or more (/proc/buddyinfo)";
    // "Node    0, zone   Normal     191    10412 ...": blocks by what they hold, unmovable first. For root only.
    LineReader lines((patient.root + "/proc/pagetypeinfo").c_str());
    std::uint64_t unmovable = 0, blocks = 0;
    bool counting = false;
    for (std::string_view line; lines.next(&line);) {
      if (take(&line, "Number of blocks type")) counting = true;
      if (!counting || !take(&line, "Node ") || trimmed(before(line, ',')) != number) continue;
      line = trimmed(after(trimmed(after(line, ',')), ' '));
      line = trimmed(after(line, ' '));
      std::uint64_t count = 0;
      for (bool first = true; take_decimal(&line, &count); first = false, line = trimmed(line)) {
        blocks += count;
        if (first) unmovable += count;
      }
    }
    if (blocks > 0) {
      finding.here +=
          "; " + std::to_string(unmovable * 100 / blocks) + " % of its blocks hold memory that cannot be moved";
    }
    finding.costs = outcome.came.has(node) ? "time: the kernel moves memory before it has a huge page to give"
                                           : "new memory lies on small pages; a pool cannot grow";
    finding.remedies.push_back(write_file(patient, "1", "/sys/devices/system/node/node" + number + "/compact"));
    if (number_in(patient.root + "/proc/sys/vm/compaction_proactiveness") == 0u) {
      set_sysctl(patient, "vm.compaction_proactiveness", "20", &finding);
    }
    finding.remedies.push_back(advice(Who::kRoot,
                                      "set huge pages aside at boot: `" + patient.around.tool + " reserve --node " +
                                          number + "=SIZE --persist` says how",
                                      true));
  }
}

// Who has the pages of a dry pool: "1234 python3 512.0 MiB, ...".
std::string holders(const Patient& patient) {
  struct Holder {
    std::uint64_t kib;
    std::string text;
  };
  std::vector<Holder> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(patient.root + "/proc", error)) {
    const std::string pid = entry.path().filename();
    std::uint64_t kib = 0;
    if (!is_digit(pid[0]) || !read_field((entry.path() / "status").c_str(), "HugetlbPages", &kib) || kib == 0) continue;
    found.push_back({kib, text_of(entry.path() / "comm").value_or("?") + " (" + pid + ") " + human(kib * KiB)});
  }
  std::sort(found.begin(), found.end(), [](const Holder& a, const Holder& b) { return a.kib > b.kib; });
  std::string text;
  for (std::size_t i = 0; i < found.size() && i < 3; i++) text += (i > 0 ? ", " : "") + found[i].text;
  if (found.size() > 3) text += " and " + std::to_string(found.size() - 3) + " more";
  return text;
}

void check_pool(Patient& patient, const std::vector<NodePool>& pools, bool thp_serves) {
  const PoolPromises promises = pool_promises(patient.root, 2048);
  std::uint64_t total = 0, free = 0, lasting = 0;
  NodeSet without, dry;
  std::uint64_t on_machine = 0;
  for (const NodePool& pool : pools) {
    on_machine += pool.free;
    const NodeId node(pool.node);
    if (!patient.usable.has(node)) continue;
    total += pool.total;
    free += pool.free;
    lasting += pool.lasting();
    if (pool.total == 0) without.add(node);
    if (pool.total != 0 && pool.free == 0) dry.add(node);
  }
  const std::uint64_t promised = promises.reserved > 0 ? static_cast<std::uint64_t>(promises.reserved) : 0;
  if (promises.reserved < 0) {
    Finding& finding =
        patient.add("pool-negative", Severity::kCosts, "The kernel has lost count of the pages that it promised");
    finding.here = "HugePages_Rsvd is " + std::to_string(promises.reserved) +
                   ": a process that had touched reserved pages ended before its fork children did";
    finding.costs = "reservations prove nothing: large objects under first touch stay off the pool";
    finding.remedies.push_back(advice(Who::kYou, "end the children that are left of such a program"));
    finding.remedies.push_back(advice(Who::kRoot, "a reboot, where none is left"));
  }
  if (lasting == 0) {  // what is there beyond that goes with the processes that have it
    if (promises.overcommit > 0) {
      patient.fine.push_back("pool of 2 MiB pages: up to " + std::to_string(promises.overcommit) + " on demand");
      return;
    }
    Finding& finding = patient.add("pool-empty", thp_serves ? Severity::kNote : Severity::kCosts,
                                   "No huge pages are set aside (pool of 2 MiB pages)");
    finding.here = "0 pages on " + nodes_text(patient.usable);
    finding.costs = thp_serves
                        ? "nothing now: transparent huge pages serve. They get scarce once memory is fragmented, those "
                          "of a pool do not"
                        : kBasePages;
    finding.remedies.push_back(reserve_some(patient, patient.usable));
    return;
  }
  // Promises are counted for the machine as a whole.
  const std::uint64_t available = std::min(free, on_machine > promised ? on_machine - promised : 0);
  if (available == 0) {
    Finding& finding = patient.add("pool-dry", Severity::kCosts, "The pool of 2 MiB pages has nothing left");
    finding.here = std::to_string(total) + " pages, " + std::to_string(total - free) + " in use, " +
                   std::to_string(promised) + " promised";
    if (const std::string who = holders(patient); !who.empty()) finding.here += "; held by " + who;
    finding.costs = thp_serves ? "new memory is on transparent huge pages" : kBasePages;
    finding.remedies.push_back(advice(Who::kYou, "wait for those processes, or end them"));
  } else if (!dry.empty()) {
    Finding& finding =
        patient.add("pool-dry-node", Severity::kCosts, "The pool of 2 MiB pages is used up on " + nodes_text(dry));
    finding.here = std::to_string(available) + " pages are left on other nodes";
    finding.costs = "new memory there is on " + std::string(thp_serves ? "transparent huge pages" : "pages of 4 KiB");
    finding.remedies.push_back(
        advice(Who::kRoot, "a larger pool there: `" + patient.around.tool + " reserve --node N=SIZE`"));
  }
  if (!without.empty()) {
    Finding& finding =
        patient.add("pool-uneven", Severity::kCosts, "Huge pages are set aside, but none on " + nodes_text(without));
    finding.here = std::to_string(total) + " pages of 2 MiB on other nodes";
    finding.costs = "memory of the CPUs there is on " +
                    std::string(thp_serves ? "transparent huge pages" : "pages of 4 KiB") +
                    ", and large arrays find fewer pages than they need on all nodes";
    finding.remedies.push_back(reserve_some(patient, without));
  }
  const int taken = patient.error_of(Ability::kTakePool);
  if (taken != 0 && taken != kNotTried) {
    Finding& finding =
        patient.add("pool-refused", Severity::kCosts, "The pool has free pages, but this process gets none");
    finding.here = "a page was reserved and written to: " + error_text(taken);
    finding.costs = "memory is on " + std::string(thp_serves ? "transparent huge pages" : "pages of 4 KiB");
    finding.remedies.push_back(
        advice(Who::kLauncher, "a limit of a control group (hugetlb.2MB.max) or a cpuset is in the way"));
  } else if (available > 0) {
    patient.fine.push_back("pool of 2 MiB pages: " + std::to_string(total) + ", " + std::to_string(available) +
                           " to be had" + (taken == 0 ? "; one was taken and written to" : ""));
  }
}

}  // namespace

void check_huge_pages(Patient& patient) {
  const std::string mode = mode_of(patient, 2048);
  check_thp_mode(patient, mode);
  check_thp_trials(patient, mode);
  check_fragments(patient);
}

void check_pools(Patient& patient) {
  const auto at = std::find(patient.sizes.begin(), patient.sizes.end(), 2048u);
  if (at == patient.sizes.end()) {
    if (patient.unknown.empty()) {
      Finding& finding = patient.add("pool-missing", Severity::kNote, "This kernel has no pool of 2 MiB pages");
      finding.here = "/sys/kernel/mm/hugepages/hugepages-2048kB does not exist";
      finding.costs = "transparent huge pages are all there is";
      finding.remedies.push_back(advice(Who::kRoot, "a kernel with CONFIG_HUGETLBFS", true));
    }
    return;
  }
  const std::string mode = mode_of(patient, 2048);
  const bool thp_serves = mode != "never" && !patient.around.trials.thp_forbidden &&
                          outcome_of(patient).did_not.empty() && (!mode.empty() || !outcome_of(patient).came.empty());
  check_pool(patient, patient.pools[static_cast<std::size_t>(at - patient.sizes.begin())], thp_serves);
}

}  // namespace nh::cli
