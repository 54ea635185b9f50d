// The process and what surrounds it: containers, preloaded libraries, other mallocs, settings.
#include <filesystem>
#include <memory>
#include <utility>

#include <sys/vfs.h>

#include "base/options.h"
#include "base/scan.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

using Who = Remedy::Who;

bool is_ours(const std::string& path) {
  return path.find("libnumaheap.so", path.rfind('/') == path.npos ? 0 : path.rfind('/')) != path.npos;
}

// The loader splits at both.
std::vector<std::string> preloaded(std::string_view list) {
  std::vector<std::string> paths;
  std::string path;
  for (const char c : std::string(list) + ":") {
    if (c != ':' && c != ' ' && c != '\n' && c != '\t') {
      path += c;
      continue;
    }
    if (!path.empty()) paths.push_back(path);
    path.clear();
  }
  return paths;
}

void check_preload(Patient& patient) {
  const char* const variable = patient.variable("LD_PRELOAD");
  const std::vector<std::string> list = preloaded(variable != nullptr ? variable : "");
  std::string other;  // the first that brings a malloc and is not ours
  bool ours = false, ours_first = false;
  for (const std::string& path : list) {
    const bool plain = path.find('/') == path.npos;  // looked for along the library path
    if (!plain && !path_exists(path.c_str())) {
      Finding& finding = patient.add("preload-missing", is_ours(path) ? Severity::kSerious : Severity::kNote,
                                     "A library that LD_PRELOAD names does not exist");
      finding.here = path;
      finding.costs = is_ours(path) ? "programs run on the system's malloc" : "a line on stderr of every program";
      finding.remedies.push_back({Who::kYou, "unset LD_PRELOAD"});
      if (is_ours(path)) finding.remedies.push_back({Who::kYou, patient.around.tool + " run -- CMD"});
      continue;
    }
    if (is_ours(path)) {
      ours_first = !ours && other.empty();
      ours = true;
    } else if (other.empty() && (defines_malloc(path) || (plain && path.find("malloc") != path.npos))) {
      other = path;
    }
  }
  if (!other.empty()) {
    Finding& finding =
        patient.add("other-malloc", ours_first ? Severity::kNote : Severity::kSerious,
                    ours_first ? "Another malloc is preloaded behind numaheap" : "Another malloc is preloaded first");
    finding.here =
        "LD_PRELOAD: " + other + (ours ? ours_first ? " after libnumaheap.so" : " before libnumaheap.so" : "");
    finding.costs = ours_first ? "memory and start time for a library without use"
                               : "programs that are started with this environment do not run on numaheap";
    finding.remedies.push_back({Who::kYou, "unset LD_PRELOAD"});
    if (!ours_first) finding.remedies.push_back({Who::kYou, patient.around.tool + " run -- CMD"});
  } else if (ours) {
    patient.fine.push_back("LD_PRELOAD names libnumaheap.so, and no other malloc");
  }

  // These come after LD_PRELOAD's, so ours wins; but whoever links numaheap comes last.
  for (const std::string& path : preloaded(text_of(patient.root + "/etc/ld.so.preload").value_or(""))) {
    if (is_ours(path) || !defines_malloc(path)) continue;
    Finding& finding =
        patient.add("system-malloc", Severity::kNote, "This system preloads another malloc into every program");
    finding.here = "/etc/ld.so.preload: " + path;
    finding.costs = "programs that are linked to numaheap run on it, too; preloading numaheap wins";
    finding.remedies.push_back({Who::kYou, patient.around.tool + " run -- CMD"});
  }
}

