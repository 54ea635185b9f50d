// `numaheap run`: sets the environment and becomes the program.
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "base/options.h"
#include "cli/cli.h"
#include "numa/hwloc_topology.h"
#include "numa/sysfs_topology.h"
#include "numa/topology_text.h"

namespace nh::cli {

const char kRunHelp[] =
    R"(usage: numaheap run [OPTION...] [--] CMD [ARG...]

Runs CMD with libnumaheap.so preloaded. Every NUMAHEAP_ variable is an option as
well: NUMAHEAP_CPU_CACHE=1M is --cpu-cache 1M or --cpu-cache=1M; switches need
no value. `numaheap options` lists them. The usual ones:

  --stats stderr|FILE|FILE.json   statistics at exit (%p: process id)
  --report                        a table with a row per node at exit
  --hugepages auto|2m|1g|thp|off  the pages that back the heap
  --policy local|interleave|bind:NODES|preferred:NODE
  --strict                        mistakes in NUMAHEAP_ variables are fatal

  --library FILE                  the library to preload
  --dry-run                       print the command line with its environment
                                  instead of running it

Exit status: that of CMD; 125 when this tool fails, 126 when CMD cannot be
executed, 127 when it does not exist.
)";

namespace {

struct Plan {
  std::vector<std::pair<std::string, std::string>> environment;
  std::string library;
  bool dry_run = false;
  std::size_t command = 0;  // index of CMD among the words

  // A later setting of a name takes the place of an earlier one.
  void set(const std::string& name, const std::string& value) {
    std::erase_if(environment, [&](const auto& setting) { return setting.first == name; });
    environment.emplace_back(name, value);
  }
};

// NUMAHEAP_CPU_CACHE -> --cpu-cache
std::string flag_of(const OptionInfo& info) {
  std::string flag = "--";
  for (const char* c = info.name + std::strlen("NUMAHEAP_"); *c != '\0'; c++) {
    flag += *c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
  }
  return flag;
}

// Takes one option of the table at *at. 0 where none matches, 1 where one was taken, -1 with a complaint.
int take_table_option(Words words, std::size_t* at, Plan* plan) {
  for (unsigned i = 0; i < kOptionCount; i++) {
    const auto id = static_cast<OptionId>(i);
    const OptionInfo& info = option_info(id);
    const std::string flag = flag_of(info);
    const char* value = nullptr;
    if (info.form.kind == OptionKind::kBool && words[*at] == flag) {
      value = "1";
      *at += 1;
    } else if (!take_value(words, at, flag, &value)) {
      continue;
    }
    Text<256> accepts;
    write_option_accepts(accepts, id);
    if (value == nullptr) {
      complain(0, "run: " + flag + " needs a value: " + accepts.c_str());
      return -1;
    }
    // Better here than as a warning from the middle of a job.
    Options scratch;
    Text<512> problem;
    if (!set_option(id, value, &scratch, &problem)) {
      complain(0, "run: " + flag + " does not take '" + value + "': accepts " + accepts.c_str());
      return -1;
    }
    plan->set(info.name, value);
    return 1;
  }
  return 0;
}

// 0, or an exit status with a complaint made.
int parse(Words words, Plan* plan) {
  std::size_t at = 0;
  while (at < words.size()) {
    const std::string_view word = words[at];
    const char* value = nullptr;
    if (word == "--") {
      at++;
      break;
    }
    if (!word.starts_with("-")) break;
    if (word == "--dry-run") {
      plan->dry_run = true;
      at++;
    } else if (take_value(words, &at, "--library", &value)) {
      if (value == nullptr) return complain(kRunFailed, "run: --library needs a value: the path of libnumaheap.so");
      plan->library = value;
    } else {
      const int taken = take_table_option(words, &at, plan);
      if (taken < 0) return kRunFailed;
      if (taken == 0) {
        std::vector<std::string> known = {"--library", "--dry-run", "--help"};
        for (unsigned i = 0; i < kOptionCount; i++) known.push_back(flag_of(option_info(static_cast<OptionId>(i))));
        return refuse_option(kRunFailed, "run", word, known);
      }
    }
  }
  if (at >= words.size()) {
    return complain(kRunFailed, "run: which program? As in `numaheap run -- CMD`; see `numaheap run --help`");
  }
  plan->command = at;
  return 0;
}

// The value that CMD will see: ours, or what the environment already holds.
const char* value_in_force(const Plan& plan, const char* name) {
  for (const auto& [set, value] : plan.environment) {
    if (set == name) return value.c_str();
  }
  return std::getenv(name);
}

// Loads the topology once, so that no process of the job on this machine has to: a description is turned into our own
// form, and on a machine of several nodes hwloc's view is passed on, with the boot id, since launchers such as srun take
// the environment to other machines. What came from another machine does not count here.
int pass_topology(Plan* plan) {
  constexpr char kName[] = "NUMAHEAP_TOPOLOGY";
  const auto topology = std::make_unique<Topology>();
  const char* const described = value_in_force(*plan, kName);
  const bool given = described != nullptr && described[0] != '\0' && !is_of_another_machine(described, SysfsRoot{});
  BootId boot_id;
  Text<256> why;
  if (given) {
    if (!load_described_topology(described, SysfsRoot{}, topology.get(), &why)) {
      return complain(kRunFailed, std::string("run: ") + kName + ": " + why.c_str());
    }
    if (kind_of_description(described) == TopologyDescription::kSerialised) return 0;
  } else {
    load_sysfs_topology(SysfsRoot{}, topology.get());
    if (topology->node_count() == 1) return 0;  // read from /sys in less time than the text takes to parse
    if (!read_boot_id(SysfsRoot{}, &boot_id)) return 0;  // nobody could tell whose it is
    const auto scratch = std::make_unique<Topology>();
    refine_with_hwloc(SysfsRoot{}, topology.get(), scratch.get(), &why);  // without hwloc /sys will do
  }
  // The kernel takes at most 128 KiB per variable.
  const auto text = std::make_unique<Text<128 * 1024 - sizeof kName>>();
  if (topology->truncated()) complain(0, "the machine has more nodes or CPUs than numaheap can use; some are left out");
  write_topology_text(*text, *topology, given ? std::string_view() : boot_id.view());
  if (!text->truncated()) plan->set(kName, text->c_str());
  return 0;
}

// libc registers restartable sequences for a thread before anybody else can, unless it is told not to at its start.
void keep_libc_from_rseq(Plan* plan) {
  const char* const wanted = value_in_force(*plan, "NUMAHEAP_RSEQ");
  Options options;
  Text<512> problem;
  if (wanted == nullptr || !set_option(OptionId::kRseq, wanted, &options, &problem)) return;
  if (options.rseq != RseqOption::kOwn) return;
  const char* const given = std::getenv("GLIBC_TUNABLES");
  const std::string tunables = given != nullptr ? given : "";
  if (tunables.find("glibc.pthread.rseq=") != tunables.npos) return;
  plan->set("GLIBC_TUNABLES", (tunables.empty() ? "" : tunables + ":") + "glibc.pthread.rseq=0");
}

// Ours first, so that no other malloc in the list comes before it.
int preload(Plan* plan) {
  std::string searched;
  const std::string library = find_library(plan->library, &searched);
  if (library.empty()) return complain(kRunFailed, "run: libnumaheap.so not found; looked for " + searched);
  if (!fits_ld_preload(library)) {
    return complain(kRunFailed, "run: '" + library + "': LD_PRELOAD cannot hold a path with a space or colon; link to it "
                    "from one without, as in: " + run_through_link(tool_name(), library));
  }
  const char* const others = std::getenv("LD_PRELOAD");
  std::string value = library;
  if (others != nullptr && others[0] != '\0') {
    const std::string rest = others;
    const bool ours_already = rest == library || rest.starts_with(library + ":") || rest.starts_with(library + " ");
    value = ours_already ? rest : library + ":" + rest;
  }
  plan->set("LD_PRELOAD", value);
  return 0;
}

int print_plan(const Plan& plan, Words command) {
  std::string line = "env";
  for (const auto& [name, value] : plan.environment) line.append(" ").append(name).append("=").append(shell_word(value));
  for (const char* const word : command) line.append(" ").append(shell_word(word));
  return print(line + "\n");
}

}  // namespace

