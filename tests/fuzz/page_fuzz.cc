#include "fuzz/page_fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/bits.h"
#include "page/naive_pages.h"
#include "page/page_alloc.h"
#include "page/page_cache.h"

namespace nh::page_fuzz {
namespace {

constexpr std::size_t kArenas = 6;  // at most, gaps included
constexpr std::size_t kWindow = kArenas * kPagesPerArena;
constexpr std::size_t kCaches = 3;
// At the bottom, and so that the heap crosses the border of a node of every level.
constexpr std::size_t kStart[] = {
    0,
    (std::size_t{1} << kNodeShift[2]) - kPagesPerArena,
    (std::size_t{1} << kNodeShift[1]) - kPagesPerArena,
    (std::size_t{1} << kNodeShift[0]) - kPagesPerArena,
    3 * (std::size_t{1} << kNodeShift[0]) - 2 * kPagesPerArena,
};
constexpr std::size_t kRegion = kStart[std::size(kStart) - 1] + kWindow;

// Mostly the sizes of spans, sometimes more than a chunk.
std::size_t size_of(std::uint16_t arg) {
  switch (arg % 8) {
    case 0: return 1;
    case 1:
    case 2:
    case 3: return 1 + arg / 8 % 16;
    case 4:
    case 5: return 1 + arg / 8 % 130;
    case 6: return 1 + arg / 8 % 1100;
    default: return 1 + arg / 8 % (2 * kPagesPerArena);
  }
}

struct Range {
  std::size_t first;
  std::size_t n;
};

class Machine {
 public:
  explicit Machine(const Case& c)
      : world_(PageCount(kRegion)), naive_(kStart[c.start % std::size(kStart)], kWindow), end_(naive_.start()) {}

  // What went wrong, or nothing.
  std::string step(const Command& c) {
    error_.clear();
    switch (c.op) {
      case Op::kAlloc: alloc(size_of(c.a)); break;
      case Op::kAllocAligned: alloc_aligned(size_of(c.a), std::size_t{1} << c.b % 12); break;
      case Op::kFree: free(c.a); break;
      case Op::kFreePart: free_part(c.a, c.b); break;
      case Op::kExtend: extend(c.a, size_of(c.b)); break;
      case Op::kClaim: claim(c.a, c.b); break;
      case Op::kRelease: release(c.a, c.b % 2 != 0); break;
      case Op::kScavenge: scavenge(c.a, c.b); break;
      case Op::kCacheFill: cache_fill(c.a % kCaches); break;
      case Op::kCacheAlloc: cache_alloc(c.a % kCaches, 1 + c.b % PageCache::kPages); break;
      case Op::kCacheFlush: cache_flush(c.a % kCaches); break;
      case Op::kGrow: grow(c.a, c.b); break;
      case Op::kRebuild: pages().rebuild_summaries(pages().end()); break;
      case Op::kCompare: compare(); break;
    }
    return error_;
  }

  void compare() {
    for (std::size_t p = naive_.start(); p < end_; p++) {
      expect("free page", p, pages().is_free(PageId(p), PageCount(1)), naive_.is_free(p));
      expect("scavenged page", p, pages().scavenged_in(PageId(p), PageCount(1)).value, naive_.is_scavenged(p));
    }
    expect("free pages", 0, pages().free_pages().value, naive_.free_pages());
    expect("scavenged pages", 0, pages().scavenged_pages().value, naive_.scavenged_pages());
    expect("check()", 0, pages().check(), true);
  }
  const std::string& error() const { return error_; }

 private:
  PageAlloc& pages() { return world_.alloc; }

  // Keeps the first difference.
  void expect(const char* what, std::size_t at, std::size_t got, std::size_t want) {
    if (got == want || !error_.empty()) return;
    char line[200];
    std::snprintf(line, sizeof line, "%s (%zu): allocator says %zu, model says %zu", what, at, got, want);
    error_ = line;
  }
  void expect_run(const char* what, std::size_t n, const PageAlloc::Run& got, std::size_t want) {
    expect(what, n, got.ok ? got.first.value : NaivePages::kNone, want);
    if (want == NaivePages::kNone || !error_.empty()) return;
    expect("scavenged in run", want, got.scavenged.value, naive_.take(want, n));
    live_.push_back({want, n});
  }

