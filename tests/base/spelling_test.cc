#include "base/spelling.h"

#include <gtest/gtest.h>

namespace nh {
namespace {

TEST(Spelling, CountsSlips) {
  EXPECT_EQ(misspelling("stats", "stats"), 0u);
  EXPECT_EQ(misspelling("STATS", "stats"), 0u);
  EXPECT_EQ(misspelling("stat", "stats"), 1u);    // a letter is missing
  EXPECT_EQ(misspelling("statts", "stats"), 1u);  // one too many
  EXPECT_EQ(misspelling("stads", "stats"), 1u);   // another one
  EXPECT_EQ(misspelling("satts", "stats"), 1u);   // two changed places
}

TEST(Spelling, IsNoGuess) {
  EXPECT_EQ(misspelling("rum", "run"), 1u);
  EXPECT_EQ(misspelling("rum", "map"), kNotAlike);
  EXPECT_EQ(misspelling("", "run"), kNotAlike);
  EXPECT_EQ(misspelling("policy", "polizei"), 3u);
  EXPECT_EQ(misspelling("police", "polonaise"), kNotAlike);
  const std::string_view letters = "abcdefghijklmnopqrstuvwxyzabcdef";
  EXPECT_EQ(misspelling(letters, letters), kNotAlike);  // too long to be looked at
  EXPECT_EQ(misspelling(letters.substr(1), letters.substr(1)), 0u);
}

}  // namespace
}  // namespace nh
