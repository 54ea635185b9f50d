// hwloc as a second opinion on what sysfs_topology.cc reads, and as the source of described machines.
#include "numa/hwloc_topology.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <hwloc.h>
#include <link.h>
#include <sched.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "machines.h"
#include "numa/topology_text.h"

namespace nh {
namespace {

std::unique_ptr<Topology> load(HwlocInput input, const char* text) {
  auto t = std::make_unique<Topology>();
  Text<256> why;
  EXPECT_TRUE(load_hwloc_topology(input, text, t.get(), &why)) << why.view();
  EXPECT_TRUE(t->check());
  return t;
}

class HwlocAgrees : public ::testing::TestWithParam<NamedMachine> {};

INSTANTIATE_TEST_SUITE_P(Machines, HwlocAgrees, ::testing::ValuesIn(all_machines()),
                         [](const auto& p) { return std::string(p.param.name); });

TEST_P(HwlocAgrees, WithSysfs) {
  const FakeTree tree(GetParam().machine, true);
  auto ours = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, ours.get());
  const auto theirs = load(HwlocInput::kMachine, tree.path());
  EXPECT_EQ(theirs->source(), TopologySource::kHwloc);
  ASSERT_EQ(theirs->node_count(), ours->node_count());
  ASSERT_EQ(theirs->heap_count(), ours->heap_count());
  EXPECT_EQ(theirs->known_cpus(), ours->known_cpus());
  for (unsigned i = 0; i < ours->node_count(); i++) {
    EXPECT_EQ(theirs->node(i).id, ours->node(i).id);
    EXPECT_EQ(theirs->node(i).memory_bytes, ours->node(i).memory_bytes);
    EXPECT_EQ(theirs->node(i).memory_only(), ours->node(i).memory_only());
    EXPECT_EQ(theirs->cpus_of_node(i), ours->cpus_of_node(i));
    for (unsigned j = 0; j < ours->node_count(); j++) EXPECT_EQ(theirs->distance(i, j), ours->distance(i, j));
  }
  // What hwloc (2.9) does not read: generic initiators and the kernel's tiers. Knights Landing it knows by more than the
  // tree holds.
  const std::string name = GetParam().name;
  const bool knows_kinds = name != "GraceHopperWithoutDriver" && name != "ThreeKindsOfMemory" && name != "KnightsLanding";
  for (unsigned i = 0; knows_kinds && i < ours->node_count(); i++) {
    EXPECT_EQ(theirs->node(i).kind, ours->node(i).kind) << ours->node(i).id;
    EXPECT_EQ(theirs->node(i).bandwidth, ours->node(i).bandwidth) << ours->node(i).id;
    EXPECT_EQ(theirs->node(i).latency, ours->node(i).latency) << ours->node(i).id;
  }
  auto both = std::make_unique<Topology>(), scratch = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, both.get());
  Text<256> why;
  EXPECT_TRUE(refine_with_hwloc(SysfsRoot{tree.path()}, both.get(), scratch.get(), &why)) << why.view();
  EXPECT_EQ(both->source(), TopologySource::kHwloc);
  EXPECT_EQ(both->helper_count(), ours->helper_count()) << "the cpuset stays in force";
  for (unsigned i = 0; i < ours->node_count(); i++) {
    EXPECT_EQ(both->node(i).kind, ours->node(i).kind) << ours->node(i).id;
    for (unsigned rank = 0; rank < ours->heap_count(); rank++) EXPECT_EQ(both->fallback(i, rank), ours->fallback(i, rank));
  }
  EXPECT_TRUE(both->check());
}

TEST(Hwloc, AnotherMachineIsNotTaken) {
  const FakeTree tree(FakeMachine::uniform(2, 4), true);
  const FakeTree other(FakeMachine::uniform(4, 2), true);
  auto t = std::make_unique<Topology>(), scratch = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  Text<256> why;
  EXPECT_FALSE(refine_with_hwloc(SysfsRoot{other.path()}, t.get(), scratch.get(), &why));
  EXPECT_NE(why.view(), "");
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  EXPECT_EQ(t->node_count(), 2u);
}

