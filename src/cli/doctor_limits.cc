// Limits: of control groups, of the process, of the machine.
#include <algorithm>
#include <filesystem>

#include "cli/doctor.h"
#include "os/cgroup.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

using Who = Remedy::Who;

// The lowest limit of our group and those above it, in the files of this name.
struct GroupLimit {
  bool set = false;
  std::uint64_t bytes = 0;
  std::string directory;
};
GroupLimit lowest(ControlGroups& groups, ControlGroups::Hierarchy hierarchy, const std::string& name) {
  GroupLimit limit;
  for (unsigned up = 0;; up++) {
    const std::string directory(groups.directory(hierarchy, up));
    if (directory.empty()) return limit;
    const auto bytes = number_in(directory + "/" + name);
    // Version 1 says a number next to 2^63 for no limit.
    if (!bytes || *bytes >= std::uint64_t{1} << 60 || (limit.set && *bytes >= limit.bytes)) continue;
    limit = {true, *bytes, directory};
  }
}

std::string shown(const Patient& patient, const GroupLimit& limit, const std::string& file) {
  return limit.directory.substr(patient.root.size()) + "/" + file;
}

void check_memory_group(Patient& patient, ControlGroups& groups) {
  const std::uint64_t machine = patient.memory();
  groups.find_memory_limits(machine > 0 ? machine : ~std::uint64_t{0});
  MemoryLimit limit;
  if (groups.memory_limit(&limit)) {
    const std::uint64_t left = limit.limit > limit.used ? limit.limit - limit.used : 0;
    const bool tight = left < limit.limit / 10;
    const GroupLimit new_way = lowest(groups, ControlGroups::kUnified, "memory.max");
    const GroupLimit old_way = lowest(groups, ControlGroups::kMemory, "memory.limit_in_bytes");
    const bool v2 = new_way.set && (!old_way.set || new_way.bytes <= old_way.bytes);
    Finding& finding =
        patient.add("memory-limit", tight ? Severity::kCosts : Severity::kNote, "A control group limits memory");
    finding.here = human(limit.limit) + ", " + human(left) + " left (" +
                   shown(patient, v2 ? new_way : old_way, v2 ? "memory.max" : "memory.limit_in_bytes") + ")";
    finding.costs =
        tight ? "heaps give idle memory back before they grow and ask for no transparent huge pages: slower"
              : "nothing below nine tenths of it; from there on no transparent huge pages. The pool is not charged";
    finding.remedies.push_back(advice(Who::kLauncher, v2 ? "a higher memory.max (docker run --memory, sbatch --mem)"
                                                         : "a higher limit (docker run --memory, sbatch --mem)"));
  }
  const GroupLimit high = lowest(groups, ControlGroups::kUnified, "memory.high");
  if (high.set && (machine == 0 || high.bytes < machine)) {
    const std::uint64_t used = number_in(high.directory + "/memory.current").value_or(0);
    const bool near = used > high.bytes / 10 * 9;
    Finding& finding = patient.add("memory-high", near ? Severity::kCosts : Severity::kNote,
                                   "A control group slows down who grows past a mark");
    finding.here = human(high.bytes) + ", " + human(used) + " used (" + shown(patient, high, "memory.high") + ")";
    finding.costs = "above it the kernel lets the process wait at each fault; numaheap heeds memory.max, not this mark";
    Text<32> size;
    write_size(size, high.bytes / MiB * MiB);
    finding.remedies.push_back({Who::kYou, std::string("export NUMAHEAP_LIMIT=") + size.c_str()});
    finding.remedies.push_back(advice(Who::kLauncher, "a higher memory.high"));
  }
}

