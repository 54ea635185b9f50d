// What `numaheap doctor` finds: everything that makes huge pages, placement or speed less than they could be here.
//
// Looking and judging are parted. Surroundings hold what is known of the machine beside its files: what was tried,
// limits, environment. The checks read files under `root` and Surroundings and nothing else, so that tests can make up
// any machine.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/machine_files.h"
#include "numa/policy.h"
#include "numa/topology.h"
#include "os/trials.h"

namespace nh::cli {

// note: nothing is lost now. costs: less than could be. serious: huge pages, placement or the fast path are lost.
enum class Severity { kNote, kCosts, kSerious };
const char* severity_name(Severity severity);

// One way to mend something. What is no command is said in words.
struct Remedy {
  enum class Who { kYou, kRoot, kLauncher };  // kLauncher: whoever starts the container, the job or the program
  Who who = Who::kYou;
  std::string text;
  bool is_command = true;
  bool lasting = false;  // over a reboot
};

struct Finding {
  std::string id;  // a word for scripts, the same in all versions
  Severity severity = Severity::kNote;
  std::string title;  // one line
  std::string here;   // what it is here, measured where that is possible
  std::string costs;
  std::vector<Remedy> remedies;
};

// A limit of getrlimit(), in bytes.
struct ResourceLimit {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  std::uint64_t soft = kNone, hard = kNone;
};

struct Surroundings {
  std::string root;
  std::string kernel, libc;       // versions, to be shown
  std::string tool = "numaheap";  // how the user calls this tool
  std::string library;            // libnumaheap.so; empty where it is missing
  std::string searched;           // where it was looked for
  std::string malloc_file;        // the file from which this process has its malloc
  std::string program;            // of which the user asked whether it can run on numaheap; may be empty
  std::string program_obstacle;   // why it cannot
  bool is_root = false;
  bool secure = false;  // set-uid or set-gid: the environment does not count
  std::vector<std::string> environment;
  ResourceLimit address_space, data, locked, stack;
  InheritedPolicy policy;
  Trials trials = {};
};

// What all checks share.
struct Patient {
  const Surroundings around;
  const std::string& root;
  std::unique_ptr<Topology> topology;
  NodeSet allowed;                           // nodes with memory that we may use
  NodeSet usable;                            // of these the ones that serve by themselves, as in trials.thp
  std::vector<NodeState> nodes;              // by dense index of the topology
  std::vector<std::uint64_t> sizes;          // of pools, KiB
  std::vector<std::vector<NodePool>> pools;  // by size
  std::string container;                     // its kind; empty outside of one
  bool user_namespace = false;               // our numbers of users are not the machine's
  bool seccomp = false;

  std::vector<Finding> findings;
  std::vector<std::string> fine;     // what is as it should be
  std::vector<std::string> unknown;  // what could not be looked at

  explicit Patient(const Surroundings& s) : around(s), root(around.root) {}
  Patient(const Patient&) = delete;
  bool many_nodes() const { return topology->heap_count() > 1; }
  std::uint64_t memory() const;
  // The pages of a pool on usable nodes.
  std::uint64_t pool_pages(std::uint64_t kib = 2048) const;
  int error_of(Ability ability) const { return around.trials.of(ability); }
  bool works(Ability ability) const { return error_of(ability) == 0; }
  // The trial made near a usable node; nullptr where none was.
  const HugePageTrial* huge_page_trial(NodeId node) const;
  const char* variable(const char* name) const;  // nullptr where it is not set
  Finding& add(const char* id, Severity severity, const std::string& title);
};

// "as root", "as root on the host".
std::string who_text(Remedy::Who who, const Patient& patient);
std::string error_text(int error);  // "Operation not permitted"
// The nodes that serve without being asked for, by cpuset, inherited binding and CPUs: on them trials are made.
NodeSet usable_nodes(const Topology& topology, const InheritedPolicy& policy);
// "node 1", "nodes 0-3".
std::string nodes_text(const NodeSet& nodes);

// The usual remedies, written so that they can be pasted.
std::string as_root(const Patient& patient, const std::string& command);
Remedy write_file(const Patient& patient, const std::string& value, const std::string& path);
void set_sysctl(const Patient& patient, const std::string& name, const std::string& value, Finding* finding);
Remedy advice(Remedy::Who who, const std::string& words, bool lasting = false);
// `numaheap reserve` for half of what each of the nodes could give.
Remedy reserve_some(const Patient& patient, const NodeSet& nodes);

void find_container(Patient& patient);
void check_pools(Patient& patient);
void check_huge_pages(Patient& patient);
void check_placement(Patient& patient);
void check_kernel(Patient& patient);
void check_groups(Patient& patient);
void check_limits(Patient& patient);
void check_process(Patient& patient);

// All of them; worst first.
std::unique_ptr<Patient> examine(const Surroundings& around);

// 0 fine, 1 something costs, 2 something could not be looked at.
int doctor_status(const Patient& patient);

struct Screen {
  unsigned columns = 100;
  bool colours = false;
};
std::string doctor_text(const Patient& patient, const Screen& screen);
std::string doctor_json(const Patient& patient);

}  // namespace nh::cli
