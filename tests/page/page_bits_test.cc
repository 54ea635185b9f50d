// The bit searches and the summaries against loops over single bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "page/naive_pages.h"
#include "page/page_bits.h"
#include "page/page_summary.h"

namespace nh {
namespace {

// '1' = set, one character per bit: what the bit functions are compared with.
using Picture = std::string;

Picture picture(const PageBits& bits) {
  Picture p(kChunkPages, '0');
  for (std::size_t i = 0; i < kChunkPages; i++) p[i] = (bits.word(i / 64) >> (i % 64) & 1) != 0 ? '1' : '0';
  return p;
}

// Random runs: `mean` is how long they are, so that short ones and ones across several words both occur.
PageBits random_bits(Random& random, std::size_t mean) {
  PageBits bits{};
  bool on = random.below(2) != 0;
  for (std::size_t i = 0; i < kChunkPages;) {
    const std::size_t run = std::min(1 + random.below(2 * mean), kChunkPages - i);
    if (on) bits.set(i, run);
    on = !on;
    i += run;
  }
  return bits;
}

constexpr std::size_t kMeans[] = {1, 2, 5, 20, 60, 64, 100, 300};

std::size_t naive_start(const Picture& p) { return std::min(p.find('0'), p.size()); }
std::size_t naive_end(const Picture& p) {
  const std::size_t zero = p.rfind('0');
  return zero == Picture::npos ? p.size() : p.size() - zero - 1;
}
std::size_t naive_max(const Picture& p) {
  std::size_t max = 0;
  std::size_t run = 0;
  for (const char c : p) max = std::max(max, run = c == '1' ? run + 1 : 0);
  return max;
}
std::size_t naive_find(const Picture& p, std::size_t n, std::size_t from) {
  const std::size_t at = p.find(Picture(n, '1'), from);
  return at == Picture::npos ? PageBits::kNone : at;
}
void expect_summary(const Summary& s, const Picture& p) {
  EXPECT_EQ(s.start(), naive_start(p)) << p;
  EXPECT_EQ(s.max(), naive_max(p)) << p;
  EXPECT_EQ(s.end(), naive_end(p)) << p;
}

TEST(PageBits, StartsOfRunsMarkEveryRunInTheWordAndNothingElse) {
  Random random(1);
  for (int i = 0; i < 300; i++) {
    const std::uint64_t x = random.next() | random.next() | (i % 2 != 0 ? random.next() | random.next() : 0);
    for (unsigned n = 1; n <= 64; n++) {
      std::uint64_t want = 0;
      for (unsigned at = 0; at + n <= 64; at++) {
        if ((x >> at & low_bits(n)) == low_bits(n)) want |= std::uint64_t{1} << at;
      }
      ASSERT_EQ(starts_of_runs(x, n), want) << std::hex << x << std::dec << " n " << n;
    }
  }
  EXPECT_EQ(starts_of_runs(~std::uint64_t{0}, 64), 1u);
}

TEST(PageBits, RangesTouchExactlyTheirBits) {
  Random random(2);
  for (int i = 0; i < 4000; i++) {
    PageBits bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
    const Picture before = picture(bits);
    const std::size_t lo = random.below(kChunkPages);
    const std::size_t n = 1 + random.below(kChunkPages - lo);
    const Picture part = before.substr(lo, n);
    const auto ones = static_cast<std::size_t>(std::count(part.begin(), part.end(), '1'));
    EXPECT_EQ(bits.count(lo, n), ones);
    EXPECT_EQ(bits.all_set(lo, n), ones == n);
    EXPECT_EQ(bits.none_set(lo, n), ones == 0);
    PageBits other = bits;
    other.set(lo, n);
    EXPECT_EQ(picture(other), Picture(before).replace(lo, n, n, '1'));
    EXPECT_TRUE(other.all_set(lo, n));
    other = bits;
    other.clear(lo, n);
    EXPECT_EQ(picture(other), Picture(before).replace(lo, n, n, '0'));
    EXPECT_TRUE(other.none_set(lo, n));
    EXPECT_EQ(bits.take(lo, n), ones);
    EXPECT_EQ(picture(bits), picture(other));
    EXPECT_EQ(bits.count(), static_cast<std::size_t>(std::count(before.begin(), before.end(), '1')) - ones);
  }
}

TEST(PageBits, FindFirstAndFindRunAreTheLowestAtOrAfterFrom) {
  Random random(3);
  for (int i = 0; i < 6000; i++) {
    const PageBits bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
    const Picture p = picture(bits);
    const std::size_t from = i % 4 == 0 ? 0 : random.below(kChunkPages);
    EXPECT_EQ(bits.find_first(from), naive_find(p, 1, from));
    for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{63}, std::size_t{64}, std::size_t{65},
                                1 + random.below(16), 1 + random.below(kChunkPages)}) {
      ASSERT_EQ(bits.find_run(n, from), naive_find(p, n, from)) << "n " << n << " from " << from << "\n" << p;
    }
  }
  PageBits full{};
  full.set(0, kChunkPages);
  EXPECT_EQ(full.find_run(kChunkPages, 0), 0u);
  EXPECT_EQ(full.find_run(kChunkPages, 1), PageBits::kNone);
  EXPECT_EQ(full.find_first(kChunkPages), PageBits::kNone);
}