  void alloc(std::size_t n) { expect_run("alloc", n, pages().alloc(PageCount(n)), naive_.first_fit(n)); }

  void alloc_aligned(std::size_t n, std::size_t align) {
    const PageAlloc::Run run = pages().alloc_aligned(PageCount(n), align);
    std::size_t want = naive_.first_fit(n, align);
    if (run.ok && run.first.value != want && want != NaivePages::kNone) {
      // Not the lowest: allowed only after many misses, and then the place is fixed as well.
      std::size_t misses = 0;
      for (std::size_t p = naive_.first_fit(n); align_up(p, align) < want; misses++) {
        p = naive_.first_fit(n, 1, align_up(p, align) + align);
      }
      if (misses >= PageAlloc::kAlignedTries) want = align_up(naive_.first_fit(n + align - 1), align);
    }
    expect_run("alloc_aligned", n, run, want);
  }

  void free_range(std::size_t first, std::size_t n) {
    pages().free(PageId(first), PageCount(n));
    naive_.free(first, n);
  }
  void free(std::size_t which) {
    if (live_.empty()) return;
    const Range r = pick(live_, which);
    free_range(r.first, r.n);
  }
  void free_part(std::size_t which, std::size_t part) {
    if (live_.empty()) return;
    const Range r = pick(live_, which);
    const std::size_t skip = part % r.n;
    const std::size_t n = 1 + part / 7 % (r.n - skip);
    free_range(r.first + skip, n);
    if (skip != 0) live_.push_back({r.first, skip});
    if (skip + n != r.n) live_.push_back({r.first + skip + n, r.n - skip - n});
  }
  void extend(std::size_t which, std::size_t n) {
    if (live_.empty()) return;
    Range& r = live_[which % live_.size()];
    const std::size_t at = r.first + r.n;
    PageCount scavenged;
    const bool want = naive_.all_free(at, n);
    expect("extend", at, pages().extend(PageId(at), PageCount(n), &scavenged), want);
    if (!want || !error_.empty()) return;
    expect("scavenged in extension", at, scavenged.value, naive_.take(at, n));
    r.n += n;
  }

  void claim(std::size_t where, std::size_t size) {
    if (end_ == naive_.start()) return;
    std::size_t first = naive_.start() + where * 37 % (end_ - naive_.start());
    std::size_t n = 1 + size / 2 % 700;
    if (size % 2 != 0) {  // whole units, as the scavenger takes them
      first = align_down(first, kPagesPerHuge);
      n = kPagesPerHuge * (1 + n % 3);
    }
    claim_range(first, n);
  }
  void claim_range(std::size_t first, std::size_t n) {
    const bool want = naive_.all_free(first, n);
    expect("is_free", first, pages().is_free(PageId(first), PageCount(n)), want);
    expect("claim", first, pages().claim(PageId(first), PageCount(n)), want);
    if (!want || !error_.empty()) return;
    for (std::size_t p = first; p < first + n; p++) naive_.set_free(p, false);
    claims_.push_back({first, n});
  }
  void release(std::size_t which, bool scavenged) {
    if (claims_.empty()) return;
    const Range r = pick(claims_, which);
    pages().release_claim(PageId(r.first), PageCount(r.n), scavenged);
    for (std::size_t p = r.first; p < r.first + r.n; p++) {
      naive_.set_free(p, true);
      if (scavenged) naive_.set_scavenged(p, true);
    }
  }

