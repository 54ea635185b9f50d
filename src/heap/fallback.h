// Why something less than asked for had to do: counted, and the first of each kind said on stderr.
#pragma once

#include <atomic>
#include <cstdint>

namespace nh {

enum class Fallback : std::uint8_t {
  kHugetlbDry,       // a pool had no page left: THP instead
  kHugetlbRefused,   // mapping hugetlb memory failed
  kNoLeaving,        // small objects stay off the pools, since a fork could not take them off there
  kBindRefused,      // mbind not allowed here: first touch from the right CPU
  kNoPopulate,       // kernel without MADV_POPULATE_WRITE
  kThpUnavailable,   // transparent huge pages are off: base pages
  kOtherNode,        // a node was full: the next nearest served
  kNodeGone,         // a cpuset no longer allows a node: the kernel chooses among those that are left
  kCount,
};
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