void check_hugetlb_group(Patient& patient, ControlGroups& groups) {
  for (std::size_t i = 0; i < patient.sizes.size(); i++) {
    const std::uint64_t page = patient.sizes[i] * KiB;
    const std::uint64_t pages = patient.pool_pages(patient.sizes[i]);
    if (pages == 0) continue;
    const std::string stem =
        "hugetlb." + (page >= GiB ? std::to_string(page / GiB) + "GB" : std::to_string(page / MiB) + "MB");
    for (const bool v2 : {true, false}) {
      const auto hierarchy = v2 ? ControlGroups::kUnified : ControlGroups::kHugetlb;
      const std::string used_file = stem + (v2 ? ".max" : ".limit_in_bytes");
      const std::string reserved_file = stem + (v2 ? ".rsvd.max" : ".rsvd.limit_in_bytes");
      const GroupLimit used = lowest(groups, hierarchy, used_file);
      if (used.set) {
        Finding& finding = patient.add("hugetlb-limit", Severity::kCosts,
                                       "A control group limits the pool of " + size_name(page) + " pages");
        finding.here = std::to_string(used.bytes / page) + " of " + std::to_string(pages) + " pages (" +
                       shown(patient, used, used_file) + ")";
        finding.costs = used.bytes < page
                            ? "no page of the pool for this process"
                            : "the limit counts when a page is written to, not when it is reserved: large objects "
                              "under first touch stay off the pool";
        finding.remedies.push_back(
            advice(Who::kLauncher, reserved_file + " in its place, which is counted at reservation"));
      }
      const GroupLimit reserved = lowest(groups, hierarchy, reserved_file);
      if (reserved.set && reserved.bytes < pages * page) {
        Finding& finding = patient.add("hugetlb-reservations", Severity::kCosts,
                                       "A control group limits reservations of " + size_name(page) + " pages");
        finding.here = std::to_string(reserved.bytes / page) + " of " + std::to_string(pages) + " pages (" +
                       shown(patient, reserved, reserved_file) + ")";
        finding.costs = "large objects under first touch beyond that are on transparent huge pages";
        finding.remedies.push_back(advice(Who::kLauncher, "a higher " + reserved_file));
      }
    }
  }
}

std::string limit_text(const ResourceLimit& limit) {
  return human(limit.soft) + (limit.hard == ResourceLimit::kNone ? "" : ", at most " + human(limit.hard));
}

void check_resource(Patient& patient, const ResourceLimit& limit, const char* id, const char* title, const char* flag,
                    const std::string& costs) {
  if (limit.soft == ResourceLimit::kNone) return;
  const std::uint64_t memory = patient.memory();
  Finding& finding = patient.add(id, memory == 0 || limit.soft < memory ? Severity::kCosts : Severity::kNote, title);
  finding.here = "ulimit " + std::string(flag) + ": " + limit_text(limit) + ", the machine has " + human(memory);
  finding.costs = costs;
  if (limit.hard == ResourceLimit::kNone || patient.around.is_root) {
    finding.remedies.push_back({Who::kYou, "ulimit " + std::string(flag) + " unlimited"});
  } else {
    finding.remedies.push_back(advice(Who::kLauncher, "a higher limit (limits.conf, the batch system: h_vmem, pvmem)"));
  }
}

void check_overcommit(Patient& patient) {
  if (number_in(patient.root + "/proc/sys/vm/overcommit_memory") != 2u) return;
  std::uint64_t limit = 0, committed = 0;
  read_field((patient.root + "/proc/meminfo").c_str(), "CommitLimit", &limit);
  read_field((patient.root + "/proc/meminfo").c_str(), "Committed_AS", &committed);
  limit *= KiB;
  committed *= KiB;
  const std::uint64_t left = limit > committed ? limit - committed : 0;
  Finding& finding = patient.add("overcommit", left < patient.memory() / 2 ? Severity::kCosts : Severity::kNote,
                                 "The kernel charges memory when it is mapped (overcommit_memory is 2)");
  finding.here =
      human(left) + " of " + human(limit) + " are left to be promised; the machine has " + human(patient.memory());
  finding.costs = "malloc fails there while memory is free; heaps map and unmap in small steps";
  set_sysctl(patient, "vm.overcommit_memory", "0", &finding);
}

}  // namespace

