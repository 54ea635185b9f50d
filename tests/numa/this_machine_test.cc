// The machine that runs the tests, against libnuma.
#include <memory>

#include <numa.h>
#include <sched.h>

#include <gtest/gtest.h>

#include "numa/policy.h"
#include "numa/sysfs_topology.h"

namespace nh {
namespace {

class ThisMachine : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::numa_available() < 0) GTEST_SKIP() << "no NUMA calls in this kernel or container";
    load_sysfs_topology(SysfsRoot{}, topology_.get());
    ASSERT_TRUE(topology_->check());
  }
  std::unique_ptr<Topology> topology_ = std::make_unique<Topology>();
};

TEST_F(ThisMachine, NodesAndSizes) {
  EXPECT_EQ(topology_->node_count(), static_cast<unsigned>(::numa_num_configured_nodes()));
  for (unsigned i = 0; i < topology_->node_count(); i++) {
    const NodeInfo& node = topology_->node(i);
    EXPECT_EQ(static_cast<long long>(node.memory_bytes), ::numa_node_size64(node.id, nullptr)) << node.id;
  }
}

TEST_F(ThisMachine, CpusAndDistances) {
  const int configured = ::numa_num_configured_cpus();
  EXPECT_GE(topology_->possible_cpu_limit(), static_cast<unsigned>(configured));
  for (CpuId c = topology_->known_cpus().first(); c.valid(); c = topology_->known_cpus().next(CpuId(c.value + 1))) {
    if (c.value >= configured) continue;
    EXPECT_EQ(topology_->node_of_cpu(c).value, ::numa_node_of_cpu(c.value)) << c.value;
  }
  for (unsigned i = 0; i < topology_->node_count(); i++) {
    for (unsigned j = 0; j < topology_->node_count(); j++) {
      const int theirs = ::numa_distance(topology_->node(i).id, topology_->node(j).id);
      if (theirs == 0) continue;  // libnuma's word for "not known"
      EXPECT_EQ(topology_->distance(i, j), theirs);
    }
  }
}

TEST_F(ThisMachine, AllowedNodes) {
  NodeSet allowed;
  ASSERT_TRUE(read_allowed_nodes(SysfsRoot{}, &allowed));
  ::bitmask* const theirs = ::numa_get_mems_allowed();
  for (int n = 0; n <= ::numa_max_node(); n++) {
    EXPECT_EQ(allowed.has(NodeId(n)), ::numa_bitmask_isbitset(theirs, static_cast<unsigned>(n)) != 0);
  }
  ::numa_bitmask_free(theirs);
  CpuSet cpus;
  ASSERT_TRUE(read_allowed_cpus(SysfsRoot{}, &cpus));
  cpu_set_t mask;
  ASSERT_EQ(::sched_getaffinity(0, sizeof mask, &mask), 0);
  EXPECT_EQ(cpus.count(), static_cast<unsigned>(CPU_COUNT(&mask)));
}

TEST_F(ThisMachine, PolicyOfTheThread) {
  using Mode = InheritedPolicy::Mode;
  NodeSet node = NodeSet::of(topology_->node(0).node());
  ::bitmask* const mask = ::numa_allocate_nodemask();
  ::numa_bitmask_setbit(mask, static_cast<unsigned>(topology_->node(0).id));
  ::numa_set_membind(mask);
  InheritedPolicy policy = read_inherited_policy();
  if (policy.mode == Mode::kUnknown) GTEST_SKIP() << "get_mempolicy refused: " << policy.error;
  EXPECT_EQ(policy.mode, Mode::kBind);
  EXPECT_EQ(policy.nodes, node);
  ::numa_set_interleave_mask(mask);
  policy = read_inherited_policy();
  EXPECT_EQ(policy.mode, Mode::kInterleave);
  EXPECT_EQ(policy.nodes, node);
  ::numa_set_preferred(topology_->node(0).id);
  policy = read_inherited_policy();
  EXPECT_TRUE(policy.mode == Mode::kPreferred || policy.mode == Mode::kPreferredMany);
  EXPECT_EQ(policy.nodes, node);
  ::numa_set_localalloc();
  EXPECT_EQ(read_inherited_policy().mode, Mode::kDefault);
  ::numa_free_nodemask(mask);
}

}  // namespace
}  // namespace nh
