#include "base/bits.h"

#include <gtest/gtest.h>

namespace nh {
namespace {

TEST(Bits, PowersOfTwo) {
  EXPECT_FALSE(is_pow2(0));
  for (unsigned i = 0; i < 64; i++) {
    const std::size_t p = std::size_t{1} << i;
    EXPECT_TRUE(is_pow2(p)) << i;
    if (i > 1) {
      EXPECT_FALSE(is_pow2(p - 1)) << i;
    }
    EXPECT_EQ(log2_floor(p), i);
    EXPECT_EQ(log2_ceil(p), i);
    if (i > 1) {
      EXPECT_EQ(log2_floor(p - 1), i - 1);
      EXPECT_EQ(log2_ceil(p - 1), i);
    }
  }
}

TEST(Bits, Alignment) {
  EXPECT_EQ(align_up(0, 16), 0u);
  EXPECT_EQ(align_up(1, 16), 16u);
  EXPECT_EQ(align_up(16, 16), 16u);
  EXPECT_EQ(align_down(31, 16), 16u);
  EXPECT_EQ(align_down(~std::size_t{0}, std::size_t{1} << 63), std::size_t{1} << 63);
  EXPECT_TRUE(is_aligned(48, 16));
  EXPECT_FALSE(is_aligned(56, 16));
}

TEST(Bits, DivisionRoundsUp) {
  EXPECT_EQ(div_up(0, 3), 0u);
  EXPECT_EQ(div_up(1, 3), 1u);
  EXPECT_EQ(div_up(3, 3), 1u);
  EXPECT_EQ(div_up(4, 3), 2u);
}

TEST(Bits, LowBitsAtTheEnds) {
  EXPECT_EQ(low_bits(0), 0u);
  EXPECT_EQ(low_bits(1), 1u);
  EXPECT_EQ(low_bits(63), ~std::uint64_t{0} >> 1);
  EXPECT_EQ(low_bits(64), ~std::uint64_t{0});
}

}  // namespace
}  // namespace nh