  void scavenge(std::size_t where, std::size_t budget) {
    const bool from_top = where % 2 != 0;
    const std::size_t limit =
        from_top ? end_ : naive_.start() + where * 37 % (end_ - naive_.start() + 1);
    PageId out;
    const std::size_t want = naive_.free_unit_below(limit);
    if (budget % 4 == 0) {  // a bounded search may stop short, but must not pass a unit by
      if (!pages().find_free_unit_below(PageId(limit), &out, budget / 4 % 20)) {
        expect("bounded search stops at or below its limit", limit, out.value <= limit, true);
        if (want != NaivePages::kNone) {
          expect("bounded search ruled out a unit", want, out.value >= want + kPagesPerHuge, true);
        }
        return;
      }
    } else if (!pages().find_free_unit_below(PageId(limit), &out)) {
      expect("find_free_unit_below", limit, NaivePages::kNone, want);
      expect("nothing left to search", limit, out.value, 0);
      return;
    }
    expect("find_free_unit_below", limit, out.value, want);
    if (budget % 3 != 0 || !error_.empty()) return;
    claim_range(want, kPagesPerHuge);
    if (error_.empty()) release(claims_.size() - 1, true);
  }

  void cache_fill(std::size_t k) {
    cache_flush(k);
    cache_[k] = pages().allocate_to_cache();
    const std::size_t first = naive_.first_fit(1);
    expect("cache empty", k, cache_[k].empty(), first == NaivePages::kNone);
    if (first == NaivePages::kNone || !error_.empty()) return;
    const std::size_t base = align_down(first, PageCache::kPages);
    expect("cache base", k, cache_[k].base().value, base);
    for (std::size_t i = 0; i < PageCache::kPages; i++) {
      const bool free = naive_.is_free(base + i);
      const bool scavenged = free && naive_.is_scavenged(base + i);
      expect("cached page", base + i, cache_[k].free_mask() >> i & 1, free);
      expect("cached scavenged page", base + i, cache_[k].scavenged_mask() >> i & 1, scavenged);
      if (free) naive_.take(base + i, 1);
    }
  }
  void cache_alloc(std::size_t k, std::size_t n) {
    const std::uint64_t before = cache_[k].free_mask();
    const std::uint64_t scavenged = cache_[k].scavenged_mask();
    std::size_t want = 0;
    const std::uint64_t ones = low_bits(static_cast<unsigned>(n));
    while (want + n <= 64 && (before >> want & ones) != ones) want++;
    const PageAlloc::Run run = cache_[k].alloc(PageCount(n));
    expect("cache alloc", n, run.ok, want + n <= 64);
    if (!run.ok || !error_.empty()) return;
    const std::uint64_t mask = ones << want;
    expect("cache run", n, run.first.value, cache_[k].base().value + want);
    expect("cache run scavenged", n, run.scavenged.value, static_cast<unsigned>(std::popcount(scavenged & mask)));
    expect("cache mask", n, cache_[k].free_mask(), before & ~mask);
    expect("cache scavenged mask", n, cache_[k].scavenged_mask(), scavenged & ~mask);
    live_.push_back({run.first.value, n});
  }
  void cache_flush(std::size_t k) {
    for (std::size_t i = 0; i < PageCache::kPages; i++) {
      const std::size_t p = cache_[k].base().value + i;
      if ((cache_[k].free_mask() >> i & 1) == 0) continue;
      naive_.set_free(p, true);
      naive_.set_scavenged(p, (cache_[k].scavenged_mask() >> i & 1) != 0);
    }
    cache_[k].flush(pages());
    expect("cache empty after flush", k, cache_[k].empty(), true);
  }

  void grow(std::size_t by, std::size_t gap) {
    const std::size_t n = by % 4 == 0 ? kPagesPerArena : kChunkPages * (1 + by / 4 % 40);
    const std::size_t first = end_ + (gap % 4 == 0 ? kChunkPages * (gap / 4 % 20) : 0);
    if (first + n > naive_.end()) return;
    world_.grow(first, n);
    naive_.grow(first, n);
    end_ = first + n;
    expect("end", 0, pages().end().value, end_);
  }

  static Range pick(std::vector<Range>& from, std::size_t which) {
    Range& slot = from[which % from.size()];
    const Range r = slot;
    slot = from.back();
    from.pop_back();
    return r;
  }

