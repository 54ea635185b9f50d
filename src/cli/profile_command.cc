// `numaheap profile`: who holds the memory, from the file that NUMAHEAP_PROFILE asks for.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <unistd.h>

#include "base/scan.h"
#include "cli/cli.h"
#include "cli/flame_graph.h"
#include "cli/profile_file.h"
#include "cli/running_profile.h"
#include "cli/symbols.h"

namespace nh::cli {

const char kProfileHelp[] =
    R"(usage: numaheap profile FILE|PID [--allocated]
                        [--top[=N] | --flame OUT.svg | --folded]

Shows who holds the memory, from the heap profile that a program wrote under
NUMAHEAP_PROFILE=FILE. A process that runs, and that was started with
NUMAHEAP_PROFILE=FILE,signal=USR2, is asked to write it now.

  --top[=N]        a table of the N functions that hold most (default: 30)
  --flame OUT.svg  a flame graph: callers above, callees below, as wide as what
                   they hold
  --folded         one line per stack, for other tools that draw flame graphs
  --allocated      counts all that was allocated, not only what lives at the end

Example:
  NUMAHEAP_PROFILE=heap.%p numaheap run ./solver
  numaheap profile heap.4711 --flame heap.svg
)";

namespace {

enum class Form { kTop, kFlame, kFolded };

struct Asked {
  const char* file = nullptr;
  const char* picture = nullptr;
  Form form = Form::kTop;
  std::uint64_t lines = 30;
  bool allocated = false;
};

int parse(Words words, Asked* asked) {
  bool form_given = false;
  const auto take_form = [&](Form form) {
    const bool first = !form_given || asked->form == form;
    form_given = true;
    asked->form = form;
    return first;
  };
  for (std::size_t at = 0; at < words.size();) {
    const std::string word = words[at];
    const char* value = "";
    bool one_form = true;
    if (word == "--allocated") {
      asked->allocated = true;
      at++;
    } else if (word == "--folded") {
      one_form = take_form(Form::kFolded);
      at++;
    } else if (word == "--top") {
      one_form = take_form(Form::kTop);
      at++;
    } else if (take_value(words, &at, "--top", &value)) {
      std::string_view rest(value);
      one_form = take_form(Form::kTop);
      if (!take_decimal(&rest, &asked->lines) || !rest.empty() || asked->lines == 0) {
        return complain(kUsage, "profile: --top takes a number of lines, not '" + std::string(value) + "'");
      }
    } else if (take_value(words, &at, "--flame", &value)) {
      one_form = take_form(Form::kFlame);
      asked->picture = value;
      if (value == nullptr) return complain(kUsage, "profile: --flame needs the name of the picture to write");
    } else if (word.starts_with("-") && word != "-") {
      return refuse_option(kUsage, "profile", word, {"--allocated", "--top", "--flame", "--folded", "--help"});
    } else if (asked->file != nullptr) {
      return complain(kUsage, "profile: one file at a time; '" + word + "' is a second one");
    } else {
      asked->file = words[at++];
    }
    if (!one_form) return complain(kUsage, "profile: one of --top, --flame and --folded at most");
  }
  if (asked->file != nullptr) return 0;
  return complain(kUsage, "profile: which file? NUMAHEAP_PROFILE=FILE makes a program write one; see `numaheap profile --help`");
}

// Leaves out what stands between brackets.
std::string without(const std::string& name, char open, char close) {
  std::string out;
  unsigned depth = 0;
  for (const char c : name) {
    if (c == open && depth++ == 0) out += std::string(1, open) + ".." + close;
    if (depth == 0) out += c;
    if (c == close && depth > 0) depth--;
  }
  return depth == 0 ? out : name;
}

// C++ names hold the arguments of templates, and the arguments' own; where that becomes long the outer name will do.
std::string shortened(const std::string& name) {
  constexpr std::size_t kLong = 52;  // what is left of 100 columns beside the numbers
  if (name.size() <= kLong || name.find("operator<") != name.npos || name.find("operator-") != name.npos) return name;
  const std::string plain = without(name, '<', '>');
  return plain.size() <= kLong ? plain : without(plain, '(', ')');
}

// The allocator's own functions, which stand before the caller where it is linked into the program.
bool is_allocator(const std::string& name) {
  static const std::set<std::string> kNames = {"malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc",
                                               "posix_memalign", "valloc", "pvalloc"};
  return name.starts_with("nh::") || name.starts_with("numaheap_") || name.starts_with("operator new") ||
         name.starts_with("(anonymous namespace)::memalign") || kNames.contains(name);
}

// Outermost first, from main() on. A return address may lie behind the end of the function that calls.
std::vector<std::string> path_of(const ProfileStack& stack, Symbols& symbols) {
  std::vector<std::string> path;
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
    path.push_back(shortened(symbols.name(*frame == 0 ? 0 : *frame - 1)));
  }
  while (path.size() > 1 && is_allocator(path.back())) path.pop_back();
  const auto begin = std::find(path.begin(), path.end(), "main");
  if (begin != path.end()) path.erase(path.begin(), begin);
  return path;
}

