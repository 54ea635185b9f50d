// The doctor's judgement, on machines that are made up.
#include <algorithm>
#include <cerrno>

#include <gtest/gtest.h>

#include "doctor_cases.h"

namespace nh::cli {
namespace {

std::string ids(const Patient& patient) {
  std::string text;
  for (const Finding& finding : patient.findings) text += finding.id + " ";
  return text;
}

// Nothing is wider than the screen, whatever is found.
void expect_to_fit(const Patient& patient) {
  for (const unsigned columns : {80u, 100u}) {
    const std::string text = doctor_text(patient, {columns, false});
    for (std::size_t from = 0, to; (to = text.find('\n', from)) != text.npos; from = to + 1) {
      EXPECT_LE(to - from, columns) << text.substr(from, to - from);
    }
  }
}

TEST(Doctor, FindsNothingWhereNothingIs) {
  const FakeRoot root;
  const auto patient = examine(healthy(root));
  EXPECT_EQ(ids(*patient), "");
  EXPECT_EQ(doctor_status(*patient), 0);
  const std::string text = doctor_text(*patient, {});
  EXPECT_NE(text.find("\nNothing costs anything here.\n"), text.npos) << text;
  EXPECT_NE(text.find("     1    64.0 GiB    16.0 GiB          97 %      512    500\n"), text.npos) << text;
}

TEST(Doctor, FindsWhatACaseBrings) {
  for (const Case& one : cases()) {
    const FakeRoot root;
    Surroundings around = healthy(root);
    one.spoil(root, around);
    const auto patient = examine(around);
    SCOPED_TRACE(std::string(one.id) + ": " + one.here);
    const auto found = std::find_if(patient->findings.begin(), patient->findings.end(), [&](const Finding& f) {
      return f.id == one.id && f.here.find(one.here) != f.here.npos;
    });
    if (found == patient->findings.end()) {
      ADD_FAILURE() << "found: " << doctor_text(*patient, {});
      continue;
    }
    expect_to_fit(*patient);
    EXPECT_EQ(found->severity, one.severity);
    EXPECT_FALSE(found->title.empty() || found->costs.empty());
    EXPECT_TRUE(one.remedy[0] == '\0' ||
                std::any_of(found->remedies.begin(), found->remedies.end(),
                            [&](const Remedy& remedy) { return remedy.text.find(one.remedy) != remedy.text.npos; }))
        << doctor_text(*patient, {});
    const bool costs = std::any_of(patient->findings.begin(), patient->findings.end(),
                                   [](const Finding& f) { return f.severity != Severity::kNote; });
    EXPECT_EQ(doctor_status(*patient), costs ? 1 : 0);
    EXPECT_TRUE(std::is_sorted(patient->findings.begin(), patient->findings.end(),
                               [](const Finding& a, const Finding& b) { return a.severity > b.severity; }));
  }
}

TEST(Doctor, ColoursOnlyWhereAsked) {
  const FakeRoot root;
  Surroundings around = healthy(root);
  fails(around, Ability::kRestartable, ENOSYS);
  const auto patient = examine(around);
  EXPECT_EQ(doctor_text(*patient, {100, false}).find('\033'), std::string::npos);
  EXPECT_NE(doctor_text(*patient, {100, true}).find("\033[1;31mSERIOUS\033[0m  There are"), std::string::npos);
}

// A command that is broken over lines is still one command.
TEST(Doctor, BreaksCommandsSoThatTheyCanBePasted) {
  const FakeRoot root;
  Surroundings around = healthy(root);
  around.tool = "/opt/software/with/a/long/path/numaheap-0.1.0/bin/numaheap";
  empty_pools(root);
  const std::string text = doctor_text(*examine(around), {80, false});
  EXPECT_NE(text.find("  mend   root:\n         sudo /opt/software/with/a/long/path/numaheap-0.1.0/bin/numaheap \\\n"
                      "           reserve --node 0=8G --node 1=8G\n"),
            text.npos)
      << text;
}

TEST(Doctor, SaysWhatItCouldNotSee) {
  const FakeRoot root;
  root.remove("/sys");
  root.remove("/proc");
  Surroundings around = healthy(root);
  around.trials.thp[0] = {};
  const auto patient = examine(around);
  EXPECT_EQ(ids(*patient), "");
  EXPECT_EQ(patient->unknown.size(), 2u);
  EXPECT_EQ(doctor_status(*patient), 2);
}

TEST(Doctor, SaysWhatItDidNotTry) {
  const FakeRoot root;
  Surroundings around = healthy(root);
  for (int node = 0; node < 2; node++) around.trials.thp[node] = {};
  const auto patient = examine(around);
  EXPECT_EQ(patient->unknown.size(), 1u);
  EXPECT_EQ(doctor_status(*patient), 2);
}

TEST(Doctor, OneNodeHasNoPlacement) {
  const FakeRoot root;
  root.write(FakeRoot::kNodes + "/online", "0\n");
  root.write(FakeRoot::kNodes + "/has_memory", "0\n");
  root.remove(FakeRoot::kNodes + "/node1");
  root.write("/proc/self/status", "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n");
  root.write("/proc/sys/kernel/numa_balancing", "1\n");
  root.write("/proc/sys/vm/zone_reclaim_mode", "1\n");
  Surroundings around = healthy(root);
  for (const Ability call : {Ability::kBind, Ability::kAskPolicy, Ability::kAskPlaces}) fails(around, call, EPERM);
  EXPECT_EQ(ids(*examine(around)), "");
}

// Memory without CPUs waits to be asked for: it needs no pool, and nothing is tried on it.
TEST(Doctor, LeavesMemoryWithoutCpusAlone) {
  const FakeRoot root;
  root.write(FakeRoot::kNodes + "/node1/cpulist", "\n");
  root.set_pool("1", "2048", 0, 0);
  Surroundings around = healthy(root);
  around.trials.thp[1] = {};
  const auto patient = examine(around);
  EXPECT_EQ(ids(*patient), "");
  EXPECT_EQ(node_list(patient->usable), "0");
  EXPECT_EQ(node_list(patient->allowed), "0-1");
}

// What a binding or a cpuset takes away is not there.
TEST(Doctor, CountsThePoolsThatMayBeUsed) {
  const FakeRoot root;
  root.set_pool("1", "2048", 0, 0);
  root.write("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "490\n");
  Surroundings around = healthy(root);
  around.policy.mode = InheritedPolicy::Mode::kBind;
  around.policy.nodes = NodeSet::of(NodeId(1));
  fails(around, Ability::kTakePool, ENOMEM);
  around.trials.thp[0].node = 1;
  EXPECT_EQ(ids(*examine(around)), "pool-empty policy ");
  around.policy.nodes = NodeSet::of(NodeId(0));
  fails(around, Ability::kTakePool, 0);
  around.trials.thp[0].node = 0;
  const auto patient = examine(around);
  EXPECT_EQ(ids(*patient), "policy ");
  EXPECT_NE(doctor_text(*patient, {}).find("pool of 2 MiB pages: 512, 10 to be had;"), std::string::npos);
}

// Version 1 of control groups has a number for "none".
TEST(Doctor, NoLimitIsNone) {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "4:memory:/a\n10:hugetlb:/a\n");
  root.write("/proc/self/mountinfo",
             "35 31 0:32 / /groups/memory rw - cgroup cgroup rw,memory\n"
             "36 31 0:33 / /groups/hugetlb rw - cgroup cgroup rw,hugetlb\n");
  root.write("/groups/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  for (const char* const kind : {"", "rsvd."}) {
    root.write(std::string("/groups/hugetlb/a/hugetlb.2MB.") + kind + "limit_in_bytes", "9223372036854771712\n");
  }
  EXPECT_EQ(ids(*examine(healthy(root))), "");
  root.write("/groups/hugetlb/a/hugetlb.2MB.limit_in_bytes", "4194304\n");
  EXPECT_EQ(ids(*examine(healthy(root))), "hugetlb-limit ");
}

TEST(Doctor, KnowsContainers) {
  struct Kind {
    const char* kind;
    std::function<void(const FakeRoot&, Surroundings&)> make;
  };
  const Kind kinds[] = {
      {"", [](auto&, auto&) {}},
      {"docker", [](auto& root, auto&) { root.write("/.dockerenv", ""); }},
      {"podman", [](auto& root, auto&) { root.write("/run/.containerenv", ""); }},
      {"kubernetes",
       [](auto& root, auto& a) {
         root.write("/.dockerenv", ""), a.environment.push_back("KUBERNETES_SERVICE_HOST=x");
       }},
      {"kubernetes", [](auto& root, auto&) { root.write("/proc/self/cgroup", "4:memory:/kubepods/pod1\n"); }},
      {"apptainer", [](auto& root, auto&) { root.write("/.singularity.d/labels.json", ""); }},
      {"systemd-nspawn", [](auto& root, auto&) { root.write("/run/systemd/container", "systemd-nspawn\n"); }},
      {"lxc", [](auto&, auto& a) { a.environment.push_back("container=lxc"); }},
      {"a user namespace", [](auto& root, auto&) { root.write("/proc/self/uid_map", "0 1000 1\n"); }},
      // Files that an image has left behind, where the machine itself is what runs.
      {"",
       [](auto& root, auto&) {
         root.write("/.dockerenv", "");
         root.link("/proc/self/ns/pid", "pid:[4026531836]");
         root.link("/proc/self/ns/uts", "uts:[4026531838]");
         root.link("/proc/self/ns/ipc", "ipc:[4026531839]");
         root.link("/proc/self/ns/user", "user:[4026531837]");
       }},
  };
  for (const Kind& kind : kinds) {
    const FakeRoot root;
    Surroundings around = healthy(root);
    kind.make(root, around);
    const auto patient = examine(around);
    EXPECT_EQ(patient->container, kind.kind);
    EXPECT_EQ(who_text(Remedy::Who::kRoot, *patient), kind.kind[0] != '\0' ? "root on the host" : "root");
  }
}

}  // namespace
}  // namespace nh::cli