void check_groups(Patient& patient) {
  const auto groups = std::make_unique<ControlGroups>();
  groups->forget();
  groups->find(patient.root.c_str());
  const auto hidden = [&](ControlGroups::Hierarchy h) {
    return groups->in_group(h) && groups->directory(h, 0).empty();
  };
  if (hidden(ControlGroups::kMemory) || hidden(ControlGroups::kUnified)) {
    Finding& finding = patient.add("groups-hidden", Severity::kNote, "Limits of control groups cannot be seen here");
    finding.here = "/proc/self/cgroup names a group, but its hierarchy is not mounted";
    finding.costs = "a limit of memory is met without warning: the kernel ends the process there";
    finding.remedies.push_back({Who::kYou, "export NUMAHEAP_LIMIT=SIZE, where the limit is known", false});
    finding.remedies.push_back(advice(Who::kLauncher, "/sys/fs/cgroup mounted, read-only will do"));
  }
  check_memory_group(patient, *groups);
  check_hugetlb_group(patient, *groups);
}

void check_limits(Patient& patient) {
  const std::size_t before = patient.findings.size();
  check_resource(
      patient, patient.around.address_space, "limit-address-space", "Address space is limited", "-v",
      "every mapping counts: heaps grow in small steps and unmap what is idle; the sum of all is smaller than memory");
  check_resource(patient, patient.around.data, "limit-data", "Private memory is limited", "-d",
                 "malloc fails there while memory is free");
  check_overcommit(patient);
  // A TiB takes at most 4096 mappings of the pool; threads, libraries and files take theirs.
  const auto maps = number_in(patient.root + "/proc/sys/vm/max_map_count");
  const std::uint64_t needed = 16384 + patient.memory() / GiB * 4;
  if (maps && *maps < needed) {
    Finding& finding = patient.add("max-map-count", Severity::kCosts, "A process may have few mappings");
    finding.here = "vm.max_map_count is " + std::to_string(*maps) + "; a heap as large as this machine may take " +
                   std::to_string(needed);
    finding.costs = "malloc fails once they are used up, with memory free";
    set_sysctl(patient, "vm.max_map_count", std::to_string(std::max<std::uint64_t>(needed, 262144)), &finding);
  }
  // Only who locks memory meets this limit: RDMA registers what it sends, and all of it is our memory.
  std::error_code error;
  const bool rdma = std::filesystem::directory_iterator(patient.root + "/sys/class/infiniband", error) !=
                    std::filesystem::directory_iterator();
  if (rdma && patient.around.locked.soft < patient.memory()) {
    Finding& finding =
        patient.add("limit-locked", Severity::kCosts, "Locked memory is limited, and this machine has RDMA");
    finding.here = "ulimit -l: " + limit_text(patient.around.locked);
    finding.costs = "libraries that register buffers fail there, or copy";
    if (patient.around.locked.hard == ResourceLimit::kNone) {
      finding.remedies.push_back({Who::kYou, "ulimit -l unlimited"});
    } else {
      finding.remedies.push_back(advice(
          Who::kRoot, "memlock unlimited in /etc/security/limits.conf, LimitMEMLOCK=infinity for services", true));
    }
  }
  if (patient.around.stack.soft != ResourceLimit::kNone && patient.around.stack.soft < 64 * KiB) {
    Finding& finding = patient.add("limit-stack", Severity::kCosts, "The stack is very small");
    finding.here = "ulimit -s: " + limit_text(patient.around.stack);
    finding.costs = "malloc needs up to 4 KiB of it, start and fork more";
    finding.remedies.push_back({Who::kYou, "ulimit -s 8192"});
  }
  if (patient.findings.size() == before)
    patient.fine.push_back("no limit of address space, data or mappings is in the way");
}

}  // namespace nh::cli
