#include "heap/mspan.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace nh {
namespace {

TEST(MSpan, IsThreeCacheLines) {
  EXPECT_EQ(sizeof(MSpan), 192u);
  EXPECT_EQ(alignof(MSpan), 64u);
}

// Every span length against a plain vector of flags.
TEST(MSpan, TakesAndGivesBackLikeANaiveModel) {
  std::mt19937 random(4711);
  for (unsigned n : {1u, 2u, 3u, 63u, 64u, 65u, 127u, 128u, 341u, 512u, 682u, 1000u, 1023u, 1024u}) {
    MSpan s{};
    s.init_objects(16, n);
    ASSERT_TRUE(s.check()) << n;
    std::vector<bool> out(n, false);
    unsigned live = 0;
    for (int step = 0; step < 4000; step++) {
      if (random() % 2 == 0) {
        const unsigned wanted = random() % 100;
        std::set<unsigned> taken;
        const unsigned got = s.take_free(wanted, [&](unsigned i) {
          EXPECT_LT(i, n);
          EXPECT_FALSE(out[i]) << "handed out twice: " << i << " of " << n;
          out[i] = true;
          taken.insert(i);
        });
        ASSERT_EQ(got, taken.size());
        ASSERT_EQ(got, std::min(wanted, n - live));
        live += got;
      } else {
        const unsigned i = random() % n;
        ASSERT_EQ(s.give_back(i), out[i]) << i << " of " << n;
        live -= out[i];
        out[i] = false;
      }
      ASSERT_EQ(s.alloc_count, live);
      ASSERT_EQ(s.full(), live == n);
      ASSERT_TRUE(s.check());
    }
    for (unsigned i = 0; i < n; i++) ASSERT_EQ(s.is_free(i), !out[i]);
  }
}

TEST(MSpan, AFreshSpanGoesInAddressOrder) {
  MSpan s{};
  s.init_objects(8, 1024);
  unsigned next = 0;
  s.take_free(1024, [&](unsigned i) { EXPECT_EQ(i, next++); });
  EXPECT_EQ(next, 1024u);
  EXPECT_TRUE(s.full());
  EXPECT_EQ(s.take_free(1, [](unsigned) { FAIL(); }), 0u);
}

TEST(MSpan, ADescriptorForgetsItsFormerLife) {
  MSpan s{};
  s.init_objects(16, 512);
  s.take_free(300, [](unsigned) {});
  s.init_objects(128, 64);
  EXPECT_TRUE(s.check());
  EXPECT_EQ(s.take_free(100, [](unsigned) {}), 64u);
}

TEST(MSpan, KnowsNoscanAndPlaced) {
  MSpan s{};
  for (unsigned c = 2; c < kSpanClasses; c++) {
    s.span_class = static_cast<SpanClass>(c);
    EXPECT_EQ(s.noscan(), c % 2 == 1);
    EXPECT_FALSE(s.placed());
  }
  for (unsigned c = 2; c < kSpanClasses; c++) {
    s.span_class = make_placed(static_cast<SpanClass>(c));
    EXPECT_TRUE(s.placed());
    EXPECT_EQ(s.noscan(), c % 2 == 1);
  }
  s.span_class = kTinyClass;
  EXPECT_TRUE(s.noscan() && !s.placed());
  for (const SpanClass c : {kLargeClass, SpanClass::bin(0, false), SpanClass::bin(0, true)}) {
    s.span_class = c;
    for (unsigned bits = 0; bits < 4; bits++) {
      s.nelems = static_cast<std::uint16_t>(bits);
      EXPECT_EQ(s.noscan(), (bits & MSpan::kLargeNoscan) != 0);
      EXPECT_EQ(s.placed(), (bits & MSpan::kLargePlaced) != 0);
    }
  }
}

TEST(MSpan, AuditSeesAFlippedBitAndAWrongCount) {
  MSpan s{};
  s.init_objects(16, 512);
  s.take_free(100, [](unsigned) {});
  MSpan broken = s;
  broken.alloc_bits[5] ^= 4;
  EXPECT_FALSE(broken.check());
  broken = s;
  broken.alloc_count++;
  EXPECT_FALSE(broken.check());
  broken = s;
  broken.alloc_bits[broken.free_index / 64] = 0;
  EXPECT_FALSE(broken.check());
}

}  // namespace
}  // namespace nh
