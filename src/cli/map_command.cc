// `numaheap map`: the units of a process as a picture.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "cli/cli.h"
#include "cli/live.h"
#include "cli/terminal.h"
#include "cli/unit_map.h"

namespace nh::cli {

const char kMapHelp[] =
    R"(usage: numaheap map PID|FILE.json [--svg FILE | --json]
                    [--color auto|true|256|none]

Draws the heaps of a running process, or of a map that was kept, a cell for each
unit of 2 MiB: on which pages it lies, how full it is, where large objects are.
The process need not have been started for it, is not stopped and does not
notice.

  --svg FILE   writes a picture to FILE instead
  --json       prints the map as JSON; `numaheap map FILE.json` draws it later
  --color      what the terminal can show; auto if not given

Exit status: 1 where the process cannot be looked into or the file is no map.
)";

namespace {

struct Asked {
  std::string source;
  const char* svg = nullptr;
  bool json = false;
  ColorMode colors = terminal_colors();
};

int parse(Words words, Asked* asked) {
  for (std::size_t at = 0; at < words.size();) {
    const std::string word = words[at];
    const char* value = "";
    if (word == "--json") {
      asked->json = true;
      at++;
    } else if (take_value(words, &at, "--svg", &value)) {
      asked->svg = value;
    } else if (take_value(words, &at, "--color", &value)) {
      if (value != nullptr && !parse_colors(value, &asked->colors)) {
        return complain(kUsage, std::string("map: --color does not take '") + value + "': accepts auto|true|256|none");
      }
    } else if (word.starts_with("-")) {
      return refuse_option(kUsage, "map", word, {"--svg", "--json", "--color"});
    } else if (!asked->source.empty()) {
      return complain(kUsage, "map: one process or file at a time, not '" + word + "', too");
    } else {
      asked->source = word;
      at++;
    }
    if (value == nullptr) return complain(kUsage, "map: " + word + " needs a value");
  }
  if (asked->source.empty()) return complain(kUsage, "map: of which process or file? `numaheap map PID|FILE.json`");
  if (asked->json && asked->svg != nullptr) return complain(kUsage, "map: one of --json and --svg at most");
  return 0;
}

int load(const std::string& source, UnitMap* map) {
  std::string why;
  if (const int pid = parse_pid(source); pid != 0) {
    LiveProcess process;
    return attach(pid, &process, &why) && read_unit_map(process, map, &why) ? 0 : complain(1, "map: " + why);
  }
  std::ifstream file(source, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) return complain(1, "map: cannot read " + source + ": " + std::strerror(errno));
  if (parse_unit_map(text, map, &why)) return 0;
  return complain(1, "map: " + source + ": " + why + "; `numaheap map PID --json` writes maps");
}

}  // namespace

int map_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  UnitMap map;
  if (const int status = load(asked.source, &map); status != 0) return status;
  if (asked.json) return print(unit_map_json(map));
  if (asked.svg == nullptr) return print(draw_map(map, asked.colors, has_utf8()));
  std::ofstream file(asked.svg, std::ios::binary);
  file << draw_map_svg(map);
  file.close();
  return file ? 0 : complain(1, std::string("map: cannot write ") + asked.svg + ": " + std::strerror(errno));
}

}  // namespace nh::cli