TEST(PageBits, SummaryOfAChunk) {
  Random random(4);
  for (int i = 0; i < 20000; i++) {
    const PageBits bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
    expect_summary(bits.summary(), picture(bits));
  }
  // One run of each length at each place of a word: the in-word search has no case left out.
  for (std::size_t n = 1; n <= 130; n++) {
    for (std::size_t at = 0; at < 70; at++) {
      PageBits bits{};
      bits.set(at, n);
      expect_summary(bits.summary(), picture(bits));
    }
  }
  PageBits bits{};
  EXPECT_TRUE(bits.summary().none());
  bits.set(0, kChunkPages);
  EXPECT_EQ(bits.summary(), Summary(kChunkPages, kChunkPages, kChunkPages));
}

TEST(PageBits, OnesBelowAndFrom) {
  Random random(6);
  for (int i = 0; i < 6000; i++) {
    const PageBits bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
    const Picture p = picture(bits);
    const std::size_t at = i < 2 ? kChunkPages * (i % 2) : random.below(kChunkPages + 1);
    ASSERT_EQ(bits.ones_below(at), naive_end(p.substr(0, at))) << at << "\n" << p;
    ASSERT_EQ(bits.ones_from(at), naive_start(p.substr(at))) << at << "\n" << p;
  }
  PageBits full{};
  full.set(0, kChunkPages);
  EXPECT_EQ(full.ones_below(kChunkPages), kChunkPages);
  EXPECT_EQ(full.ones_from(0), kChunkPages);
}

TEST(PageBits, SummaryFollowsAChange) {
  Random random(7);
  for (int i = 0; i < 40000; i++) {
    PageBits bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
    const std::size_t lo = i % 5 == 0 ? 0 : random.below(kChunkPages);
    const std::size_t n = i % 7 == 0 ? kChunkPages - lo : 1 + random.below(std::min(kChunkPages - lo, std::size_t{40}));
    PageBits without = bits;
    without.clear(lo, n);
    PageBits with = bits;
    with.set(lo, n);
    ASSERT_EQ(with.summary_after_set(without.summary(), lo, n), with.summary()) << lo << " " << n << picture(with);
    ASSERT_EQ(without.summary_after_clear(with.summary(), lo, n), without.summary()) << lo << " " << n << picture(with);
  }
}

TEST(PageSummary, HoldsEveryValueUpToAWholeRoot) {
  EXPECT_TRUE(Summary().none());
  EXPECT_EQ(Summary(0, 0, 0), Summary());
  constexpr std::size_t top = Summary::kMaxRun;
  for (const Summary s : {Summary(top, top, top), Summary(top - 1, top - 1, 0), Summary(0, top - 1, top - 1)}) {
    EXPECT_FALSE(s.none());
  }
  EXPECT_EQ(Summary(top, top, top).start(), top);
  EXPECT_EQ(Summary(top, top, top).max(), top);
  EXPECT_EQ(Summary(top, top, top).end(), top);
  EXPECT_EQ(Summary(1, top - 1, 2).start(), 1u);
  EXPECT_EQ(Summary(1, top - 1, 2).max(), top - 1);
  EXPECT_EQ(Summary(1, top - 1, 2).end(), 2u);
}

TEST(PageSummary, MergeSaysWhatTheJoinedBitsSay) {
  Random random(5);
  for (int i = 0; i < 5000; i++) {
    Summary children[8];
    Picture joined;
    for (Summary& child : children) {
      PageBits bits{};
      switch (random.below(4)) {
        case 0: break;
        case 1: bits.set(0, kChunkPages); break;
        default: bits = random_bits(random, kMeans[random.below(std::size(kMeans))]);
      }
      child = bits.summary();
      joined += picture(bits);
    }
    expect_summary(merge(children, 8, kChunkPages), joined);
  }
  // A whole root node: the one value that needs the special bit.
  Summary whole[8];
  for (Summary& s : whole) s = Summary(1 << 18, 1 << 18, 1 << 18);
  EXPECT_EQ(merge(whole, 8, 1 << 18), Summary(Summary::kMaxRun, Summary::kMaxRun, Summary::kMaxRun));
}

}  // namespace
}  // namespace nh
