// A bitmap of the 512 pages of one chunk, and the searches for runs in it. Pure bit work on eight words.
//
// Positions and lengths are in bits, 0 .. 512. Ranges must lie inside the chunk; lengths are at least 1 unless said
// otherwise.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "page/page_summary.h"

namespace nh {

inline constexpr unsigned kChunkShift = 9;
inline constexpr std::size_t kChunkPages = std::size_t{1} << kChunkShift;

// The bits of x that begin a run of at least n ones inside the word; n in 1 .. 64.
//
// After each step bit i says that `length` ones begin there, so one shift by s <= length extends the claim by s: the
// number of steps is log2(n), not n.
constexpr std::uint64_t starts_of_runs(std::uint64_t x, unsigned n) {
  for (unsigned length = 1; length < n;) {
    const unsigned step = length < n - length ? length : n - length;
    x &= x >> step;
    length += step;
  }
  return x;
}

class PageBits {
 public:
  static constexpr std::size_t kWords = kChunkPages / 64;
  static constexpr std::size_t kNone = kChunkPages;  // "not found"

  constexpr std::uint64_t word(std::size_t i) const { return word_[i]; }
  constexpr std::uint64_t& word(std::size_t i) { return word_[i]; }

  constexpr bool test(std::size_t i) const { return (word_[i / 64] >> (i % 64) & 1) != 0; }
  constexpr void set(std::size_t lo, std::size_t n) {
    each(word_, lo, n, [](std::uint64_t& w, std::uint64_t mask) { w |= mask; return true; });
  }
  constexpr void clear(std::size_t lo, std::size_t n) {
    each(word_, lo, n, [](std::uint64_t& w, std::uint64_t mask) { w &= ~mask; return true; });
  }
  constexpr bool all_set(std::size_t lo, std::size_t n) const {
    return each(word_, lo, n, [](const std::uint64_t& w, std::uint64_t mask) { return (w & mask) == mask; });
  }
  constexpr bool none_set(std::size_t lo, std::size_t n) const {
    return each(word_, lo, n, [](const std::uint64_t& w, std::uint64_t mask) { return (w & mask) == 0; });
  }
  constexpr std::size_t count(std::size_t lo, std::size_t n) const {
    std::size_t sum = 0;
    each(word_, lo, n, [&sum](const std::uint64_t& w, std::uint64_t mask) {
      sum += static_cast<unsigned>(std::popcount(w & mask));
      return true;
    });
    return sum;
  }
  constexpr std::size_t count() const {
    std::size_t sum = 0;
    for (const std::uint64_t w : word_) sum += static_cast<unsigned>(std::popcount(w));
    return sum;
  }
  // Clears the range and says how many bits of it were set.
  constexpr std::size_t take(std::size_t lo, std::size_t n) {
    std::size_t sum = 0;
    each(word_, lo, n, [&sum](std::uint64_t& w, std::uint64_t mask) {
      const std::uint64_t hit = w & mask;
      if (hit != 0) {  // a store would dirty the line, and mostly there is nothing to clear
        sum += static_cast<unsigned>(std::popcount(hit));
        w &= ~mask;
      }
      return true;
    });
    return sum;
  }

  // The first set bit at or after `from` (0 .. 512), or kNone.
  constexpr std::size_t find_first(std::size_t from) const {
    if (from >= kChunkPages) return kNone;
    std::uint64_t w = word_[from / 64] & ~low_bits(from % 64);
    for (std::size_t i = from / 64;;) {
      if (w != 0) return i * 64 + static_cast<unsigned>(std::countr_zero(w));
      if (++i == kWords) return kNone;
      w = word_[i];
    }
  }

  // The first position at or after `from` (0 .. 511) where n ones stand in a row, or kNone; n in 1 .. 512.
  constexpr std::size_t find_run(std::size_t n, std::size_t from) const {
    std::size_t run = 0;  // ones that end where word i begins
    std::uint64_t w = word_[from / 64] & ~low_bits(from % 64);
    for (std::size_t i = from / 64;;) {
      const auto leading = static_cast<unsigned>(std::countr_one(w));
      if (run + leading >= n) return i * 64 - run;  // begins in an earlier word, so before anything inside this one
      if (leading == 64) {
        run += 64;
      } else {
        if (n < 64) {
          const std::uint64_t starts = starts_of_runs(w, static_cast<unsigned>(n));
          if (starts != 0) return i * 64 + static_cast<unsigned>(std::countr_zero(starts));
        }
        run = static_cast<unsigned>(std::countl_one(w));
      }
      if (++i == kWords) return kNone;
      w = word_[i];
    }
  }

