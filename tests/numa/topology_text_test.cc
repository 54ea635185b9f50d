#include "numa/topology_text.h"

#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "machines.h"

namespace nh {
namespace {

std::string text_of(const Topology& t) {
  static Text<128 * 1024> out;
  out.clear();
  write_topology_text(out, t);
  EXPECT_FALSE(out.truncated());
  return std::string(out.view());
}

class TopologyTextOf : public ::testing::TestWithParam<NamedMachine> {};

INSTANTIATE_TEST_SUITE_P(Machines, TopologyTextOf, ::testing::ValuesIn(all_machines()),
                         [](const auto& p) { return std::string(p.param.name); });

TEST_P(TopologyTextOf, ComesBackWhole) {
  const FakeTree tree(GetParam().machine);
  auto original = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, original.get());
  const std::string text = text_of(*original);
  auto copy = std::make_unique<Topology>();
  Text<256> why;
  ASSERT_TRUE(load_serialised_topology(text, SysfsRoot{tree.path()}, copy.get(), &why)) << why.view();
  EXPECT_TRUE(copy->check());
  EXPECT_EQ(copy->source(), TopologySource::kInherited);
  EXPECT_EQ(text_of(*copy), text);
  // What is not in the text follows from it: orders, and the cpuset of this very process.
  EXPECT_EQ(copy->heap_count(), original->heap_count());
  EXPECT_EQ(copy->helper_count(), original->helper_count());
  EXPECT_EQ(copy->possible_cpu_limit(), original->possible_cpu_limit());
  for (unsigned i = 0; i < original->node_count(); i++) {
    for (unsigned rank = 0; rank < original->heap_count(); rank++) {
      ASSERT_EQ(copy->fallback(i, rank), original->fallback(i, rank));
    }
    EXPECT_EQ(copy->node(i).kind, original->node(i).kind);
    EXPECT_EQ(copy->node(i).reason, original->node(i).reason);
  }
}

TEST(TopologyText, LargestMachineFitsIntoAVariable) {
  const FakeTree tree(FakeMachine::uniform(256, 32, 40));
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  EXPECT_EQ(t->heap_count(), 256u);
  EXPECT_EQ(t->possible_cpu_limit(), kMaxCpus);
  EXPECT_LT(text_of(*t).size(), 16u * 1024);
}

TEST(TopologyText, DescribedMachinesIgnoreTheCpusetOfThisOne) {
  FakeTree tree;
  tree.write("/proc/self/status", "Mems_allowed_list:\t1\n");
  const std::string rest = "/p0-1/n0:1:m:0:0:0/n1:1:m:0:0:1/d10,20x2,10";
  Topology t;
  Text<64> why;
  ASSERT_TRUE(load_serialised_topology("nh1:d" + rest, SysfsRoot{tree.path()}, &t, &why));
  EXPECT_EQ(t.helper_count(), 2u);
  ASSERT_TRUE(load_serialised_topology("nh1:r" + rest, SysfsRoot{tree.path()}, &t, &why));
  EXPECT_EQ(t.helper_count(), 1u);
}

constexpr char kBootId[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr char kOtherBootId[] = "01234567-89ab-cdef-0123-456789abcdee";

TEST(TopologyText, CarriesTheBootIdOfItsMachine) {
  FakeTree tree(FakeMachine::uniform(2, 2));
  tree.write("/proc/sys/kernel/random/boot_id", std::string(kBootId) + "\n");
  const SysfsRoot root{tree.path()};
  BootId id;
  ASSERT_TRUE(read_boot_id(root, &id));
  EXPECT_EQ(id.view(), kBootId);
  Topology t;
  load_sysfs_topology(root, &t);
  Text<1024> text, anybodys;
  write_topology_text(text, t, id.view());
  write_topology_text(anybodys, t);
  EXPECT_EQ(text.view().substr(0, 44), "nh1:r/b" + std::string(kBootId) + "/");
  EXPECT_FALSE(is_of_another_machine(text.view(), root));
  Text<64> why;
  ASSERT_TRUE(load_serialised_topology(text.view(), root, &t, &why)) << why.view();
  EXPECT_EQ(text_of(t), anybodys.view()) << "the rest is as without a boot id";

  tree.write("/proc/sys/kernel/random/boot_id", std::string(kOtherBootId) + "\n");
  EXPECT_TRUE(is_of_another_machine(text.view(), root));
  EXPECT_FALSE(is_of_another_machine(anybodys.view(), root));
  // A machine that does not tell its own boot id cannot know.
  tree.write("/proc/sys/kernel/random/boot_id", "\n");
  EXPECT_TRUE(is_of_another_machine(text.view(), root));
  tree.remove("/proc/sys/kernel/random/boot_id");
  EXPECT_FALSE(read_boot_id(root, &id));
  EXPECT_TRUE(is_of_another_machine(text.view(), root));
  EXPECT_FALSE(is_of_another_machine(anybodys.view(), root));
  for (const char* const other : {"", "numa:2 pu:2", "/machine.xml", "nh1:", "nh1:x/b/p0"}) {
    EXPECT_FALSE(is_of_another_machine(other, root)) << other;
  }
}

TEST(TopologyText, RefusesWhatItWouldNotWrite) {
  const char* const kBad[] = {
      "", "nh1:", "nh2:r/p0/n0:1:m:0:0:0/d10", "r/p0/n0:1:m:0:0:0/d10", "nh1:x/p0/n0:1:m:0:0:0/d10",
      "nh1:r/n0:1:m:0:0:0/d10",                        // no possible CPUs
      "nh1:r/p0/d10",                                  // no node
      "nh1:r/p0/n0:1:m:0:0:0",                         // no distances
      "nh1:r/p0/n0:1:m:0:0:0/d",                       // none of them
      "nh1:r/p0/n0:1:m:0:0:0/d10,10",                  // too many
      "nh1:r/p0-1/n0:1:m:0:0:0/n1:1:m:0:0:1/d10,20",   // too few
      "nh1:r/p0-1/n0:1:m:0:0:0/n1:1:m:0:0:1/d10x5",    // too many at once
      "nh1:r/p0-1/n0:1:m:0:0:0/n1:1:m:0:0:1/d10x0,20x4",
      "nh1:r/p0/n0:1:m:0:0:0/d256", "nh1:r/p0/n0:1:m:0:0:0/d0", "nh1:r/p0/n0:1:m:0:0:0/d10 ", "nh1:r/p0/n0:1:m:0:0:0/d10/",
      "nh1:r/p0/n0:1:m:0:0:0/n0:1:m:0:0:1/d10x4",      // a node twice
      "nh1:r/p0/n0:1:m:0:0:0/n1:1:m:0:0:0/d10x4",      // a CPU twice
      "nh1:r/p0/n1024:1:m:0:0:0/d10", "nh1:r/p0/n-1:1:m:0:0:0/d10", "nh1:r/p0/n0:1:x:0:0:0/d10",
      "nh1:r/p0/n0:1:m:256:0:0/d10", "nh1:r/p0/n0:1:m:0:9:0/d10", "nh1:r/p0/n0:1:m:0:0:3-1/d10",
      "nh1:r/b/p0/n0:1:m:0:0:0/d10", "nh1:r/b0123/p0/n0:1:m:0:0:0/d10", "nh1:r/b",
      "nh1:r/p0/n0:18446744073709551615:m:0:0:0/d10", "nh1:r/px/n0:1:m:0:0:0/d10",
      "nh1:r/p0/n0:1:m:0:5:0/d10", "nh1:r/p0/n0:1:m:0:0,:0/d10", "nh1:r/p0/n0:1:m:0:0,1:0/d10",
      "nh1:r/p0/n0:1:m:0:0,1,2,3:0/d10", "nh1:r/p0/n0:1:m:0:0,4294967296,1:0/d10",
  };
  for (const char* const text : kBad) {
    Topology t;
    bool real = false;
    EXPECT_FALSE(parse_topology_text(text, &t, &real)) << text;
  }
  Topology t;
  bool real = false;
  EXPECT_TRUE(parse_topology_text("nh1:r/p0/n0:1:m:0:0:0/d10", &t, &real));
  EXPECT_TRUE(real);
}

TEST(TopologyText, DamagedTextIsRefusedOrMakesAWholeTopology) {
  const FakeTree tree(expander_memory());
  auto t = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{tree.path()}, t.get());
  const std::string text = text_of(*t);
  std::mt19937 random(7);
  unsigned refused = 0;
  for (int round = 0; round < 5000; round++) {
    std::string damaged = text;
    for (unsigned n = 1 + random() % 3; n > 0; n--) {
      const std::size_t at = random() % damaged.size();
      switch (random() % 3) {
        case 0: damaged[at] = "0123456789:/,-xnmpd"[random() % 19]; break;
        case 1: damaged.erase(at, 1 + random() % 4); break;
        default: damaged.insert(at, 1, "0123456789:/,-xnmpd"[random() % 19]); break;
      }
    }
    bool real = false;
    if (parse_topology_text(damaged, t.get(), &real)) {
      EXPECT_TRUE(t->check()) << damaged;
    } else {
      refused++;
    }
  }
  EXPECT_GT(refused, 1000u);
}

}  // namespace
}  // namespace nh
