// numaheap: runs programs on the library, and shows what it sees of the machine.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/cli.h"
#include "numaheap/numaheap.h"

namespace nh::cli {
namespace {

#define NH_TEXT_OF(number) NH_TEXT(number)
#define NH_TEXT(number) #number
constexpr char kVersion[] = "numaheap " NH_TEXT_OF(NUMAHEAP_VERSION_MAJOR) "." NH_TEXT_OF(
    NUMAHEAP_VERSION_MINOR) "." NH_TEXT_OF(NUMAHEAP_VERSION_PATCH) "\n";

constexpr char kHelp[] =
    R"(usage: numaheap run [OPTION...] [--] CMD [ARG...]   run a program on numaheap
       numaheap topo [OPTION...]                   what numaheap sees of this machine
       numaheap options [--markdown|--man]         the NUMAHEAP_ variables
       numaheap profile FILE|PID [OPTION...]       who holds the memory
       numaheap --version
       numaheap COMMAND --help
)";

struct Command {
  const char* name;
  int (*call)(Words);
  const char* help;
};
constexpr Command kCommands[] = {
    {"run", run_command, kRunHelp},
    {"topo", topo_command, kTopoHelp},
    {"options", options_command, kOptionsHelp},
    {"profile", profile_command, kProfileHelp},
};

int main_command(Words words) {
  if (words.empty()) {
    std::fputs(kHelp, stderr);
    return kUsage;
  }
  const std::string_view name = words[0];
  if (name == "--version" || name == "-V") return print(kVersion);
  if (name == "--help" || name == "-h" || name == "help") return print(kHelp);
  for (const Command& command : kCommands) {
    if (name != command.name) continue;
    const Words rest = words.subspan(1);
    const std::string_view first = rest.empty() ? "" : rest[0];
    return first == "--help" || first == "-h" ? print(command.help) : command.call(rest);
  }
  return complain(kUsage, "no command '" + std::string(name) + "'; `numaheap --help` lists them");
}

}  // namespace

int complain(int status, const std::string& text) {
  std::fprintf(stderr, "numaheap: %s\n", text.c_str());
  return status;
}

int print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? 0 : complain(1, std::string("cannot write: ") + std::strerror(errno));
}

bool take_value(Words words, std::size_t* at, std::string_view name, const char** value) {
  const std::string_view word = words[*at];
  if (word == name) {
    *value = *at + 1 < words.size() ? words[*at + 1] : nullptr;
    *at += 2;
    return true;
  }
  if (word.size() > name.size() && word.starts_with(name) && word[name.size()] == '=') {
    *value = words[*at] + name.size() + 1;
    *at += 1;
    return true;
  }
  return false;
}

}  // namespace nh::cli

int main(int argc, char** argv) { return nh::cli::main_command({argv + (argc > 0), argv + argc}); }
