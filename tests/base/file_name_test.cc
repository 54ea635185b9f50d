// Marks in names of files, and what NUMAHEAP_PROFILE asks for.
#include "base/file_name.h"

#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "base/profile_settings.h"

namespace nh {
namespace {

std::string name(std::string_view pattern) {
  Text<200> out;
  write_file_name(out, pattern, {4711, "node3", "solver", 12});
  return std::string(out.view());
}

TEST(FileName, Marks) {
  EXPECT_EQ(name("heap.%p.%h.%e.%r"), "heap.4711.node3.solver.12");
  EXPECT_EQ(name("plain"), "plain");
  EXPECT_EQ(name("100%%"), "100%");
  EXPECT_EQ(name("%x%"), "%x%") << "what is no mark stays";
  EXPECT_EQ(name("%%p"), "%p");
  EXPECT_EQ(name(""), "");
}

TEST(FileName, Rank) {
  const char* const slurm[] = {"A=b", "SLURM_PROCID=7", nullptr};
  const char* const both[] = {"SLURM_PROCID=7", "PMIX_RANK=3", nullptr};
  const char* const none[] = {"PMIX_RANK=", "XPMI_RANK=5", nullptr};
  EXPECT_EQ(rank_in(slurm), 7u);
  EXPECT_EQ(rank_in(both), 3u) << "the one that is nearest to the rank's own library";
  EXPECT_EQ(rank_in(none), 0u);
  EXPECT_EQ(rank_in(nullptr), 0u);
}

TEST(ProfileSettings, AreRead) {
  ProfileSettings settings;
  Text<200> problem;
  ASSERT_TRUE(parse_profile("heap.%p,interval=64K,live,signal=SIGUSR2", &settings, &problem));
  EXPECT_STREQ(settings.file, "heap.%p");
  EXPECT_EQ(settings.interval, 65536u);
  EXPECT_TRUE(settings.live_only);
  EXPECT_EQ(settings.signal, SIGUSR2);
  ASSERT_TRUE(parse_profile("x,all,signal=10", &settings, &problem));
  EXPECT_FALSE(settings.live_only);
  EXPECT_EQ(settings.signal, 10);
  EXPECT_EQ(problem.size(), 0u);
}

TEST(ProfileSettings, MistakesAreNamed) {
  for (const auto& [text, said] : {std::pair{",live", "file is missing"}, {"x,interval=0", "interval takes"},
                                   {"x,interval=2T", "interval takes"}, {"x,signal=HUGO", "signal takes"},
                                   {"x,signal=0", "signal takes"}, {"x,signal=12x", "signal takes"},
                                   {"x,often", "\"often\" is none of"}}) {
    ProfileSettings settings;
    Text<300> problem;
    EXPECT_FALSE(parse_profile(text, &settings, &problem)) << text;
    EXPECT_NE(std::string(problem.view()).find(said), std::string::npos) << text << ": " << problem.view();
  }
}

}  // namespace
}  // namespace nh