void check_settings(Patient& patient) {
  std::vector<const char*> environment;
  for (const std::string& setting : patient.around.environment) environment.push_back(setting.c_str());
  environment.push_back(nullptr);
  const auto options = std::make_unique<Options>();
  const auto problems = std::make_unique<OptionProblems>();
  parse_options(environment.data(), patient.around.secure, options.get(), problems.get());
  for (unsigned i = 0; i < problems->count; i++) {
    const std::string line = problems->line[i];
    Finding& finding =
        patient.add("setting-wrong", Severity::kCosts, "A setting in the environment is not what it seems");
    finding.here = line;
    finding.costs = "it is not in force";
    finding.remedies.push_back({Who::kYou, "unset " + line.substr(0, line.find_first_of("=:"))});
  }
  Text<512> policy;
  settle_placement(options->policy, options->given(OptionId::kPolicy), patient.around.policy, *patient.topology,
                   &policy);
  struct statfs mount;
  constexpr long kHugetlbfsMagic = 0x958458f6;
  const auto refused = [&](const char* name, const std::string& here, const std::string& costs) -> Finding& {
    Finding& finding = patient.add("setting-unmet", Severity::kCosts, "A setting cannot be met here");
    finding.here = here;
    finding.costs = costs;
    finding.remedies.push_back({Who::kYou, std::string("unset ") + name});
    return finding;
  };
  if (policy.size() > 0) refused("NUMAHEAP_POLICY", policy.c_str(), "memory lies elsewhere");
  if (!options->hugetlbfs.empty() &&
      (::statfs(options->hugetlbfs.c_str(), &mount) != 0 || mount.f_type != kHugetlbfsMagic)) {
    refused("NUMAHEAP_HUGETLBFS", std::string("NUMAHEAP_HUGETLBFS=") + options->hugetlbfs.c_str() + " is no hugetlbfs",
            "the pool is not used");
  }
  const bool wants_1g = options->hugepages == HugePagesOption::k1G;
  if ((wants_1g && patient.pool_pages(1048576) == 0) ||
      (options->hugepages == HugePagesOption::k2M && patient.pool_pages() == 0)) {
    Finding& finding = refused("NUMAHEAP_HUGEPAGES",
                               std::string("NUMAHEAP_HUGEPAGES=") + patient.variable("NUMAHEAP_HUGEPAGES") +
                                   ", but the pool of " + (wants_1g ? "1 GiB" : "2 MiB") + " pages is empty",
                               "the next best pages serve");
    finding.remedies.push_back(
        {Who::kRoot,
         as_root(patient, patient.around.tool + " reserve" + (wants_1g ? " --size 1G" : "") + " --node all=SIZE"),
         false});
  }
  const auto slower = [&](const char* name, const char* title, const char* costs) {
    Finding& finding = patient.add("setting-slow", Severity::kCosts, title);
    finding.here = std::string(name) + "=" + patient.variable(name);
    finding.costs = costs;
    finding.remedies.push_back({Who::kYou, std::string("unset ") + name});
  };
  if (options->hugepages == HugePagesOption::kOff) {
    slower("NUMAHEAP_HUGEPAGES", "Huge pages are switched off by a setting", "all memory is on pages of 4 KiB");
  } else if (options->hugepages == HugePagesOption::kThp && patient.pool_pages() > 0) {
    slower("NUMAHEAP_HUGEPAGES", "The pool is switched off by a setting", "its pages lie idle");
  }
  if (options->rseq == RseqOption::kOff) {
    slower("NUMAHEAP_RSEQ", "Restartable sequences are switched off by a setting",
           "every malloc and free takes a lock");
  }
  if (options->given(OptionId::kCpuCache) && options->cpu_cache == 0) {
    slower("NUMAHEAP_CPU_CACHE", "The caches of the CPUs are switched off by a setting",
           "every malloc and free takes a lock");
  }
}

// Whether we are where the machine started: then files that an image of a container has left behind mean nothing. The
// numbers of the first namespaces are part of the kernel's ABI.
bool in_first_namespaces(const std::string& root) {
  constexpr std::pair<const char*, const char*> kFirst[] = {{"pid", "pid:[4026531836]"},
                                                            {"uts", "uts:[4026531838]"},
                                                            {"ipc", "ipc:[4026531839]"},
                                                            {"user", "user:[4026531837]"}};
  for (const auto& [name, first] : kFirst) {
    std::error_code error;
    if (std::filesystem::read_symlink(root + "/proc/self/ns/" + name, error) != first) return false;
  }
  return true;
}

}  // namespace

