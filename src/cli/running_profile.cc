#include "cli/running_profile.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <thread>

#include <sys/stat.h>
#include <unistd.h>

#include "cli/profile_file.h"

namespace nh::cli {
namespace {

using namespace std::chrono_literals;

std::string whole_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::map<std::string, std::string> environment_of(const std::string& process) {
  std::map<std::string, std::string> variables;
  std::istringstream in(whole_file(process + "/environ"));
  for (std::string variable; std::getline(in, variable, '\0');) {
    const std::size_t equals = variable.find('=');
    if (equals != variable.npos) variables[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  return variables;
}

// As the process itself does it (src/process/file_name.h).
std::string file_name(const std::string& pattern, pid_t pid, const std::string& process,
                      const std::map<std::string, std::string>& variables) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); i++) {
    const char mark = pattern[i] == '%' && i + 1 < pattern.size() ? pattern[++i] : '\0';
    switch (mark) {
      case '\0': out += pattern[i]; break;
      case '%': out += '%'; break;
      case 'p': out += std::to_string(pid); break;
      case 'h': {
        char host[256] = "";
        ::gethostname(host, sizeof host - 1);
        out += host;
        break;
      }
      case 'e': {
        const std::string line = whole_file(process + "/cmdline");
        out += std::filesystem::path(line.c_str()).filename().string();
        break;
      }
      case 'r': {
        std::string rank = "0";
        for (const char* name : {"SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
          if (const auto found = variables.find(name); found != variables.end()) rank = found->second;
        }
        out += rank;
        break;
      }
      default: (out += '%') += mark;
    }
  }
  return out;
}

int signal_of(const std::string& settings) {
  std::istringstream in(settings);
  std::string part;
  std::getline(in, part, ',');  // the file
  while (std::getline(in, part, ',')) {
    if (!part.starts_with("signal=")) continue;
    std::string name = part.substr(7);
    if (name.starts_with("SIG")) name = name.substr(3);
    return name == "USR1" ? SIGUSR1 : name == "USR2" ? SIGUSR2 : std::atoi(name.c_str());
  }
  return 0;
}

bool catches(const std::string& process, int signal) {
  const std::string status = whole_file(process + "/status");
  const std::size_t at = status.find("SigCgt:");
  return at != status.npos && (std::strtoull(status.c_str() + at + 7, nullptr, 16) >> (signal - 1) & 1) != 0;
}

}  // namespace

bool ask_for_profile(pid_t pid, std::string* path, std::string* why) {
  const std::string process = "/proc/" + std::to_string(pid);
  if (::kill(pid, 0) != 0 && errno == ESRCH) {
    *why = "there is no such process";
    return false;
  }
  const auto variables = environment_of(process);
  if (variables.empty()) {
    *why = "its environment cannot be read: run as its user or as root";
    return false;
  }
  const auto settings = variables.find("NUMAHEAP_PROFILE");
  const int signal = settings == variables.end() ? 0 : signal_of(settings->second);
  // The signal would end a program that does not wait for it.
  if (signal == 0 || !catches(process, signal)) {
    *why = "it was not told to write its profile while it runs: start it with NUMAHEAP_PROFILE=FILE,signal=USR2";
    return false;
  }
  const std::string pattern = settings->second.substr(0, settings->second.find(','));
  const std::string name = file_name(pattern, pid, process, variables);
  *path = name.starts_with('/') ? process + "/root" + name : process + "/cwd/" + name;
  struct stat before = {}, now = {};
  const bool existed = ::stat(path->c_str(), &before) == 0;
  if (::kill(pid, signal) != 0) {
    *why = std::strerror(errno);
    return false;
  }
  for (int i = 0; i < 100; i++) {
    std::this_thread::sleep_for(50ms);
    if (::stat(path->c_str(), &now) != 0) continue;
    const bool is_new = !existed || now.st_mtim.tv_sec != before.st_mtim.tv_sec || now.st_mtim.tv_nsec != before.st_mtim.tv_nsec;
    ProfileFile file;
    std::string unfinished;
    if (is_new && read_profile(path->c_str(), &file, &unfinished)) return true;
  }
  *why = "it has not written " + name + " within 5 s of the signal; its stderr may say why";
  return false;
}

}  // namespace nh::cli
