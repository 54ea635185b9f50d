#include "base/scan.h"

#include <gtest/gtest.h>

namespace nh {
namespace {

TEST(Scan, Pieces) {
  EXPECT_EQ(head("abc", 2), "ab");
  EXPECT_EQ(head("abc", 9), "abc");
  EXPECT_EQ(tail("abc", 2), "c");
  EXPECT_EQ(tail("abc", 9), "");
  EXPECT_EQ(before("key:value", ':'), "key");
  EXPECT_EQ(before("key", ':'), "key");
  EXPECT_EQ(after("key:a:b", ':'), "a:b");
  EXPECT_EQ(after("key", ':'), "");
  EXPECT_EQ(trimmed(" \t a b \n"), "a b");
  EXPECT_EQ(trimmed(" \n"), "");
}

TEST(Scan, CaseOfAsciiLettersOnly) {
  EXPECT_TRUE(equal_ignoring_case("OfF", "oFf"));
  EXPECT_FALSE(equal_ignoring_case("of", "off"));
  EXPECT_FALSE(equal_ignoring_case("@", "`"));  // one bit apart, as letters of two cases are
}

TEST(Scan, NumbersStopAtTheFirstOtherCharacter) {
  std::string_view s = "0042kB";
  std::uint64_t v = 0;
  ASSERT_TRUE(take_decimal(&s, &v));
  EXPECT_EQ(v, 42u);
  EXPECT_EQ(s, "kB");
  EXPECT_FALSE(take_decimal(&s, &v));
  EXPECT_EQ(s, "kB");
}

TEST(Scan, HexadecimalNumbers) {
  std::string_view s = "7f10a0f0-7fff";
  std::uintptr_t v = 0;
  ASSERT_TRUE(take_hex(&s, &v));
  EXPECT_EQ(v, 0x7f10a0f0u);
  EXPECT_EQ(s, "-7fff");
  EXPECT_FALSE(take_hex(&s, &v));
  EXPECT_EQ(s, "-7fff");
}

TEST(Scan, NumbersStayWithin64Bits) {
  std::string_view s = "18446744073709551615";
  std::uint64_t v = 0;
  EXPECT_TRUE(take_decimal(&s, &v));
  EXPECT_EQ(v, ~std::uint64_t{0});
  for (const char* const text : {"18446744073709551616", "99999999999999999999", "184467440737095516150"}) {
    s = text;
    v = 7;
    EXPECT_FALSE(take_decimal(&s, &v)) << text;
    EXPECT_EQ(s, text);
    EXPECT_EQ(v, 7u);
  }
}

TEST(Scan, Prefixes) {
  std::string_view s = "nodes";
  EXPECT_FALSE(take(&s, "nodes0"));
  EXPECT_FALSE(take(&s, "o"));
  EXPECT_TRUE(take(&s, "no"));
  EXPECT_EQ(s, "des");
  EXPECT_TRUE(take(&s, ""));
}

TEST(Scan, LinesIncludingEmptyAndUnfinishedOnes) {
  std::string_view s = "a\n\nb", line;
  ASSERT_TRUE(take_line(&s, &line));
  EXPECT_EQ(line, "a");
  ASSERT_TRUE(take_line(&s, &line));
  EXPECT_EQ(line, "");
  ASSERT_TRUE(take_line(&s, &line));
  EXPECT_EQ(line, "b");
  EXPECT_FALSE(take_line(&s, &line));
}

}  // namespace
}  // namespace nh
