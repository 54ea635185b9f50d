// How single values are read and written: sizes, durations, node lists, policies.
#include "base/options.h"
#include "base/scan.h"

namespace nh {
namespace {

struct Suffix {
  std::string_view text;
  std::uint64_t scale;
};

template <std::size_t N>
bool parse_scaled(std::string_view s, const Suffix (&suffixes)[N], std::uint64_t* out) {
  std::uint64_t number = 0;
  if (!take_decimal(&s, &number)) return false;
  for (const Suffix& suffix : suffixes) {
    if (!equal_ignoring_case(s, suffix.text)) continue;
    std::uint64_t scaled = 0;
    if (__builtin_mul_overflow(number, suffix.scale, &scaled)) return false;
    *out = scaled;
    return true;
  }
  return false;
}

// KB, MB and so on mean powers of two like the rest: nobody sizes a heap in powers of ten.
constexpr Suffix kSizes[] = {
    {"", 1},    {"b", 1},
    {"k", KiB}, {"kb", KiB}, {"kib", KiB},
    {"m", MiB}, {"mb", MiB}, {"mib", MiB},
    {"g", GiB}, {"gb", GiB}, {"gib", GiB},
    {"t", TiB}, {"tb", TiB}, {"tib", TiB},
};
constexpr std::string_view kPolicyWords[] = {"local",     "interleave", "weighted", "bind",
                                             "preferred", "bandwidth",  "latency",  "capacity"};
constexpr std::string_view kLargeWords[] = {"firsttouch", "local", "interleave", "weighted", "bandwidth", "latency", "capacity"};

// The enumerator at the place that the word has among the words.
template <std::size_t N, typename Enum>
bool find_word(std::string_view word, const std::string_view (&words)[N], Enum* out) {
  for (std::size_t i = 0; i < N; i++) {
    if (!equal_ignoring_case(word, words[i])) continue;
    *out = static_cast<Enum>(i);
    return true;
  }
  return false;
}

constexpr Suffix kDurations[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"min", 60'000}};

bool take_node(std::string_view* s, int* node) {
  std::uint64_t value = 0;
  if (!take_decimal(s, &value) || value >= NodeSet::kBits) return false;
  *node = static_cast<int>(value);
  return true;
}

}  // namespace

bool parse_size(std::string_view s, std::uint64_t* bytes) { return parse_scaled(s, kSizes, bytes); }
bool parse_duration(std::string_view s, std::uint64_t* ms) { return parse_scaled(s, kDurations, ms); }

bool parse_bool(std::string_view s, bool* value) {
  static constexpr std::string_view kWords[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
  for (std::size_t i = 0; i < 8; i++) {
    if (!equal_ignoring_case(s, kWords[i])) continue;
    *value = i % 2 == 1;
    return true;
  }
  return false;
}

bool parse_node_list(std::string_view s, NodeList* list) {
  NodeList parsed;
  if (s == "all") {
    parsed.all = true;
    *list = parsed;
    return true;
  }
  for (;;) {
    int first = 0;
    if (!take_node(&s, &first)) return false;
    int last = first;
    if (take(&s, "-")) {
      if (!take_node(&s, &last) || last < first) return false;
    }
    for (int n = first; n <= last; n++) parsed.nodes.add(NodeId(n));
    if (s.empty()) break;
    if (!take(&s, ",")) return false;  // and a number has to follow
  }
  *list = parsed;
  return true;
}

bool parse_nodes(std::string_view s, NodesOption* nodes) {
  NodesOption parsed;
  parsed.except = take(&s, "!");
  if (!parse_node_list(s, &parsed.list) || (parsed.except && parsed.list.all)) return false;
  *nodes = parsed;
  return true;
}

bool parse_policy(std::string_view s, PolicyOption* policy) {
  PolicyOption parsed;
  const std::string_view word = before(s, ':');
  const bool has_list = word.size() < s.size();
  if (has_list && !parse_node_list(after(s, ':'), &parsed.where)) return false;
  if (!find_word(word, kPolicyWords, &parsed.kind)) return false;
  switch (parsed.kind) {
    case PolicyKind::kInterleave:
    case PolicyKind::kWeighted: break;
    case PolicyKind::kBind:
      if (!has_list) return false;
      break;
    case PolicyKind::kPreferred:
      if (parsed.where.nodes.empty()) return false;
      break;
    default:
      if (has_list) return false;
  }
  *policy = parsed;
  return true;
}

bool parse_large(std::string_view s, LargeOption* large) {
  LargeOption parsed;
  const std::string_view word = before(s, ':');
  if (!find_word(word, kLargeWords, &parsed.kind)) return false;
  if (word.size() < s.size()) {
    if (parsed.kind < LargeKind::kBandwidth) return false;
    const std::string_view sizes = after(s, ':'), first = before(sizes, '-');
    if (!parse_size(first, &parsed.from) || parsed.from == 0) return false;
    if (first.size() < sizes.size() && (!parse_size(after(sizes, '-'), &parsed.to) || parsed.to < parsed.from)) return false;
  }
  *large = parsed;
  return true;
}

void write_size(TextWriter& out, std::uint64_t bytes) {
  static constexpr char kLetters[] = "KMGT";
  int scale = -1;
  while (scale < 3 && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    scale++;
  }
  out.dec(bytes);
  if (scale >= 0) out.ch(kLetters[scale]);
}

void write_duration(TextWriter& out, std::uint64_t ms) {
  if (ms % 1000 == 0 && ms != 0) {
    out.dec(ms / 1000).ch('s');
  } else {
    out.dec(ms).text("ms");
  }
}

void write_node_list(TextWriter& out, const NodeSet& nodes) {
  if (nodes.empty()) {
    out.text("none");
    return;
  }
  const char* separator = "";
  for (NodeId first = nodes.first(); first.valid();) {
    NodeId last = first;
    while (nodes.has(NodeId(last.value + 1))) last = NodeId(last.value + 1);
    out.text(separator).dec(static_cast<std::uint64_t>(first.value));
    if (last != first) out.ch('-').dec(static_cast<std::uint64_t>(last.value));
    separator = ",";
    first = nodes.next(NodeId(last.value + 1));
  }
}

void write_nodes(TextWriter& out, const NodesOption& nodes) {
  if (nodes.list.all) {
    out.text("all");
    return;
  }
  if (nodes.except) out.ch('!');
  write_node_list(out, nodes.list.nodes);
}

void write_policy(TextWriter& out, const PolicyOption& policy) {
  out.text(kPolicyWords[static_cast<unsigned>(policy.kind)]);
  if (policy.where.all) {
    out.text(":all");
  } else if (!policy.where.nodes.empty()) {
    out.ch(':');
    write_node_list(out, policy.where.nodes);
  }
}

void write_large(TextWriter& out, const LargeOption& large) {
  out.text(kLargeWords[static_cast<unsigned>(large.kind)]);
  if (large.from == 0) return;
  out.ch(':');
  write_size(out, large.from);
  if (large.to == UINT64_MAX) return;
  out.ch('-');
  write_size(out, large.to);
}

}  // namespace nh
