// The options of numaheap: the struct, the parser and the tables for people, all generated from options.def.
//
// The parser takes an environment as main() gets it, so that tests hand in anything. It allocates nothing, calls no
// stdio and no system call, and never fails: what it cannot use it names in OptionProblems, and the default (or the
// nearest bound of the range) takes its place. A variable that is set but empty counts as not set. Where a name occurs
// twice the first one counts, as with getenv().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/format.h"
#include "base/node_set.h"
#include "base/units.h"

namespace nh {

// The enumerators stand in the order of the words in options.def; kLast lets the table check their number.
enum class HugePagesOption : std::uint8_t { kAuto, k2M, k1G, kThp, kOff, kLast = kOff };
enum class HugeSourceOption : std::uint8_t { kAnonymous, kMemfd, kHugetlbfs, kLast = kHugetlbfs };
enum class StaticOption : std::uint8_t { kOff, kThp, k2M, kLast = k2M };
enum class ThpOption : std::uint8_t { kOff, kThp, kLast = kThp };
enum class ScavengeOption : std::uint8_t { kBackground, kInline, kOff, kLast = kOff };
enum class ForkOption : std::uint8_t { kAuto, kCow, kLast = kCow };
enum class CheckOption : std::uint8_t { kLenient, kStrict, kLast = kStrict };
enum class RseqOption : std::uint8_t { kAuto, kOwn, kOff, kLast = kOff };

// Nodes as numactl writes them: "0", "0-3,5" or "all". With all set, nodes is empty.
struct NodeList {
  bool all = false;
  NodeSet nodes;
  bool operator==(const NodeList&) const = default;
};

// The nodes that may be used: LIST, or all but those of !LIST.
struct NodesOption {
  bool except = false;
  NodeList list{.all = true, .nodes = {}};
  bool operator==(const NodesOption&) const = default;

  bool allows(NodeId node) const { return list.all || list.nodes.has(node) != except; }
};

enum class PolicyKind : std::uint8_t { kLocal, kInterleave, kWeighted, kBind, kPreferred, kBandwidth, kLatency, kCapacity };

// local | interleave | interleave:LIST | weighted | weighted:LIST | bind:LIST | preferred:LIST | bandwidth | latency |
// capacity. "interleave" alone leaves `where` empty: all nodes that have CPUs, whereas "interleave:all" includes memory-only
// ones other than devices, as does "weighted" alone.
struct PolicyOption {
  PolicyKind kind = PolicyKind::kLocal;
  NodeList where;
  bool operator==(const PolicyOption&) const = default;
};

enum class LargeKind : std::uint8_t { kFirstTouch, kLocal, kInterleave, kWeighted, kBandwidth, kLatency, kCapacity };

// firsttouch | local | interleave | weighted, or bandwidth | latency | capacity with or without sizes: ":FROM" or ":FROM-TO".
struct LargeOption {
  static constexpr std::uint64_t kLeastFrom = 64 * KiB;
  LargeKind kind = LargeKind::kFirstTouch;
  std::uint64_t from = 0;           // 0: no sizes were given
  std::uint64_t to = UINT64_MAX;    // the largest
  bool operator==(const LargeOption&) const = default;
};

// A copy of a value, since a program may overwrite its environment (servers that change their process title do).
template <std::size_t N>
struct FixedText {
  char text[N] = "";
  bool empty() const { return text[0] == '\0'; }
  const char* c_str() const { return text; }
};

// A value too long to copy: points into the environment that was parsed, so it is for use at start only.
struct BorrowedText {
  const char* text = nullptr;
  bool empty() const { return text == nullptr; }
};

enum class OptionId : std::uint8_t {
#define NH_OPTION(Id, field, NAME, Type, default_value, accepts, help) k##Id,
#include "base/options.def"
#undef NH_OPTION
};

inline constexpr unsigned kOptionCount = 0
#define NH_OPTION(Id, field, NAME, Type, default_value, accepts, help) +1
#include "base/options.def"
#undef NH_OPTION
    ;
static_assert(kOptionCount <= 64, "Options::given_ is one word");

struct Options {
#define NH_OPTION(Id, field, NAME, Type, default_value, accepts, help) Type field = default_value;
#include "base/options.def"
#undef NH_OPTION

