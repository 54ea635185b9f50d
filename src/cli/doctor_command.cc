// `numaheap doctor`: looks around, and shows what was found.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "numa/sysfs_topology.h"

namespace nh::cli {

const char kDoctorHelp[] =
    R"(usage: numaheap doctor [--json] [[--] CMD]

Looks for everything that makes huge pages, placement or speed less than they
could be on this machine, for this user and in this environment: pools,
fragmentation, transparent huge pages, limits and control groups, what the
kernel or a sandbox refuses (by trying it, in processes of its own), containers,
other mallocs, settings. Each finding says what it is here, what it costs, and
what mends it and who has to do that. Nothing is changed. CMD is not run: it is
said whether it could run on numaheap.

  --json   for scripts: the same, with all figures; findings have an id that
           stays the same

Exit status: 0 nothing costs anything (there may be notes); 1 something does;
2 something could not be looked at, or a mistake in the options.
)";

namespace {

ResourceLimit limit_of(int resource) {
  rlimit limit;
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return {};
  const auto bytes = [](rlim_t value) { return value == RLIM_INFINITY ? ResourceLimit::kNone : std::uint64_t{value}; };
  return {bytes(limit.rlim_cur), bytes(limit.rlim_max)};
}

// The file from which this process has its malloc.
std::string malloc_file() {
  Dl_info info;
  void* const function = ::dlsym(RTLD_DEFAULT, "malloc");
  return function != nullptr && ::dladdr(function, &info) != 0 ? info.dli_fname : "";
}

void look_around(const char* program, Surroundings* around) {
  utsname names;
  if (::uname(&names) == 0) around->kernel = std::string("Linux ") + names.release;
  around->libc = std::string("glibc ") + ::gnu_get_libc_version();
  around->tool = tool_name();
  around->library = find_library("", &around->searched);
  around->malloc_file = malloc_file();
  if (program != nullptr) {
    around->program = program;
    around->program_obstacle = preload_obstacle(program);
  }
  around->is_root = ::geteuid() == 0;
  around->secure = ::getauxval(AT_SECURE) != 0;
  for (char** variable = ::environ; *variable != nullptr; variable++) around->environment.push_back(*variable);
  around->address_space = limit_of(RLIMIT_AS);
  around->data = limit_of(RLIMIT_DATA);
  around->locked = limit_of(RLIMIT_MEMLOCK);
  around->stack = limit_of(RLIMIT_STACK);
  around->policy = read_inherited_policy();
  const auto topology = std::make_unique<Topology>();
  load_sysfs_topology(SysfsRoot{}, topology.get());
  try_abilities(usable_nodes(*topology, around->policy), &around->trials);
}

Screen screen_of(int fd) {
  Screen screen;
  winsize size = {};
  if (::isatty(fd) == 0) return screen;
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    screen.columns = std::min<unsigned>(size.ws_col, screen.columns);
  const char* const no_colour = std::getenv("NO_COLOR");
  const char* const terminal = std::getenv("TERM");
  const bool dumb = terminal == nullptr || std::strcmp(terminal, "dumb") == 0;
  screen.colours = !dumb && (no_colour == nullptr || no_colour[0] == '\0');
  return screen;
}

}  // namespace

int doctor_command(Words words) {
  bool json = false;
  std::size_t at = 0;
  for (; at < words.size() && words[at][0] == '-'; at++) {
    const std::string_view word = words[at];
    if (word == "--") {
      at++;
      break;
    }
    if (word != "--json") return refuse_option(kUsage, "doctor", word, {"--json", "--help"});
    json = true;
  }
  Surroundings around;
  look_around(at < words.size() ? words[at] : nullptr, &around);
  const auto patient = examine(around);
  const int printed = print(json ? doctor_json(*patient) : doctor_text(*patient, screen_of(STDOUT_FILENO)));
  return printed != 0 ? kUsage : doctor_status(*patient);
}

}  // namespace nh::cli
