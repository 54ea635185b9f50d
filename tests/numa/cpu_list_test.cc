#include "numa/cpu_list.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace nh {
namespace {

std::vector<int> parsed(const char* text) {
  CpuSet set;
  EXPECT_TRUE(parse_cpu_list(text, &set)) << text;
  std::vector<int> members;
  for (CpuId c = set.first(); c.valid(); c = set.next(CpuId(c.value + 1))) members.push_back(c.value);
  EXPECT_EQ(members.size(), set.count());
  return members;
}

TEST(CpuList, AsTheKernelWritesThem) {
  EXPECT_EQ(parsed("0-3,8\n"), (std::vector<int>{0, 1, 2, 3, 8}));
  EXPECT_EQ(parsed("5"), std::vector<int>{5});
  EXPECT_EQ(parsed("0"), std::vector<int>{0});
  EXPECT_EQ(parsed("\n"), std::vector<int>());
  EXPECT_EQ(parsed(""), std::vector<int>());
  EXPECT_EQ(parsed("\t1,3,5-6 \n"), (std::vector<int>{1, 3, 5, 6}));
  EXPECT_EQ(parsed("63-65"), (std::vector<int>{63, 64, 65}));
  EXPECT_EQ(parsed("7-7"), std::vector<int>{7});
}

TEST(CpuList, OrderAndRepetitionDoNotMatter) { EXPECT_EQ(parsed("8,0-2,1"), (std::vector<int>{0, 1, 2, 8})); }

TEST(CpuList, MembersPastTheCapacityAreLeftOut) {
  EXPECT_EQ(parsed("8190-9000"), (std::vector<int>{8190, 8191}));
  EXPECT_EQ(parsed("0,8192,18446744073709551615"), std::vector<int>{0});
  EXPECT_EQ(parsed("0-18446744073709551615").size(), std::size_t{kMaxCpus});
}

TEST(CpuList, GarbageLeavesAnEmptySet) {
  for (const char* const text : {"x", "0-", "-3", "3-1", "0,", ",0", "0,,1", "0 1", "0-3:1/2", "0x3", "1.5", "0-1-2", "0\n1",
                                 "18446744073709551616", "\xff\xff"}) {
    CpuSet cpus;
    cpus.add(CpuId(5));
    EXPECT_FALSE(parse_cpu_list(text, &cpus)) << text;
    EXPECT_TRUE(cpus.empty()) << text;
    NodeSet nodes = NodeSet::of(NodeId(5));
    EXPECT_FALSE(parse_node_id_list(text, &nodes)) << text;
    EXPECT_TRUE(nodes.empty()) << text;
  }
}

TEST(CpuList, NodesToo) {
  NodeSet nodes;
  ASSERT_TRUE(parse_node_id_list("0,8,252-255,1023-4000\n", &nodes));
  EXPECT_EQ(nodes.count(), 7u);
  EXPECT_TRUE(nodes.has(NodeId(1023)));
}

TEST(CpuList, IsWrittenAsItIsRead) {
  for (const char* const text : {"", "0", "0-3,8", "1,3,5-6,8190-8191", "63-64"}) {
    CpuSet set;
    ASSERT_TRUE(parse_cpu_list(text, &set));
    Text<64> out;
    write_cpu_list(out, set);
    EXPECT_EQ(out.view(), text);
  }
}

TEST(CpuSet, WalksAcrossWordsAndEnds) {
  CpuSet set;
  EXPECT_FALSE(set.first().valid());
  for (const int c : {0, 64, 8191}) set.add(CpuId(c));
  EXPECT_EQ(set.next(CpuId(1)), CpuId(64));
  EXPECT_EQ(set.next(CpuId(65)), CpuId(8191));
  EXPECT_FALSE(set.next(CpuId(8192)).valid());
  EXPECT_FALSE(set.has(CpuId(8192)));
  EXPECT_FALSE(set.has(CpuId()));
  set.remove(CpuId(64));
  EXPECT_EQ(set.next(CpuId(1)), CpuId(8191));
}

}  // namespace
}  // namespace nh