struct Use {
  std::uint64_t bytes = 0, objects = 0;
};

std::string top(const ProfileFile& file, Symbols& symbols, const Asked& asked) {
  struct Row {
    Use own, with_callees;
  };
  std::map<std::string, Row> rows;
  Use total;
  for (const ProfileStack& stack : file.stacks) {
    const Use use = asked.allocated ? Use{stack.all_bytes, stack.all_objects} : Use{stack.live_bytes, stack.live_objects};
    total.bytes += use.bytes;
    total.objects += use.objects;
    const std::vector<std::string> path = path_of(stack, symbols);
    for (const std::string& name : std::set<std::string>(path.begin(), path.end())) {  // recursion counts once
      rows[name].with_callees.bytes += use.bytes;
    }
    rows[path.back()].own.bytes += use.bytes;
    rows[path.back()].own.objects += use.objects;
  }
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second.own.bytes != b.second.own.bytes ? a.second.own.bytes > b.second.own.bytes
                                                    : a.second.with_callees.bytes > b.second.with_callees.bytes;
  });
  const auto share = [&](std::uint64_t bytes) {
    return total.bytes == 0 ? 0.0 : 100.0 * static_cast<double>(bytes) / static_cast<double>(total.bytes);
  };
  std::string out = bytes_text(total.bytes) + " in " + std::to_string(total.objects) + " objects " +
                    (asked.allocated ? "were allocated" : "live") + " (estimated from samples)\n\n" +
                    "       own           with callees        objects  function\n";
  std::size_t lines = 0;
  for (const auto& [name, row] : sorted) {
    if (lines++ == asked.lines || share(row.with_callees.bytes) < 0.05) break;
    char text[128];
    std::snprintf(text, sizeof text, "%10s %5.1f %%  %10s %5.1f %%  %11llu  ", bytes_text(row.own.bytes).c_str(),
                  share(row.own.bytes), bytes_text(row.with_callees.bytes).c_str(), share(row.with_callees.bytes),
                  static_cast<unsigned long long>(row.own.objects));
    out += text + name + "\n";
  }
  return out;
}

std::string folded(const ProfileFile& file, Symbols& symbols, bool allocated) {
  std::map<std::string, std::uint64_t> lines;
  for (const ProfileStack& stack : file.stacks) {
    std::string line;
    for (const std::string& name : path_of(stack, symbols)) line += (line.empty() ? "" : ";") + name;
    lines[line] += allocated ? stack.all_bytes : stack.live_bytes;
  }
  std::string out;
  for (const auto& [line, bytes] : lines) {
    if (bytes != 0) out += line + " " + std::to_string(bytes) + "\n";
  }
  return out;
}

int draw(const ProfileFile& file, Symbols& symbols, const Asked& asked) {
  FlameGraph graph;
  std::uint64_t total = 0;
  for (const ProfileStack& stack : file.stacks) {
    const std::uint64_t bytes = asked.allocated ? stack.all_bytes : stack.live_bytes;
    if (bytes != 0) graph.add(path_of(stack, symbols), bytes);
    total += bytes;
  }
  std::ofstream out(asked.picture);
  out << graph.svg(bytes_text(total) + (asked.allocated ? " allocated" : " live") + ", by who allocated it (" + asked.file + ")");
  out.close();
  if (out) return print("numaheap: " + std::string(asked.picture) + " written\n");
  return complain(1, "profile: cannot write " + std::string(asked.picture) + ": " + std::strerror(errno));
}

}  // namespace

int profile_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  ProfileFile file;
  std::string why, written;
  const std::string_view name(asked.file);
  std::uint64_t pid = 0;
  std::string_view digits = name;
  if (take_decimal(&digits, &pid) && digits.empty() && pid < INT32_MAX && ::access(asked.file, F_OK) != 0) {
    if (!ask_for_profile(static_cast<pid_t>(pid), &written, &why)) {
      return complain(1, "profile: process " + std::string(name) + ": " + why);
    }
    asked.file = written.c_str();
  }
  if (!read_profile(asked.file, &file, &why)) return complain(1, "profile: " + std::string(asked.file) + ": " + why);
  Symbols symbols(file.mappings);
  switch (asked.form) {
    case Form::kTop: return print(top(file, symbols, asked));
    case Form::kFolded: return print(folded(file, symbols, asked.allocated));
    case Form::kFlame: return draw(file, symbols, asked);
  }
  return 0;
}

}  // namespace nh::cli
