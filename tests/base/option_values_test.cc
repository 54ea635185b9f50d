#include <string>

#include <gtest/gtest.h>

#include "base/options.h"

namespace nh {
namespace {

NodeSet nodes(std::initializer_list<int> members) {
  NodeSet set;
  for (const int n : members) set.add(NodeId(n));
  return set;
}

TEST(OptionSize, TakesSuffixesInAnyCase) {
  const struct { const char* text; std::uint64_t bytes; } kGood[] = {
      {"0", 0},           {"4096", 4096},     {"4096b", 4096},   {"64K", 64 * KiB}, {"64k", 64 * KiB},
      {"2M", 2 * MiB},    {"2MB", 2 * MiB},   {"2MiB", 2 * MiB}, {"2mib", 2 * MiB}, {"1G", 1 * GiB},
      {"3T", 3 * TiB},    {"007K", 7 * KiB},  {"16777215T", 16777215 * TiB},
  };
  for (const auto& [text, bytes] : kGood) {
    std::uint64_t value = 1;
    EXPECT_TRUE(parse_size(text, &value)) << text;
    EXPECT_EQ(value, bytes) << text;
  }
}

TEST(OptionSize, RefusesEverythingElse) {
  for (const char* const text : {"", "K", "-1", "+1", " 1", "1 ", "1.5G", "1X", "1KK", "1iB", "0x10", "1e3", "16777216T",
                                 "18446744073709551616", "18014398509481984K"}) {
    std::uint64_t value = 7;
    EXPECT_FALSE(parse_size(text, &value)) << text;
    EXPECT_EQ(value, 7u) << text;
  }
}

TEST(OptionSize, WritesTheShortestFormThatParsesBack) {
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1023}, std::uint64_t{1025}, 64 * KiB,
                                    3 * MiB, 1025 * MiB, 5 * TiB, 4096 * TiB, ~std::uint64_t{0}}) {
    Text<32> out;
    write_size(out, bytes);
    std::uint64_t back = 0;
    EXPECT_TRUE(parse_size(out.view(), &back)) << out.view();
    EXPECT_EQ(back, bytes) << out.view();
  }
  Text<32> out;
  write_size(out, 1025 * MiB);
  EXPECT_EQ(out.view(), "1025M");
}

TEST(OptionDuration, MillisecondsUnlessSaidOtherwise) {
  const struct { const char* text; std::uint64_t ms; } kGood[] = {
      {"0", 0}, {"250", 250}, {"250ms", 250}, {"5s", 5000}, {"2m", 120'000}, {"2min", 120'000}, {"1S", 1000}};
  for (const auto& [text, ms] : kGood) {
    std::uint64_t value = 1;
    EXPECT_TRUE(parse_duration(text, &value)) << text;
    EXPECT_EQ(value, ms) << text;
  }
  for (const char* const text : {"", "s", "-5s", "5h", "5 s", "1.5s", "18446744073709551615s"}) {
    std::uint64_t value = 7;
    EXPECT_FALSE(parse_duration(text, &value)) << text;
  }
  Text<32> out;
  write_duration(out, 5000);
  out.ch(' ');
  write_duration(out, 1500);
  out.ch(' ');
  write_duration(out, 0);
  EXPECT_EQ(out.view(), "5s 1500ms 0ms");
}

TEST(OptionBool, Words) {
  for (const char* const text : {"1", "true", "yes", "on", "ON", "True"}) {
    bool value = false;
    EXPECT_TRUE(parse_bool(text, &value)) << text;
    EXPECT_TRUE(value) << text;
  }
  for (const char* const text : {"0", "false", "no", "off", "Off"}) {
    bool value = true;
    EXPECT_TRUE(parse_bool(text, &value)) << text;
    EXPECT_FALSE(value) << text;
  }
  for (const char* const text : {"", "2", "01", "t", "yess", "o"}) {
    bool value = true;
    EXPECT_FALSE(parse_bool(text, &value)) << text;
    EXPECT_TRUE(value) << text;
  }
}

TEST(OptionNodeList, AsNumactlWritesThem) {
  NodeList list;
  ASSERT_TRUE(parse_node_list("0-3,5", &list));
  EXPECT_EQ(list.nodes, nodes({0, 1, 2, 3, 5}));
  EXPECT_FALSE(list.all);
  ASSERT_TRUE(parse_node_list("8,2,2-3", &list));
  EXPECT_EQ(list.nodes, nodes({2, 3, 8}));
  ASSERT_TRUE(parse_node_list("1023", &list));
  EXPECT_EQ(list.nodes, nodes({1023}));
  ASSERT_TRUE(parse_node_list("all", &list));
  EXPECT_TRUE(list.all);
  EXPECT_TRUE(list.nodes.empty());
}

TEST(OptionNodeList, RefusesAndLeavesTheListAlone) {
  for (const char* const text : {"", ",", "0,", ",0", "3-1", "0-", "-1", "0--1", "1024", "0-1024", "x", "0 1", "0;1", "ALL",
                                 "all,0", "0-1-2", "99999999999999999999"}) {
    NodeList list{false, nodes({7})};
    EXPECT_FALSE(parse_node_list(text, &list)) << text;
    EXPECT_EQ(list.nodes, nodes({7})) << text;
  }
}

