#include "numa/cpu_list.h"

#include "base/scan.h"

namespace nh {
namespace {

// Calls add(n) for every member below `limit`, and add(limit) where there are others; false where the text is no list.
template <typename Add>
bool for_each_member(std::string_view s, std::uint64_t limit, Add add) {
  s = trimmed(s);
  if (s.empty()) return true;
  for (;;) {
    std::uint64_t first = 0;
    if (!take_decimal(&s, &first)) return false;
    std::uint64_t last = first;
    if (take(&s, "-") && (!take_decimal(&s, &last) || last < first)) return false;
    for (std::uint64_t n = first; n <= last && n < limit; n++) add(static_cast<int>(n));
    if (last >= limit) add(static_cast<int>(limit));
    if (s.empty()) return true;
    if (!take(&s, ",")) return false;
  }
}

}  // namespace

bool parse_cpu_list(std::string_view text, CpuSet* set, bool* left_out) {
  *set = CpuSet();
  *left_out = false;
  const auto add = [&](int n) {
    if (CpuSet::holds(CpuId(n))) set->add(CpuId(n));
    *left_out |= !CpuSet::holds(CpuId(n));
  };
  if (for_each_member(text, CpuSet::kBits, add)) return true;
  *set = CpuSet();
  return false;
}

bool parse_cpu_list(std::string_view text, CpuSet* set) {
  bool left_out = false;
  return parse_cpu_list(text, set, &left_out);
}

bool parse_node_id_list(std::string_view text, NodeSet* set) {
  *set = NodeSet();
  if (for_each_member(text, NodeSet::kBits, [set](int n) {
        if (n < int{NodeSet::kBits}) set->add(NodeId(n));
      })) return true;
  *set = NodeSet();
  return false;
}

void write_cpu_list(TextWriter& out, const CpuSet& set) {
  const char* separator = "";
  for (CpuId first = set.first(); first.valid();) {
    CpuId last = first;
    while (set.has(CpuId(last.value + 1))) last = CpuId(last.value + 1);
    out.text(separator).dec(static_cast<std::uint64_t>(first.value));
    if (last != first) out.ch('-').dec(static_cast<std::uint64_t>(last.value));
    separator = ",";
    first = set.next(CpuId(last.value + 1));
  }
}

}  // namespace nh