void find_container(Patient& patient) {
  const std::string& root = patient.root;
  const auto there = [&](const char* path) { return path_exists((root + path).c_str()); };
  std::uint64_t filter = 0;
  patient.seccomp = read_field((root + "/proc/self/status").c_str(), "Seccomp", &filter) && filter != 0;
  const std::string group = text_of(root + "/proc/self/cgroup").value_or("");
  const auto in_group = [&](const char* name) { return group.find(name) != group.npos; };
  if (const auto map = text_of(root + "/proc/self/uid_map")) {
    // "0 0 4294967295" is everybody's own number.
    std::string_view words = *map;
    std::uint64_t inside = 0, outside = 0, count = 0;
    take_decimal(&words, &inside);
    words = trimmed(words);
    take_decimal(&words, &outside);
    words = trimmed(words);
    patient.user_namespace = take_decimal(&words, &count) && (inside != outside || count != 4294967295u);
  }
  std::string& kind = patient.container;
  if (in_first_namespaces(root) && patient.variable("APPTAINER_CONTAINER") == nullptr) return;
  if (patient.variable("KUBERNETES_SERVICE_HOST") != nullptr || in_group("kubepods")) {
    kind = "kubernetes";
  } else if (there("/run/.containerenv")) {
    kind = "podman";
  } else if (there("/.dockerenv") || in_group("/docker")) {
    kind = "docker";
  } else if (there("/.singularity.d") || patient.variable("APPTAINER_CONTAINER") != nullptr) {
    kind = "apptainer";
  } else if (const auto name = text_of(root + "/run/systemd/container"); name && !name->empty()) {
    kind = *name;
  } else if (const char* const variable = patient.variable("container"); variable != nullptr && variable[0] != '\0') {
    kind = variable;
  } else if (in_group("/lxc")) {
    kind = "lxc";
  } else if (patient.user_namespace) {
    kind = "a user namespace";
  }
}

void check_process(Patient& patient) {
  const Surroundings& around = patient.around;
  if (around.library.empty()) {
    Finding& finding = patient.add("no-library", Severity::kSerious, "libnumaheap.so is missing");
    finding.here = "looked for " + around.searched;
    finding.costs = "programs run on the system's malloc";
    finding.remedies.push_back({Who::kYou, around.tool + " run --library FILE -- CMD"});
  } else if (!fits_ld_preload(around.library)) {
    Finding& finding = patient.add("library-path", Severity::kSerious, "LD_PRELOAD cannot name the library");
    finding.here = around.library + " has a space or a colon in it";
    finding.costs = "programs run on the system's malloc";
    finding.remedies.push_back({Who::kYou, run_through_link(around.tool, around.library) + " -- CMD"});
  }
  if (!around.program_obstacle.empty()) {
    Finding& finding = patient.add("program", Severity::kSerious, around.program + " runs on its own malloc");
    finding.here = around.program_obstacle;
    finding.costs = "numaheap has no part in it";
    finding.remedies.push_back(
        advice(Who::kYou, "link it with numaheap (numaheap::static, or pkg-config --static numaheap)"));
  } else if (!around.program.empty()) {
    patient.fine.push_back(around.program + " can be run on numaheap");
  }
  if (around.secure) {
    Finding& finding = patient.add("secure", Severity::kNote, "This tool runs set-uid or set-gid");
    finding.here = "the loader and numaheap ignore LD_PRELOAD and NUMAHEAP_ variables";
    finding.costs = "what is said of the environment does not hold";
  }
  check_preload(patient);
  const std::string file = around.malloc_file.substr(around.malloc_file.rfind('/') + 1);
  if (!file.empty() && !is_ours(around.malloc_file) && !file.starts_with("libc.") && !file.starts_with("libc-") &&
      !file.starts_with("numaheap") && patient.variable("LD_PRELOAD") == nullptr) {
    Finding& finding =
        patient.add("malloc-in-the-way", Severity::kNote, "This tool itself has its malloc from elsewhere");
    finding.here = around.malloc_file;
    finding.costs = "programs that are linked to numaheap may have, too; preloading numaheap wins";
    finding.remedies.push_back({Who::kYou, around.tool + " run -- CMD"});
  }
  check_settings(patient);
}

}  // namespace nh::cli