  PageWorld world_;
  NaivePages naive_;
  std::size_t end_;
  std::vector<Range> live_;
  std::vector<Range> claims_;
  PageCache cache_[kCaches];
  std::string error_;
};

}  // namespace

const char* const kOpName[kOps] = {"alloc",    "alloc_aligned", "free",       "free_part",   "extend",
                                   "claim",    "release",       "scavenge",   "cache_fill",  "cache_alloc",
                                   "cache_flush", "grow",       "rebuild",    "compare"};

Case from_bytes(const std::uint8_t* data, std::size_t size) {
  Case c;
  if (size == 0) return c;
  c.start = data[0];
  for (std::size_t i = 1; i + 5 <= size; i += 5) {
    c.commands.push_back({static_cast<Op>(data[i] % kOps), static_cast<std::uint16_t>(data[i + 1] | data[i + 2] << 8),
                          static_cast<std::uint16_t>(data[i + 3] | data[i + 4] << 8)});
  }
  return c;
}

Case from_seed(std::uint64_t seed, std::size_t commands) {
  // Weights: how often an operation occurs. Every seed leans towards either allocation or freeing.
  Random random(seed);
  unsigned weight[kOps] = {20, 8, 14, 10, 6, 4, 4, 6, 6, 12, 3, 1, 1, 1};
  if (seed % 3 == 0) weight[static_cast<int>(Op::kFree)] *= 2;
  if (seed % 3 == 1) weight[static_cast<int>(Op::kAlloc)] *= 2;
  unsigned total = 0;
  for (const unsigned w : weight) total += w;
  Case c;
  c.start = static_cast<std::uint8_t>(random.below(std::size(kStart)));
  c.commands.push_back({Op::kGrow, 0, 1});
  while (c.commands.size() < commands) {
    std::size_t at = random.below(total);
    std::size_t op = 0;
    while (at >= weight[op]) at -= weight[op++];
    c.commands.push_back({static_cast<Op>(op), static_cast<std::uint16_t>(random.next() >> 20),
                          static_cast<std::uint16_t>(random.next() >> 20)});
  }
  return c;
}

std::string to_text(const Case& c) {
  std::string text = "start " + std::to_string(c.start) + "\n";
  for (const Command& command : c.commands) {
    text += std::string(kOpName[static_cast<int>(command.op)]) + ' ' + std::to_string(command.a) + ' ' +
            std::to_string(command.b) + '\n';
  }
  return text;
}

bool from_text(std::string_view text, Case* out, std::string* error) {
  *out = Case();
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line[0] == '#') continue;
    char name[32];
    unsigned a = 0;
    unsigned b = 0;
    const int fields = std::sscanf(line.c_str(), "%31s %u %u", name, &a, &b);
    const std::string_view word = fields >= 1 ? name : "";
    const auto known = std::find(kOpName, kOpName + kOps, word);
    if (word == "start" && fields == 2) {
      out->start = static_cast<std::uint8_t>(a);
    } else if (known != kOpName + kOps && fields == 3 && a <= UINT16_MAX && b <= UINT16_MAX) {
      out->commands.push_back({static_cast<Op>(known - kOpName), static_cast<std::uint16_t>(a),
                               static_cast<std::uint16_t>(b)});
    } else {
      *error = "not a command: " + line;
      return false;
    }
  }
  return true;
}

std::string run(const Case& c) {
  Machine machine(c);
  std::size_t i = 0;
  for (; i < c.commands.size(); i++) {
    const std::string error = machine.step(c.commands[i]);
    if (!error.empty()) {
      return "command " + std::to_string(i) + " (" + kOpName[static_cast<int>(c.commands[i].op)] + "): " + error;
    }
  }
  machine.compare();
  return machine.error().empty() ? "" : "at the end: " + machine.error();
}

}  // namespace nh::page_fuzz

// For coverage-guided fuzzers: link this file with -fsanitize=fuzzer instead of page_fuzz_main.cc.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const nh::page_fuzz::Case c = nh::page_fuzz::from_bytes(data, size);
  const std::string error = nh::page_fuzz::run(c);
  if (!error.empty()) {
    std::fprintf(stderr, "%s\n%s", error.c_str(), nh::page_fuzz::to_text(c).c_str());
    std::abort();
  }
  return 0;
}