// What a library in other people's processes must not do.
TEST(Hwloc, LeavesTheProcessAsItWas) {
  ::setenv("HWLOC_COMPONENTS_VERBOSE", "0", 1);
  std::vector<std::string> before;
  for (char** v = ::environ; *v != nullptr; v++) before.push_back(*v);
  char** const environment = ::environ;
  cpu_set_t cpus_before, cpus_after;
  ::sched_getaffinity(0, sizeof cpus_before, &cpus_before);
  errno = 77;
  load(HwlocInput::kMachine, "");
  EXPECT_EQ(errno, 77);
  ::sched_getaffinity(0, sizeof cpus_after, &cpus_after);
  EXPECT_TRUE(CPU_EQUAL(&cpus_before, &cpus_after));
  EXPECT_EQ(::environ, environment);
  std::vector<std::string> after;
  for (char** v = ::environ; *v != nullptr; v++) after.push_back(*v);
  EXPECT_EQ(after, before);
}

// Constructors of other libraries may have started threads before ours runs, and those may call getenv() at any time.
TEST(Hwloc, IsNotAskedWhileThereAreOtherThreads) {
  const FakeTree tree(FakeMachine::uniform(2, 4), true);
  auto t = std::make_unique<Topology>(), scratch = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  std::atomic<bool> end{false};
  std::atomic<bool> changed{false};
  char** const environment = ::environ;
  std::thread other([&] {
    while (!end) {
      if (::environ != environment) changed = true;
    }
  });
  Text<256> why;
  EXPECT_FALSE(refine_with_hwloc(SysfsRoot{tree.path()}, t.get(), scratch.get(), &why));
  EXPECT_NE(why.view().find("threads"), std::string_view::npos) << why.view();
  EXPECT_EQ(t->source(), TopologySource::kSysfs);
  end = true;
  other.join();
  EXPECT_FALSE(changed);
  why.clear();
  EXPECT_TRUE(refine_with_hwloc(SysfsRoot{tree.path()}, t.get(), scratch.get(), &why)) << "it is alone again: " << why.view();
}

unsigned long long libraries_loaded_so_far() {
  unsigned long long count = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<unsigned long long*>(out) = info->dlpi_adds;
        return 1;
      },
      &count);
  return count;
}

TEST(Hwloc, LoadsNoPlugins) {
  // They are unloaded with the topology, but by then their libraries (X11, OpenCL, libstdc++) have run their
  // constructors in the program. This test links libhwloc, so that nothing at all remains to be loaded.
  const unsigned long long before = libraries_loaded_so_far();
  load(HwlocInput::kMachine, "");
  load(HwlocInput::kSynthetic, "numa:2 pu:2");
  EXPECT_EQ(libraries_loaded_so_far(), before);
}

TEST(Hwloc, NodesThatACpusetForbidsAreStillThere) {
  FakeTree tree(FakeMachine::uniform(4, 4), true);
  tree.write("/proc/mounts", "none /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n");
  tree.write("/proc/self/cpuset", "/job\n");
  tree.write("/sys/fs/cgroup/cpuset/job/cpuset.cpus", "8-11\n");
  tree.write("/sys/fs/cgroup/cpuset/job/cpuset.mems", "2-3\n");
  const auto t = load(HwlocInput::kMachine, tree.path());
  EXPECT_EQ(t->heap_count(), 4u);
  EXPECT_EQ(t->known_cpus().count(), 16u);
}

TEST(Hwloc, UsersOwnSettingsStillCount) {
  const FakeTree tree(FakeMachine::uniform(4, 4), true);
  ::setenv("HWLOC_FSROOT", tree.path(), 1);
  const auto t = load(HwlocInput::kMachine, "");
  ::unsetenv("HWLOC_FSROOT");
  EXPECT_EQ(t->node_count(), 4u);
}