TEST(OptionPolicy, RoundTrip) {
  const struct { const char* text; PolicyKind kind; bool all; NodeSet where; } kGood[] = {
      {"local", PolicyKind::kLocal, false, {}},
      {"interleave", PolicyKind::kInterleave, false, {}},
      {"interleave:all", PolicyKind::kInterleave, true, {}},
      {"interleave:0-1,4", PolicyKind::kInterleave, false, nodes({0, 1, 4})},
      {"bind:2", PolicyKind::kBind, false, nodes({2})},
      {"bind:all", PolicyKind::kBind, true, {}},
      {"preferred:1", PolicyKind::kPreferred, false, nodes({1})},
      {"preferred:0-1,4", PolicyKind::kPreferred, false, nodes({0, 1, 4})},
      {"weighted", PolicyKind::kWeighted, false, {}},
      {"weighted:2,4", PolicyKind::kWeighted, false, nodes({2, 4})},
      {"bandwidth", PolicyKind::kBandwidth, false, {}},
      {"latency", PolicyKind::kLatency, false, {}},
      {"capacity", PolicyKind::kCapacity, false, {}},
  };
  for (const auto& good : kGood) {
    PolicyOption policy;
    ASSERT_TRUE(parse_policy(good.text, &policy)) << good.text;
    EXPECT_EQ(policy.kind, good.kind) << good.text;
    EXPECT_EQ(policy.where.all, good.all) << good.text;
    EXPECT_EQ(policy.where.nodes, good.where) << good.text;
    Text<64> out;
    write_policy(out, policy);
    EXPECT_EQ(out.view(), good.text);
  }
}

TEST(OptionValues, NodesThatMayBeUsed) {
  NodesOption nodes;
  EXPECT_TRUE(nodes.allows(NodeId(1023)));
  ASSERT_TRUE(parse_nodes("0-2,5", &nodes));
  EXPECT_TRUE(nodes.allows(NodeId(5)));
  EXPECT_FALSE(nodes.allows(NodeId(4)));
  ASSERT_TRUE(parse_nodes("!0-2,5", &nodes));
  EXPECT_FALSE(nodes.allows(NodeId(5)));
  EXPECT_TRUE(nodes.allows(NodeId(4)));
  for (const char* const text : {"0-2,5", "!0-2,5", "all"}) {
    ASSERT_TRUE(parse_nodes(text, &nodes)) << text;
    Text<64> out;
    write_nodes(out, nodes);
    EXPECT_EQ(out.view(), text);
  }
  const NodesOption before = nodes;
  for (const char* const text : {"", "!", "!all", "!!1", "1!", "! 1", "-1", "1024"}) {
    EXPECT_FALSE(parse_nodes(text, &nodes)) << text;
    EXPECT_EQ(nodes, before) << text;
  }
}

TEST(OptionPolicy, Refuses) {
  for (const char* const text : {"", "locl", "local:0", "bind", "bind:", "bind:x", "preferred", "preferred:",
                                 "preferred:all", "interleave:", "interleave:0,", ":0", "bandwidth:0", "latency:",
                                 "weighted:"}) {
    PolicyOption policy;
    EXPECT_FALSE(parse_policy(text, &policy)) << text;
    EXPECT_EQ(policy, PolicyOption()) << text;
  }
}

TEST(OptionLarge, RoundTrip) {
  const struct { const char* text; LargeOption value; } kGood[] = {
      {"firsttouch", {}},
      {"local", {.kind = LargeKind::kLocal}},
      {"interleave", {.kind = LargeKind::kInterleave}},
      {"weighted", {.kind = LargeKind::kWeighted}},
      {"bandwidth", {.kind = LargeKind::kBandwidth}},
      {"bandwidth:1M", {LargeKind::kBandwidth, MiB}},
      {"latency:64K-1M", {LargeKind::kLatency, 64 * KiB, MiB}},
      {"capacity:1G-1G", {LargeKind::kCapacity, GiB, GiB}},
      {"bandwidth:1K-4G", {LargeKind::kBandwidth, KiB, 4 * GiB}},
  };
  for (const auto& good : kGood) {
    LargeOption large;
    ASSERT_TRUE(parse_large(good.text, &large)) << good.text;
    EXPECT_EQ(large, good.value) << good.text;
    Text<64> out;
    write_large(out, large);
    EXPECT_EQ(out.view(), good.text);
  }
}

TEST(OptionLarge, Refuses) {
  for (const char* const text : {"", "bandwith", "bandwidth:", "bandwidth:x", "bandwidth:1M-", "bandwidth:-4M", "bandwidth:0",
                                 "bandwidth:2M-1M", "bandwidth:1M-2M-3M", "bandwidth:1M:2M", "firsttouch:1M", "local:1M",
                                 "interleave:0", "weighted:1M"}) {
    LargeOption large;
    EXPECT_FALSE(parse_large(text, &large)) << text;
    EXPECT_EQ(large, LargeOption()) << text;
  }
}

TEST(OptionNodeList, IsWrittenInRanges) {
  Text<64> out;
  write_node_list(out, nodes({0, 1, 2, 5, 7, 8}));
  out.ch(' ');
  write_node_list(out, NodeSet());
  out.ch(' ');
  write_node_list(out, nodes({1022, 1023}));
  EXPECT_EQ(out.view(), "0-2,5,7-8 none 1022-1023");
}

}  // namespace
}  // namespace nh