  // Ones in a row right below / from position i on; i in 0 .. 512.
  constexpr std::size_t ones_below(std::size_t i) const {
    std::size_t n = 0;
    while (n != i) {
      const std::size_t at = i - n;  // everything in [at, i) is set
      const auto room = static_cast<unsigned>((at - 1) % 64 + 1);  // bits of the word up to and including at - 1
      const auto ones = static_cast<unsigned>(std::countl_one(word_[(at - 1) / 64] << (64 - room)));
      n += ones;
      if (ones < room) break;
    }
    return n;
  }
  constexpr std::size_t ones_from(std::size_t i) const {
    std::size_t at = i;
    while (at != kChunkPages) {
      const auto room = static_cast<unsigned>(64 - at % 64);
      const auto ones = static_cast<unsigned>(std::countr_one(word_[at / 64] >> (64 - room)));
      at += ones;
      if (ones < room) break;
    }
    return at - i;
  }

  // The summary now that [lo, lo + n) has been set, given what it was when the range was clear: setting bits only
  // makes the run around them longer.
  constexpr Summary summary_after_set(Summary before, std::size_t lo, std::size_t n) const {
    const std::size_t first = lo - ones_below(lo);
    const std::size_t last = lo + n + ones_from(lo + n);
    return Summary(first == 0 ? last : before.start(), last - first > before.max() ? last - first : before.max(),
                   last == kChunkPages ? last - first : before.end());
  }
  // The summary now that [lo, lo + n) has been cleared, given what it was when the range was set. A run that was not
  // one of the longest can be cut without a look at the others; mostly first fit cuts such a one.
  constexpr Summary summary_after_clear(Summary before, std::size_t lo, std::size_t n) const {
    if (n == kChunkPages) return Summary();
    const std::size_t below = ones_below(lo);
    const std::size_t above = ones_from(lo + n);
    if (below + n + above >= before.max()) return summary();
    return Summary(below == lo ? below : before.start(), before.max(),
                   lo + n + above == kChunkPages ? above : before.end());
  }

  // Start, longest and end run of ones.
  constexpr Summary summary() const {
    std::size_t start = 0;
    std::size_t max = 0;
    std::size_t run = 0;
    bool leading = true;
    // First the runs that touch a word's edge; they are the long ones, and they settle most chunks.
    for (const std::uint64_t w : word_) {
      if (w == ~std::uint64_t{0}) {
        run += 64;
        continue;
      }
      run += static_cast<unsigned>(std::countr_one(w));
      if (leading) start = run;
      leading = false;
      if (run > max) max = run;
      run = static_cast<unsigned>(std::countl_one(w));
    }
    if (leading) return Summary(kChunkPages, kChunkPages, kChunkPages);
    if (run > max) max = run;
    // A run strictly inside a word is at most 62 long. Ask each word only for one longer than the best so far.
    for (const std::uint64_t w : word_) {
      if (max >= 62) break;
      std::uint64_t x = starts_of_runs(w, static_cast<unsigned>(max) + 1);
      while (x != 0) {
        max++;
        x &= x >> 1;
      }
    }
    return Summary(start, max, run);
  }

 private:
  // fn(word, mask) for each word that the range touches, until it returns false; whether it never did.
  template <typename Words, typename Fn>
  static constexpr bool each(Words& words, std::size_t lo, std::size_t n, Fn fn) {
    std::size_t i = lo / 64;
    std::size_t offset = lo % 64;
    while (n != 0) {
      const std::size_t here = n < 64 - offset ? n : 64 - offset;
      if (!fn(words[i], low_bits(static_cast<unsigned>(here)) << offset)) return false;
      n -= here;
      offset = 0;
      i++;
    }
    return true;
  }

  std::uint64_t word_[kWords];
};

static_assert(sizeof(PageBits) == 64, "one cache line");

}  // namespace nh
