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
       numaheap topo [OPTION...]              what numaheap sees of this machine
       numaheap doctor [--json] [CMD]         what is in the way of huge pages,
                                              placement and speed here
       numaheap reserve [--node N=SIZE]...    huge pages for the nodes' pools
       numaheap profile FILE|PID [OPTION...]  who holds the memory
       numaheap stat PID [--json]             what the heaps of a process hold
       numaheap top [PID|--all]               the same again and again, with rates
       numaheap map PID|FILE.json [--svg F]   a picture of its huge pages
       numaheap options [--markdown|--man]    the NUMAHEAP_ variables
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
    {"doctor", doctor_command, kDoctorHelp},
    {"reserve", reserve_command, kReserveHelp},
    {"stat", stat_command, kStatHelp},
    {"top", top_command, kTopHelp},
    {"map", map_command, kMapHelp},
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
  std::vector<std::string> known;
  for (const Command& command : kCommands) known.push_back(command.name);
  return complain(kUsage, "no command '" + std::string(name) + "'" + did_you_mean(name, known) +
                              " `numaheap --help` lists them, `numaheap run -- CMD` runs a program");
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

}  // namespace nh::cli

int main(int argc, char** argv) { return nh::cli::main_command({argv + (argc > 0), argv + argc}); }
