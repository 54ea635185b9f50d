#include "base/options.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"

namespace nh {
namespace {

struct Parsed {
  Options options;
  std::vector<std::string> problems;
  unsigned dropped = 0;
};

Parsed parse(std::vector<const char*> environment, bool secure = false) {
  environment.push_back(nullptr);
  Parsed parsed;
  OptionProblems problems;
  parse_options(environment.data(), secure, &parsed.options, &problems);
  parsed.problems.assign(problems.line, problems.line + problems.count);
  parsed.dropped = problems.dropped;
  return parsed;
}

TEST(Options, EmptyEnvironmentMeansDefaults) {
  OptionProblems problems;
  Options options;
  options.limit = 7;
  parse_options(nullptr, false, &options, &problems);
  EXPECT_EQ(problems.count, 0u);
  EXPECT_EQ(options.hugepages, HugePagesOption::kAuto);
  EXPECT_EQ(options.cpu_cache, 4 * MiB);
  EXPECT_EQ(options.large_min, 128 * KiB);
  EXPECT_EQ(options.large, LargeOption());
  EXPECT_EQ(options.fork_max, 1 * GiB);
  EXPECT_EQ(options.limit, 0u);
  EXPECT_EQ(options.policy, PolicyOption());
  EXPECT_TRUE(options.stats.empty());
  EXPECT_TRUE(options.topology.empty());
  EXPECT_EQ(options.given_, 0u);
}

TEST(Options, EveryKindIsTaken) {
  const char kTopology[] = "NUMAHEAP_TOPOLOGY=numa:4 core:2 pu:1";
  const Parsed p = parse({"PATH=/bin", "NUMAHEAP_HUGEPAGES=1G", "NUMAHEAP_CPU_CACHE=512K", "NUMAHEAP_SCAVENGE=inline",
                          "NUMAHEAP_SCAVENGE_DELAY=2s", "NUMAHEAP_STATS=/tmp/%p.json", "NUMAHEAP_REPORT=yes", kTopology,
                          "NUMAHEAP_POLICY=bind:0-1", "NUMAHEAP_FORK=cow", "NUMAHEAP_RSEQ=own"});
  EXPECT_EQ(p.problems, std::vector<std::string>());
  EXPECT_EQ(p.options.hugepages, HugePagesOption::k1G);
  EXPECT_EQ(p.options.cpu_cache, 512 * KiB);
  EXPECT_EQ(p.options.scavenge, ScavengeOption::kInline);
  EXPECT_EQ(p.options.scavenge_delay_ms, 2000u);
  EXPECT_STREQ(p.options.stats.c_str(), "/tmp/%p.json");
  EXPECT_TRUE(p.options.report);
  EXPECT_EQ(p.options.topology.text, kTopology + 18);  // borrowed, not copied
  EXPECT_EQ(p.options.policy.kind, PolicyKind::kBind);
  EXPECT_EQ(p.options.fork, ForkOption::kCow);
  EXPECT_EQ(p.options.rseq, RseqOption::kOwn);
  EXPECT_TRUE(p.options.given(OptionId::kHugePages));
  EXPECT_FALSE(p.options.given(OptionId::kLimit));
}

TEST(Options, WordsAndEnumeratorsStandInTheSameOrder) {
  const auto hugepages = [](const char* text) { return parse({text}).options.hugepages; };
  EXPECT_EQ(hugepages("NUMAHEAP_HUGEPAGES=auto"), HugePagesOption::kAuto);
  EXPECT_EQ(hugepages("NUMAHEAP_HUGEPAGES=2m"), HugePagesOption::k2M);
  EXPECT_EQ(hugepages("NUMAHEAP_HUGEPAGES=thp"), HugePagesOption::kThp);
  EXPECT_EQ(hugepages("NUMAHEAP_HUGEPAGES=off"), HugePagesOption::kOff);
  const auto source = [](const char* text) { return parse({text, "NUMAHEAP_HUGETLBFS=/h"}).options.huge_source; };
  EXPECT_EQ(parse({"NUMAHEAP_HUGE_SOURCE=memfd"}).options.huge_source, HugeSourceOption::kMemfd);
  EXPECT_EQ(source("NUMAHEAP_HUGE_SOURCE=hugetlbfs"), HugeSourceOption::kHugetlbfs);
  EXPECT_EQ(parse({"NUMAHEAP_SCAVENGE=off"}).options.scavenge, ScavengeOption::kOff);
  EXPECT_EQ(parse({"NUMAHEAP_FORK=auto"}).options.fork, ForkOption::kAuto);
  EXPECT_EQ(parse({"NUMAHEAP_FORK=cow"}).options.fork, ForkOption::kCow);
  EXPECT_EQ(parse({"NUMAHEAP_RSEQ=off"}).options.rseq, RseqOption::kOff);
}

TEST(Options, MalformedValueIsNamedWithWhatIsAcceptedAndWhatIsUsed) {
  const Parsed p = parse({"NUMAHEAP_HUGEPAGES=of", "NUMAHEAP_LARGE_MIN=4Q", "NUMAHEAP_REPORT=maybe"});
  ASSERT_EQ(p.problems.size(), 3u);
  EXPECT_EQ(p.problems[0], "NUMAHEAP_HUGEPAGES=of: accepts auto|2m|1g|thp|off; auto is used instead");
  EXPECT_EQ(p.problems[1], "NUMAHEAP_LARGE_MIN=4Q: accepts size 64K..1T; 128K is used instead");
  EXPECT_EQ(p.problems[2], "NUMAHEAP_REPORT=maybe: accepts 0|1; 0 is used instead");
  EXPECT_EQ(p.options.large_min, 128 * KiB);
  EXPECT_FALSE(p.options.given(OptionId::kHugePages));
}

TEST(Options, PlacesForLargeObjects) {
  const auto large = [](const char* text) { return parse({text}).options.large; };
  EXPECT_EQ(large("NUMAHEAP_LARGE=weighted"), (LargeOption{.kind = LargeKind::kWeighted}));
  EXPECT_EQ(large("NUMAHEAP_LARGE=bandwidth:1M-4G"), (LargeOption{LargeKind::kBandwidth, MiB, 4 * GiB}));
  EXPECT_TRUE(parse({"NUMAHEAP_LARGE=bandwidth:1M-4G"}).options.given(OptionId::kLarge));
  const Parsed p = parse({"NUMAHEAP_LARGE=capacity:4K-1M", "NUMAHEAP_POLICY=preferred:all"});
  ASSERT_EQ(p.problems.size(), 2u);
  EXPECT_EQ(p.problems[0], "NUMAHEAP_LARGE=capacity:4K-1M: accepts firsttouch|local|interleave|weighted|bandwidth|"
                           "latency|capacity[:SIZES]; capacity:64K-1M is used instead");
  EXPECT_EQ(p.problems[1], "NUMAHEAP_POLICY=preferred:all: accepts local|interleave|weighted|bind|preferred[:NODES]|"
                           "bandwidth|latency|capacity; local is used instead");
  EXPECT_EQ(parse({"NUMAHEAP_LARGE=latency:1K-2K"}).options.large, (LargeOption{LargeKind::kLatency, 64 * KiB, 64 * KiB}));
}

TEST(Options, OutOfRangeIsCutToTheBound) {
  const Parsed p = parse({"NUMAHEAP_CPU_CACHE=4G", "NUMAHEAP_LARGE_MIN=1K"});
  ASSERT_EQ(p.problems.size(), 2u);
  EXPECT_EQ(p.problems[0], "NUMAHEAP_CPU_CACHE=4G: accepts size 0..1G; 1G is used instead");
  EXPECT_EQ(p.options.cpu_cache, 1 * GiB);
  EXPECT_EQ(p.options.large_min, 64 * KiB);
  EXPECT_TRUE(p.options.given(OptionId::kCpuCache));
}

TEST(Options, BoundsThemselvesAreAccepted) {
  const Parsed p = parse({"NUMAHEAP_CPU_CACHE=1G", "NUMAHEAP_LARGE_MIN=64K", "NUMAHEAP_LIMIT=0"});
  EXPECT_TRUE(p.problems.empty());
  EXPECT_EQ(p.options.cpu_cache, 1 * GiB);
}

TEST(Options, TheVariableOfTheBindingsIsNoUnknownName) {
  EXPECT_TRUE(parse({"NUMAHEAP_LIBRARY=libnumaheap.so"}).problems.empty());
  EXPECT_EQ(parse({"NUMAHEAP_LIBRARYS=libnumaheap.so"}).problems.size(), 1u);
}

TEST(Options, UnknownNamesGetTheNearestValidOne) {
  const struct { const char* variable; const char* meant; } kMisspelt[] = {
      {"NUMAHEAP_HUGEPAGE=2m", "NUMAHEAP_HUGEPAGES"},  {"NUMAHEAP_HUGE_PAGES=2m", "NUMAHEAP_HUGEPAGES"},
      {"NUMAHEAP_STAT=stderr", "NUMAHEAP_STATS"},      {"NUMAHEAP_SATTS=stderr", "NUMAHEAP_STATS"},
      {"NUMAHEAP_policy=local", "NUMAHEAP_POLICY"},    {"NUMAHEAP_CPUCACHE=1M", "NUMAHEAP_CPU_CACHE"},
      {"NUMAHEAP_LARGEMIN=1M", "NUMAHEAP_LARGE_MIN"},  {"NUMAHEAP_FORKMAX=1M", "NUMAHEAP_FORK_MAX"},
      {"NUMAHEAP_FROKS=cow", "NUMAHEAP_FORK"},  // near enough only if a swap counts as one mistake
  };
  for (const auto& [variable, meant] : kMisspelt) {
    const Parsed p = parse({variable});
    ASSERT_EQ(p.problems.size(), 1u) << variable;
    const std::string name = std::string(variable).substr(0, std::string(variable).find('='));
    EXPECT_EQ(p.problems[0], name + ": no such option; did you mean " + meant + "?");
    EXPECT_EQ(p.options.given_, 0u);
  }
}

TEST(Options, FarNamesGetNoSuggestion) {
  for (const char* const variable :
       {"NUMAHEAP_=1", "NUMAHEAP_BANANA=1", "NUMAHEAP_A_NAME_LONGER_THAN_ANY_OPTION_EVER=1"}) {
    const Parsed p = parse({variable});
    ASSERT_EQ(p.problems.size(), 1u) << variable;
    EXPECT_NE(p.problems[0].find("`numaheap options` lists them"), std::string::npos) << p.problems[0];
  }
}

TEST(Options, OtherVariablesAreNoneOfOurs) {
  EXPECT_TRUE(parse({"NUMAHEA=1", "NUMAHEAPS=1", "XNUMAHEAP_STATS=1", "numaheap_stats=1", "NUMAHEAP_STATS", "", "="})
                  .problems.empty());
}

TEST(Options, EmptyValueCountsAsNotSet) {
  const Parsed p = parse({"NUMAHEAP_HUGEPAGES=", "NUMAHEAP_STATS="});
  EXPECT_TRUE(p.problems.empty());
  EXPECT_FALSE(p.options.given(OptionId::kHugePages));
}

TEST(Options, FirstOfTwoCounts) {
  const Parsed p = parse({"NUMAHEAP_LIMIT=1G", "NUMAHEAP_LIMIT=2G", "NUMAHEAP_STATS=", "NUMAHEAP_STATS=stderr"});
  EXPECT_EQ(p.options.limit, 1 * GiB);
  EXPECT_TRUE(p.options.stats.empty());
}

TEST(Options, SetUidProgramsIgnoreAll) {
  const Parsed p = parse({"NUMAHEAP_STATS=/etc/passwd", "NUMAHEAP_BANANA=1", "NUMAHEAP_STRICT=1"}, true);
  EXPECT_TRUE(p.problems.empty());
  EXPECT_TRUE(p.options.stats.empty());
  EXPECT_FALSE(p.options.strict);
}

TEST(Options, TooLongTextIsRefusedWhole) {
  const std::string fits = "NUMAHEAP_HUGETLBFS=" + std::string(255, 'd');
  const std::string too_long = "NUMAHEAP_HUGETLBFS=" + std::string(256, 'd');
  EXPECT_TRUE(parse({fits.c_str()}).problems.empty());
  const Parsed p = parse({too_long.c_str()});
  ASSERT_EQ(p.problems.size(), 1u);
  EXPECT_EQ(p.problems[0],
            "NUMAHEAP_HUGETLBFS=" + std::string(48, 'd') + "...: accepts DIR (255 characters at most); it is ignored");
  EXPECT_TRUE(p.options.hugetlbfs.empty());
}

TEST(Options, ControlCharactersDoNotReachTheTerminal) {
  const Parsed p = parse({"NUMAHEAP_FORK=\x1b[2Jcow\n", "NUMAHEAP_\x07=1"});
  ASSERT_EQ(p.problems.size(), 2u);
  for (const std::string& line : p.problems) {
    for (const char c : line) EXPECT_TRUE(c >= ' ' && c <= '~') << line;
  }
}

TEST(Options, ManyProblemsAreCounted) {
  std::vector<std::string> text;
  std::vector<const char*> environment;
  for (int i = 0; i < 40; i++) text.push_back("NUMAHEAP_BANANA" + std::to_string(i) + "=1");
  for (const std::string& t : text) environment.push_back(t.c_str());
  const Parsed p = parse(environment);
  EXPECT_EQ(p.problems.size(), OptionProblems::kMaxLines);
  EXPECT_EQ(p.dropped, 40 - OptionProblems::kMaxLines);
}

TEST(Options, DirectoryImpliesTheSource) {
  EXPECT_EQ(parse({"NUMAHEAP_HUGETLBFS=/dev/hugepages"}).options.huge_source, HugeSourceOption::kHugetlbfs);
  const Parsed torn = parse({"NUMAHEAP_HUGE_SOURCE=memfd", "NUMAHEAP_HUGETLBFS=/dev/hugepages"});
  EXPECT_EQ(torn.options.huge_source, HugeSourceOption::kHugetlbfs);
  EXPECT_EQ(torn.problems.size(), 1u);
}

TEST(Options, WhatNeedsADirectoryIsDroppedWithoutOne) {
  const Parsed source = parse({"NUMAHEAP_HUGE_SOURCE=hugetlbfs"});
  EXPECT_EQ(source.options.huge_source, HugeSourceOption::kAnonymous);
  EXPECT_EQ(source.problems.size(), 1u);
  const Parsed shared = parse({"NUMAHEAP_SHARED=1"});
  EXPECT_FALSE(shared.options.shared);
  EXPECT_EQ(shared.problems.size(), 1u);
  EXPECT_TRUE(parse({"NUMAHEAP_SHARED=1", "NUMAHEAP_HUGETLBFS=/h"}).options.shared);
}

std::string* g_lines = nullptr;

std::string reported(const Parsed& parsed, bool* stop) {
  OptionProblems problems;
  problems.count = static_cast<unsigned>(parsed.problems.size());
  problems.dropped = parsed.dropped;
  for (unsigned i = 0; i < problems.count; i++) {
    problems.line[i][parsed.problems[i].copy(problems.line[i], OptionProblems::kLineBytes - 1)] = '\0';
  }
  std::string lines;
  g_lines = &lines;
  set_line_sink([](const char* line, std::size_t length) { g_lines->append(line, length); });
  *stop = report_option_problems(parsed.options, problems);
  set_line_sink(nullptr);
  return lines;
}

TEST(OptionReport, OneLineEachUnlessQuietAndStopsOnlyWhenStrict) {
  bool stop = true;
  EXPECT_EQ(reported(parse({"NUMAHEAP_FORKS=cow"}), &stop),
            "numaheap: NUMAHEAP_FORKS: no such option; did you mean NUMAHEAP_FORK?\n");
  EXPECT_FALSE(stop);
  EXPECT_EQ(reported(parse({"NUMAHEAP_FORKS=cow", "NUMAHEAP_QUIET=1"}), &stop), "");
  EXPECT_FALSE(stop);
  // Who is stopped must be told why, quiet or not; and the order of the variables does not matter.
  EXPECT_NE(reported(parse({"NUMAHEAP_FORKS=cow", "NUMAHEAP_QUIET=1", "NUMAHEAP_STRICT=1"}), &stop), "");
  EXPECT_TRUE(stop);
  EXPECT_EQ(reported(parse({"NUMAHEAP_STRICT=1"}), &stop), "");
  EXPECT_FALSE(stop);
}

TEST(OptionReport, WhatDidNotFitIsCounted) {
  Parsed p;
  p.problems = {"a"};
  p.dropped = 3;
  bool stop = false;
  EXPECT_EQ(reported(p, &stop), "numaheap: a\nnumaheap: 3 more NUMAHEAP_ variables are unknown or malformed\n");
}

}  // namespace
}  // namespace nh
