// Why something less than asked for had to do: counted, and the first of each kind said on stderr.
#pragma once

#include <atomic>
#include <cstdint>

namespace nh {

enum class Fallback : std::uint8_t {
  // Why memory is not on huge pages of a pool:
  kHugetlbDry,       // a pool has no page left
  kHugetlbShort,     // the pools have less than a large object takes
  kHugetlbUneven,    // some nodes' pools have less than their share of a large object
  kHugetlbPolicy,    // a reservation counts pages that a policy or cpuset keeps the program's faults from
  kHugetlbGroup,     // a control group limits huge pages at each fault, so that a reservation is no promise
  kHugetlbCount,     // nor is it while the kernel's own count of them is wrong
  kHugetlbLeft,      // the process has forked and has left the pools
  kHugetlbRefused,   // mapping hugetlb memory failed
  kNoLeaving,        // small objects stay off the pools, since a fork could not take them off there
  kBindRefused,      // mbind not allowed here: first touch from the right CPU
  kNoPopulate,       // kernel without MADV_POPULATE_WRITE
  kThpUnavailable,   // transparent huge pages are off: base pages
  kOtherNode,        // a node was full: the next nearest served
  kNodeGone,         // a cpuset no longer allows a node: the kernel chooses among those that are left
  kCount,
};
inline constexpr Fallback kNoFallback = Fallback::kCount;
const char* fallback_name(Fallback f);
const char* fallback_text(Fallback f);  // one sentence for stderr

// Counts; says it once on stderr unless quiet or not worth a line (speak = false).
void note_fallback(Fallback f, bool speak);
std::uint64_t fallback_count(Fallback f);
void set_fallback_quiet(bool quiet);

// For readers outside the process (base/live_block.h): a counter for each, and {name, text} for each.
struct FallbackInfo {
  const char* name;
  const char* text;
};
const std::atomic<std::uint64_t>* fallback_counters();
const FallbackInfo* fallback_texts();

}  // namespace nh
