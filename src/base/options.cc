#include "base/options.h"

#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "base/scan.h"
#include "base/spelling.h"

namespace nh {
namespace {

constexpr std::string_view kPrefix = "NUMAHEAP_";
// Not an option: tells bindings/python where the library lies, and is in the environment of processes that have it.
constexpr std::string_view kPathForBindings = "NUMAHEAP_LIBRARY";

constexpr OptionForm bool_form() { return {OptionKind::kBool, 0, 1, nullptr}; }
constexpr OptionForm size_form(std::uint64_t min, std::uint64_t max) { return {OptionKind::kSize, min, max, nullptr}; }
constexpr OptionForm duration_form(std::uint64_t min, std::uint64_t max) {
  return {OptionKind::kDuration, min, max, nullptr};
}
constexpr OptionForm text_form(const char* words, std::uint64_t room) { return {OptionKind::kText, 0, room, words}; }
constexpr OptionForm borrowed_form(const char* words) { return {OptionKind::kBorrowed, 0, 0, words}; }
constexpr OptionForm policy_form() { return {OptionKind::kPolicy, 0, 0, nullptr}; }
constexpr OptionForm large_form() { return {OptionKind::kLarge, 0, 0, nullptr}; }
constexpr OptionForm nodes_form() { return {OptionKind::kNodes, 0, 0, nullptr}; }

// Not constexpr on purpose: reaching it while the table is built stops the compilation.
void words_and_enumerators_differ() {}

template <typename Enum>
constexpr OptionForm words_form(const char* words) {
  unsigned count = 1;
  for (const char* c = words; *c != '\0'; c++) count += *c == '|';
  if (count != static_cast<unsigned>(Enum::kLast) + 1) words_and_enumerators_differ();
  return {OptionKind::kWords, 0, count - 1, words};
}

constexpr OptionInfo kTable[] = {
#define NH_OPTION(Id, field, NAME, Type, default_value, accepts, help) \
  {"NUMAHEAP_" #NAME, accepts, help, offsetof(Options, field)},
#include "base/options.def"
#undef NH_OPTION
};
static_assert(sizeof kTable / sizeof kTable[0] == kOptionCount);

// The type of a member and the way it is parsed have to agree, since the table reaches members by offset.
template <typename Type>
constexpr bool kind_fits(OptionKind kind) {
  if constexpr (std::is_same_v<Type, bool>) return kind == OptionKind::kBool;
  if constexpr (std::is_same_v<Type, std::uint64_t>) return kind == OptionKind::kSize || kind == OptionKind::kDuration;
  if constexpr (std::is_enum_v<Type>) return kind == OptionKind::kWords && sizeof(Type) == 1;
  if constexpr (std::is_same_v<Type, BorrowedText>) return kind == OptionKind::kBorrowed;
  if constexpr (std::is_same_v<Type, PolicyOption>) return kind == OptionKind::kPolicy;
  if constexpr (std::is_same_v<Type, LargeOption>) return kind == OptionKind::kLarge;
  if constexpr (std::is_same_v<Type, NodesOption>) return kind == OptionKind::kNodes;
  return kind == OptionKind::kText;
}
template <typename Type>
constexpr bool room_fits(const OptionForm& form) { return form.kind != OptionKind::kText || form.max == sizeof(Type); }
#define NH_OPTION(Id, field, NAME, Type, default_value, accepts, help)                    \
  static_assert(kind_fits<Type>((accepts).kind), "NUMAHEAP_" #NAME ": type and form differ"); \
  static_assert(room_fits<Type>(accepts), "NUMAHEAP_" #NAME ": room and type differ");
#include "base/options.def"
#undef NH_OPTION

constexpr Options kDefaults{};

template <typename Type>
Type& member(Options& options, const OptionInfo& info) {
  return *reinterpret_cast<Type*>(reinterpret_cast<char*>(&options) + info.offset);
}
template <typename Type>
const Type& member(const Options& options, const OptionInfo& info) {
  return *reinterpret_cast<const Type*>(reinterpret_cast<const char*>(&options) + info.offset);
}

enum class Outcome { kTaken, kMalformed, kCut };

Outcome take_number(std::uint64_t value, const OptionForm& form, std::uint64_t* out) {
  *out = value < form.min ? form.min : value > form.max ? form.max : value;
  return *out == value ? Outcome::kTaken : Outcome::kCut;
}

// *index becomes the position of s among the words.
bool take_word(std::string_view s, const OptionForm& form, std::uint8_t* index) {
  std::string_view words = form.words;
  for (std::uint8_t i = 0; i <= form.max; i++) {
    if (equal_ignoring_case(s, before(words, '|'))) {
      *index = i;
      return true;
    }
    words = after(words, '|');
  }
  return false;
}

// Leaves the member alone where the value is malformed.
Outcome take_value(const OptionInfo& info, const char* value, Options& options) {
  const std::string_view s = value;
  std::uint64_t number = 0;
  switch (info.form.kind) {
    case OptionKind::kBool:
      return parse_bool(s, &member<bool>(options, info)) ? Outcome::kTaken : Outcome::kMalformed;
    case OptionKind::kSize:
      if (!parse_size(s, &number)) return Outcome::kMalformed;
      return take_number(number, info.form, &member<std::uint64_t>(options, info));
    case OptionKind::kDuration:
      if (!parse_duration(s, &number)) return Outcome::kMalformed;
      return take_number(number, info.form, &member<std::uint64_t>(options, info));
    case OptionKind::kWords:
      return take_word(s, info.form, &member<std::uint8_t>(options, info)) ? Outcome::kTaken : Outcome::kMalformed;
    case OptionKind::kText:
      if (s.size() >= info.form.max) return Outcome::kMalformed;
      std::memcpy(&member<char>(options, info), value, s.size() + 1);
      return Outcome::kTaken;
    case OptionKind::kBorrowed:
      member<BorrowedText>(options, info).text = value;
      return Outcome::kTaken;
    case OptionKind::kPolicy:
      return parse_policy(s, &member<PolicyOption>(options, info)) ? Outcome::kTaken : Outcome::kMalformed;
    case OptionKind::kLarge: {
      LargeOption& large = member<LargeOption>(options, info);
      if (!parse_large(s, &large)) return Outcome::kMalformed;
      if (large.from == 0 || large.from >= LargeOption::kLeastFrom) return Outcome::kTaken;
      large.from = LargeOption::kLeastFrom;
      if (large.to < large.from) large.to = large.from;
      return Outcome::kCut;
    }
    case OptionKind::kNodes:
      return parse_nodes(s, &member<NodesOption>(options, info)) ? Outcome::kTaken : Outcome::kMalformed;
  }
  return Outcome::kMalformed;
}

// At most 48 characters, what a terminal could take as a command replaced: the environment may come from anywhere.
void write_quoted(TextWriter& out, std::string_view s) {
  constexpr std::size_t kShown = 48;
  for (const char c : head(s, kShown)) out.ch(c >= ' ' && c <= '~' ? c : '?');
  if (s.size() > kShown) out.text("...");
}

// The option whose name is nearest to the misspelt one, if it is near enough to be meant.
const char* nearest_option(std::string_view name) {
  const char* nearest = nullptr;
  std::size_t least = kNotAlike;
  for (const OptionInfo& info : kTable) {
    const std::size_t distance = misspelling(tail(name, kPrefix.size()), tail(info.name, kPrefix.size()));
    if (distance >= least) continue;
    least = distance;
    nearest = info.name;
  }
  return nearest;
}

class ProblemList {
 public:
  explicit ProblemList(OptionProblems* out) : out_(out) { out_->count = out_->dropped = 0; }

  void add(std::string_view line) {
    if (out_->count == OptionProblems::kMaxLines) {
      out_->dropped++;
      return;
    }
    const std::size_t n = line.size() < OptionProblems::kLineBytes ? line.size() : OptionProblems::kLineBytes - 1;
    char* const to = out_->line[out_->count++];
    std::memcpy(to, line.data(), n);
    to[n] = '\0';
  }

 private:
  OptionProblems* out_;
};

void add_unknown(std::string_view name, ProblemList& problems) {
  Text<OptionProblems::kLineBytes> line;
  write_quoted(line, name);
  line.text(": no such option");
  const char* const nearest = nearest_option(name);
  if (nearest != nullptr) {
    line.text("; did you mean ").text(nearest).ch('?');
  } else {
    line.text("; `numaheap options` lists them");
  }
  problems.add(line.view());
}

// What single options cannot say about each other.
void settle(Options& options, ProblemList& problems) {
  if (!options.hugetlbfs.empty()) {
    if (options.given(OptionId::kHugeSource) && options.huge_source != HugeSourceOption::kHugetlbfs) {
      problems.add("NUMAHEAP_HUGETLBFS: NUMAHEAP_HUGE_SOURCE asks for another source; hugetlbfs is used");
    }
    options.huge_source = HugeSourceOption::kHugetlbfs;
  } else if (options.huge_source == HugeSourceOption::kHugetlbfs) {
    problems.add("NUMAHEAP_HUGE_SOURCE=hugetlbfs: needs NUMAHEAP_HUGETLBFS=DIR; anonymous is used instead");
    options.huge_source = HugeSourceOption::kAnonymous;
  }
  if (options.shared && options.huge_source != HugeSourceOption::kHugetlbfs) {
    problems.add("NUMAHEAP_SHARED: needs NUMAHEAP_HUGETLBFS=DIR; private mappings are used instead");
    options.shared = false;
  }
}

}  // namespace

const OptionInfo& option_info(OptionId id) { return kTable[static_cast<unsigned>(id)]; }

bool find_option(std::string_view name, OptionId* id) {
  for (unsigned i = 0; i < kOptionCount; i++) {
    if (name != kTable[i].name) continue;
    *id = static_cast<OptionId>(i);
    return true;
  }
  return false;
}

bool set_option(OptionId id, const char* value, Options* options, TextWriter* problem) {
  const OptionInfo& info = option_info(id);
  const Outcome outcome = take_value(info, value, *options);
  if (outcome != Outcome::kMalformed) options->given_ |= std::uint64_t{1} << static_cast<unsigned>(id);
  if (outcome == Outcome::kTaken) return true;
  problem->text(info.name).ch('=');
  write_quoted(*problem, value);
  problem->text(": accepts ");
  write_option_accepts(*problem, id);
  problem->text("; ");
  if (info.form.kind == OptionKind::kText) {
    problem->text("it is ignored");  // too long; a text has no default worth naming
  } else {
    write_option_value(*problem, *options, id);
    problem->text(" is used instead");
  }
  return false;
}

void parse_options(const char* const* environment, bool secure, Options* options, OptionProblems* problems) {
  *options = kDefaults;
  ProblemList list(problems);
  if (environment == nullptr || secure) return;
  std::uint64_t seen = 0;
  for (; *environment != nullptr; environment++) {
    if (std::strncmp(*environment, kPrefix.data(), kPrefix.size()) != 0) continue;
    const char* const equals = std::strchr(*environment, '=');
    if (equals == nullptr) continue;  // execve passes on whatever it is given
    const std::string_view name(*environment, static_cast<std::size_t>(equals - *environment));
    OptionId id;
    if (!find_option(name, &id)) {
      if (name != kPathForBindings) add_unknown(name, list);
      continue;
    }
    const std::uint64_t bit = std::uint64_t{1} << static_cast<unsigned>(id);
    if ((seen & bit) != 0) continue;
    seen |= bit;
    if (equals[1] == '\0') continue;
    Text<OptionProblems::kLineBytes> problem;
    if (!set_option(id, equals + 1, options, &problem)) list.add(problem.view());
  }
  settle(*options, list);
}

bool report_option_problems(const Options& options, const OptionProblems& problems) {
  const bool stop = options.strict && problems.count > 0;
  if (options.quiet && !stop) return false;
  for (unsigned i = 0; i < problems.count; i++) warn_line(problems.line[i]);
  if (problems.dropped > 0) {
    Text<96> more;
    more.dec(problems.dropped).text(" more NUMAHEAP_ variables are unknown or malformed");
    warn_line(more.c_str());
  }
  return stop;
}

}  // namespace nh