TEST(HwlocSynthetic, PackagesAndNodes) {
  const auto t = load(HwlocInput::kSynthetic, "pack:2 numa:2 core:4 pu:2");
  EXPECT_EQ(t->source(), TopologySource::kSynthetic);
  ASSERT_EQ(t->heap_count(), 4u);
  EXPECT_EQ(t->known_cpus().count(), 32u);
  EXPECT_EQ(t->node(0).cpus, 8u);
  EXPECT_EQ(t->node_of_cpu(CpuId(31)), NodeId(3));
  EXPECT_EQ(t->fallback(1, 1), HeapId(0)) << "the node of the same package before the others";
  EXPECT_EQ(t->fallback(2, 1), HeapId(3));
  EXPECT_LT(t->distance(0, 1), t->distance(0, 2));
  EXPECT_EQ(t->distance(0, 0), 10);
}

TEST(HwlocSynthetic, MemoryOnlyNodesBesideOrdinaryOnes) {
  // Each package has one node of its own and shares a second one without CPUs of its own.
  const auto t = load(HwlocInput::kSynthetic, "[numa(memory=64GB)] pack:2 [numa(memory=16GB)] core:4 pu:1");
  ASSERT_EQ(t->heap_count(), 3u);
  unsigned memory_only = 0;
  for (unsigned i = 0; i < 3; i++) {
    memory_only += t->node(i).memory_only();
    EXPECT_EQ(t->node(i).cpus, t->node(i).memory_only() ? 0u : 4u);
  }
  EXPECT_EQ(memory_only, 1u);
}

TEST(HwlocSynthetic, NonsenseIsRefusedWithAReason) {
  for (const char* const text : {"", "hello", "numa:0", "pack:"}) {
    Topology t;
    Text<256> why;
    EXPECT_FALSE(load_hwloc_topology(HwlocInput::kSynthetic, text, &t, &why)) << text;
    EXPECT_NE(why.view(), "") << text;
  }
}

// Written by the library that these tests link, as lstopo would write it.
std::string exported(const FakeTree& machine, FakeTree& into) {
  ::setenv("HWLOC_FSROOT", machine.path(), 1);
  hwloc_topology_t topology;
  hwloc_topology_init(&topology);
  hwloc_topology_load(topology);
  const std::string file = std::string(into.path()) + "/machine.xml";
  EXPECT_EQ(hwloc_topology_export_xml(topology, file.c_str(), 0), 0);
  hwloc_topology_destroy(topology);
  ::unsetenv("HWLOC_FSROOT");
  return file;
}

TEST(HwlocXml, IsReadBack) {
  for (const FakeMachine& machine : {sub_numa_clusters(), knights_landing(), nodes_without_memory()}) {
    const FakeTree tree(machine, true);
    FakeTree files;
    const auto t = load(HwlocInput::kXml, exported(tree, files).c_str());
    auto direct = std::make_unique<Topology>();
    load_sysfs_topology(SysfsRoot{tree.path()}, direct.get());
    EXPECT_EQ(t->source(), TopologySource::kXml);
    EXPECT_TRUE(direct->refine(*t));
    for (unsigned i = 0; i < direct->node_count(); i++) {
      for (unsigned j = 0; j < direct->node_count(); j++) EXPECT_EQ(t->distance(i, j), direct->distance(i, j));
    }
  }
}

// Written by lstopo for a processor each of whose caches is a node of its own.
TEST(HwlocXml, NodesBelowACacheKeepTheirCpus) {
  hwloc_topology_t topology;
  hwloc_topology_init(&topology);
  hwloc_topology_set_synthetic(topology, "pack:2 l3:4 [numa(memory=1GB)] core:2 pu:1");
  hwloc_topology_load(topology);
  FakeTree files;
  const std::string file = std::string(files.path()) + "/machine.xml";
  ASSERT_EQ(hwloc_topology_export_xml(topology, file.c_str(), 0), 0);
  hwloc_topology_destroy(topology);
  const auto t = load(HwlocInput::kXml, file.c_str());
  ASSERT_EQ(t->heap_count(), 8u);
  for (unsigned i = 0; i < 8; i++) {
    EXPECT_EQ(t->node(i).cpus, 2u) << i;
    EXPECT_EQ(t->node_of_cpu(CpuId(static_cast<int>(2 * i))).value, static_cast<int>(i));
  }
  EXPECT_LT(t->distance(0, 1), t->distance(0, 4)) << "of one package";
}