  // True where the environment set this option to a value that was accepted or cut to the range.
  bool given(OptionId id) const { return (given_ >> static_cast<unsigned>(id) & 1) != 0; }

  // As if the environment had not: what it asked for cannot be had. The caller sets the default.
  void forget(OptionId id) { given_ &= ~(std::uint64_t{1} << static_cast<unsigned>(id)); }

  std::uint64_t given_ = 0;
};

// One line per problem, without newline, each naming the variable.
struct OptionProblems {
  static constexpr unsigned kMaxLines = 16;
  static constexpr std::size_t kLineBytes = 320;
  unsigned count = 0;    // lines below
  unsigned dropped = 0;  // problems past kMaxLines
  char line[kMaxLines][kLineBytes];
};

enum class OptionKind : std::uint8_t { kBool, kSize, kDuration, kWords, kText, kBorrowed, kPolicy, kLarge, kNodes };

struct OptionForm {
  OptionKind kind;
  std::uint64_t min;  // size: bytes; duration: ms
  std::uint64_t max;  // kText: room in bytes, terminator included
  const char* words;  // kWords: "auto|off"; kText, kBorrowed: what stands for the value in help texts
};

struct OptionInfo {
  const char* name;  // NUMAHEAP_...
  OptionForm form;
  const char* help;
  std::uint16_t offset;  // of the member in Options
};

const OptionInfo& option_info(OptionId id);
// The option of this full name (NUMAHEAP_ included); false where there is none.
bool find_option(std::string_view name, OptionId* id);

// environment: "NAME=value" strings, ended by nullptr; nullptr itself is an empty environment.
// secure: the process runs set-uid or set-gid (AT_SECURE), so the environment is not the owner's: all is ignored.
// Both outputs are overwritten.
void parse_options(const char* const* environment, bool secure, Options* options, OptionProblems* problems);

// Sets one option. false where the value is malformed or out of range: *problem says what is accepted and what is used
// instead, and *options holds that.
bool set_option(OptionId id, const char* value, Options* options, TextWriter* problem);

// Prints the problems with warn_line(), unless NUMAHEAP_QUIET says no. Returns true where NUMAHEAP_STRICT asks the
// caller to end the process: then they are printed in any case.
bool report_option_problems(const Options& options, const OptionProblems& problems);

// The pieces, for tests and for the tool.
bool parse_size(std::string_view s, std::uint64_t* bytes);         // 4096, 64K, 2M, 2MB, 2MiB, 1G, 1T
bool parse_duration(std::string_view s, std::uint64_t* ms);        // 250, 250ms, 5s, 2m
bool parse_bool(std::string_view s, bool* value);                  // 1/0, true/false, yes/no, on/off
bool parse_node_list(std::string_view s, NodeList* list);          // 0-3,5 or all
bool parse_nodes(std::string_view s, NodesOption* nodes);          // 0-3,5 or !0-3,5 or all
bool parse_policy(std::string_view s, PolicyOption* policy);
bool parse_large(std::string_view s, LargeOption* large);          // sizes from LargeOption::kLeastFrom on or not
void write_size(TextWriter& out, std::uint64_t bytes);             // the shortest form that parses back: 2M, 4097
void write_duration(TextWriter& out, std::uint64_t ms);
void write_node_list(TextWriter& out, const NodeSet& nodes);       // 0-3,5; "none" when empty
void write_nodes(TextWriter& out, const NodesOption& nodes);
void write_policy(TextWriter& out, const PolicyOption& policy);
void write_large(TextWriter& out, const LargeOption& large);
// The value as the parser would take it; "" for a text that is not set.
void write_option_value(TextWriter& out, const Options& options, OptionId id);
// What the option accepts: "auto|2m|1g|thp|off", "size 0..1G", "DIR".
void write_option_accepts(TextWriter& out, OptionId id);

// The whole table: for terminals (with the values in force where they differ from the default), for docs/options.md, and as
// the OPTIONS part of a man page.
void write_options_text(TextWriter& out, const Options& current);
void write_options_markdown(TextWriter& out);
void write_options_man(TextWriter& out);

}  // namespace nh
