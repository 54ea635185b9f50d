#include "base/format.h"

#include <cstdint>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace nh {
namespace {

template <typename Write>
std::string written(Write write) {
  Text<512> out;
  write(out);
  EXPECT_FALSE(out.truncated());
  return std::string(out.view());
}

TEST(Format, Integers) {
  EXPECT_EQ(written([](TextWriter& w) { w.dec(0).ch(' ').dec(10).ch(' ').dec(~std::uint64_t{0}); }),
            "0 10 18446744073709551615");
  EXPECT_EQ(written([](TextWriter& w) { w.sdec(-1).ch(' ').sdec(0).ch(' ').sdec(7); }), "-1 0 7");
  EXPECT_EQ(written([](TextWriter& w) { w.sdec(std::numeric_limits<std::int64_t>::min()); }), "-9223372036854775808");
  EXPECT_EQ(written([](TextWriter& w) { w.hex(0).ch(' ').hex(0xdeadbeef).ch(' ').hex(~std::uint64_t{0}); }),
            "0x0 0xdeadbeef 0xffffffffffffffff");
  EXPECT_EQ(written([](TextWriter& w) { w.ptr(nullptr); }), "0x0");
}

TEST(Format, ByteCountsForPeople) {
  const auto bytes = [](std::uint64_t v) { return written([v](TextWriter& w) { w.bytes(v); }); };
  EXPECT_EQ(bytes(0), "0 B");
  EXPECT_EQ(bytes(1023), "1023 B");
  EXPECT_EQ(bytes(1024), "1.0 KiB");
  EXPECT_EQ(bytes(1536), "1.5 KiB");
  EXPECT_EQ(bytes(std::uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(bytes(~std::uint64_t{0}), "16.0 EiB");
}

TEST(Format, FixedPoint) {
  const auto fixed = [](double v, int d) { return written([v, d](TextWriter& w) { w.fixed(v, d); }); };
  EXPECT_EQ(fixed(0, 0), "0");
  EXPECT_EQ(fixed(1.005, 1), "1.0");
  EXPECT_EQ(fixed(0.96, 1), "1.0");  // the fraction rounds up into the whole
  EXPECT_EQ(fixed(12.5, 3), "12.500");
  EXPECT_EQ(fixed(-0.25, 2), "-0.25");
  EXPECT_EQ(fixed(3.000001, 6), "3.000001");
  EXPECT_EQ(fixed(9e18, 2), "9000000000000000000.00");
}

TEST(Format, TextPastTheEndIsDroppedAndSaid) {
  char buffer[8];
  TextWriter w(buffer, sizeof buffer);
  w.text("12345678");
  EXPECT_FALSE(w.truncated());
  w.ch('9');
  EXPECT_TRUE(w.truncated());
  EXPECT_EQ(w.view(), "12345678");
  w.clear();
  EXPECT_FALSE(w.truncated());
  EXPECT_EQ(w.dec(1234567890).view(), "12345678");
  EXPECT_TRUE(w.truncated());
}

TEST(Format, TextWithBufferKeepsRoomForTheTerminator) {
  Text<4> t;
  t.text("abcd");
  EXPECT_TRUE(t.truncated());
  EXPECT_STREQ(t.c_str(), "abc");
}

TEST(Format, ColumnsCountFromTheStartOfTheLine) {
  EXPECT_EQ(written([](TextWriter& w) { w.text("ab").pad_to(4).text("c\nd").pad_to(3).ch('e'); }), "ab  c\nd  e");
  EXPECT_EQ(written([](TextWriter& w) { w.text("abcdef").pad_to(3).ch('|'); }), "abcdef|");
  EXPECT_EQ(written([](TextWriter& w) { w.right("42", 5).right("123456", 3); }), "   42123456");
}

TEST(Format, JsonStringsAreEscaped) {
  EXPECT_EQ(written([](TextWriter& w) { w.json_string("a\"b\\c\n\x01"); }), "\"a\\\"b\\\\c\\u000a\\u0001\"");
  EXPECT_EQ(written([](TextWriter& w) { w.json_string("/tmp/\xc3\xa9"); }), "\"/tmp/\xc3\xa9\"");
}

}  // namespace
}  // namespace nh