TEST(HwlocXml, ANodeNearNoCpuIsNotTheNearestOfAll) {
  FakeTree tree(expander_memory(), true);
  for (const char* const node : {"0", "1", "2"}) tree.remove(std::string("/sys/devices/system/node/node") + node + "/distance");
  FakeTree files;
  const auto t = load(HwlocInput::kXml, exported(tree, files).c_str());
  ASSERT_EQ(t->heap_count(), 3u);
  EXPECT_TRUE(t->node(2).memory_only());
  EXPECT_GE(t->distance(0, 2), t->distance(0, 1));
}

TEST(HwlocSynthetic, CpusOfNodesLeftOutGoToTheNearestThatIsKept) {
  const auto t = load(HwlocInput::kSynthetic, "numa:300 pu:2");
  EXPECT_TRUE(t->truncated());
  EXPECT_EQ(t->node_count(), kMaxNodes);
  EXPECT_EQ(t->node_of_cpu(CpuId(2 * 255 + 1)), NodeId(255));
  EXPECT_EQ(t->node_of_cpu(CpuId(599)), NodeId(255));
  EXPECT_EQ(t->known_cpus().count(), 600u);
}

TEST(HwlocXml, BrokenFilesAreRefusedWithAReason) {
  FakeTree files;
  files.write("/empty.xml", "");
  files.write("/garbage.xml", "this is no topology\n");
  files.write("/cut.xml", "<?xml version=\"1.0\"?>\n<topology version=\"2.0\">\n <object type=\"Machine\"");
  for (const char* const name : {"/empty.xml", "/garbage.xml", "/cut.xml", "/missing.xml"}) {
    Topology t;
    Text<256> why;
    EXPECT_FALSE(load_hwloc_topology(HwlocInput::kXml, (files.path() + std::string(name)).c_str(), &t, &why)) << name;
    EXPECT_NE(why.view(), "") << name;
  }
}

TEST(Description, KindShowsInTheText) {
  EXPECT_EQ(kind_of_description("nh1:r/p0"), TopologyDescription::kSerialised);
  EXPECT_EQ(kind_of_description("machine.XML"), TopologyDescription::kXmlFile);
  EXPECT_EQ(kind_of_description("./saved"), TopologyDescription::kXmlFile);
  EXPECT_EQ(kind_of_description("numa:4 pu:2"), TopologyDescription::kSynthetic);
  EXPECT_EQ(kind_of_description("xml"), TopologyDescription::kSynthetic);
  EXPECT_EQ(kind_of_description(""), TopologyDescription::kSynthetic);
}

TEST(Description, EveryKindLoads) {
  const FakeTree tree(FakeMachine::uniform(2, 4), true);
  FakeTree files;
  const std::string xml = exported(tree, files);
  auto t = std::make_unique<Topology>();
  Text<256> why;
  EXPECT_TRUE(load_described_topology("numa:2 pu:4", SysfsRoot{}, t.get(), &why)) << why.view();
  Text<4096> text;
  write_topology_text(text, *t);
  EXPECT_EQ(text.view().substr(0, 5), "nh1:d");
  EXPECT_TRUE(load_described_topology(text.c_str(), SysfsRoot{}, t.get(), &why)) << why.view();
  EXPECT_EQ(t->source(), TopologySource::kInherited);
  EXPECT_EQ(t->heap_count(), 2u);
  EXPECT_TRUE(load_described_topology(xml.c_str(), SysfsRoot{}, t.get(), &why)) << why.view();
  EXPECT_EQ(t->source(), TopologySource::kXml);
  EXPECT_FALSE(load_described_topology("nh1:nonsense", SysfsRoot{}, t.get(), &why));
}

}  // namespace
}  // namespace nh
