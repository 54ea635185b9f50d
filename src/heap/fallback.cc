#include "heap/fallback.h"

#include "base/check.h"

namespace nh {
namespace {

std::atomic<std::uint64_t> g_count[static_cast<unsigned>(Fallback::kCount)];
bool g_quiet = false;

constexpr FallbackInfo kFallbacks[] = {
    {"hugetlb_dry", "a huge-page pool is empty; transparent huge pages serve instead (`numaheap reserve` adds huge pages)"},
    {"hugetlb_short", "the huge-page pools have fewer pages than a large object takes; transparent huge pages serve instead"},
    {"hugetlb_uneven", "some nodes' huge-page pools lack their share of a large object; transparent huge pages serve instead"},
    {"hugetlb_policy", "a memory policy or cpuset keeps large objects off the pools: what is reserved may not be usable"},
    {"hugetlb_group", "a control group limits huge pages; large objects are on transparent ones, for which no fault is refused"},
    {"hugetlb_count", "the kernel miscounts reserved huge pages at the moment; large objects are on transparent ones"},
    {"hugetlb_left", "the process has forked; what it asked for since then is not on pages of a pool"},
    {"hugetlb_refused", "hugetlb memory could not be mapped; transparent huge pages serve instead"},
    {"no_leaving", "small objects stay off huge-page pools: a fork could not move them (no userfaultfd, or a seccomp filter)"},
    {"bind_refused", "mbind is not allowed here; memory is placed by first touch"},
    {"no_populate", "this kernel has no MADV_POPULATE_WRITE (5.14); hugetlb memory cannot be proven, transparent huge pages serve"},
    {"thp_unavailable", "transparent huge pages are switched off; base pages serve instead"},
    {"other_node", "a node ran out of memory; the nearest other node serves"},
    {"node_gone", "some nodes can no longer be had (cpuset, memory offline); others serve, where the policy lets them"},
};
static_assert(sizeof kFallbacks / sizeof kFallbacks[0] == static_cast<unsigned>(Fallback::kCount));

}  // namespace

const char* fallback_name(Fallback f) { return kFallbacks[static_cast<unsigned>(f)].name; }
const char* fallback_text(Fallback f) { return kFallbacks[static_cast<unsigned>(f)].text; }

void note_fallback(Fallback f, bool speak) {
  const std::uint64_t before = g_count[static_cast<unsigned>(f)].fetch_add(1, std::memory_order_relaxed);
  if (before == 0 && speak && !g_quiet) warn_line(fallback_text(f));
}
std::uint64_t fallback_count(Fallback f) {
  return g_count[static_cast<unsigned>(f)].load(std::memory_order_relaxed);
}
void set_fallback_quiet(bool quiet) { g_quiet = quiet; }
const std::atomic<std::uint64_t>* fallback_counters() { return g_count; }
const FallbackInfo* fallback_texts() { return kFallbacks; }

}  // namespace nh