int run_command(Words words) {
  Plan plan;
  int status = parse(words, &plan);
  if (status == 0) status = pass_topology(&plan);
  if (status == 0) status = preload(&plan);
  keep_libc_from_rseq(&plan);
  if (status != 0) return status;
  const Words command = words.subspan(plan.command);
  if (plan.dry_run) return print_plan(plan, command);

  // The program keeps our process id. Helpers that it starts report only if they are worth a table.
  const char* const wanted = value_in_force(plan, "NUMAHEAP_REPORT");
  bool report = false;
  if (wanted != nullptr && parse_bool(wanted, &report) && report && value_in_force(plan, "NUMAHEAP_REPORT_PID") == nullptr) {
    plan.set("NUMAHEAP_REPORT_PID", std::to_string(::getpid()));
  }
  for (const auto& [name, value] : plan.environment) {
    if (::setenv(name.c_str(), value.c_str(), 1) != 0) return complain(kRunFailed, "run: out of memory");
  }
  const std::string obstacle = preload_obstacle(command[0]);
  const char* const quiet = value_in_force(plan, "NUMAHEAP_QUIET");
  bool is_quiet = false;
  if (!obstacle.empty() && !(quiet != nullptr && parse_bool(quiet, &is_quiet) && is_quiet)) {
    complain(0, std::string("run: ") + command[0] + " runs on its own malloc: " + obstacle);
  }
  // In place: CMD keeps the process id, so that exit status, signals and job control are its own.
  std::vector<char*> arguments;
  for (const char* const word : command) arguments.push_back(const_cast<char*>(word));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  const int error = errno;
  return complain(error == ENOENT ? kNotFound : kCannotInvoke,
                  std::string("run: ") + command[0] + ": " + std::strerror(error));
}

}  // namespace nh::cli
