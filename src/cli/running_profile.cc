#include "cli/running_profile.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include "base/file_name.h"
#include "base/profile_settings.h"
#include "cli/profile_file.h"

namespace nh::cli {
namespace {

using namespace std::chrono_literals;

std::string whole_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// What the process was started with, "NAME=value" each.
std::vector<std::string> environment_of(const std::string& process) {
  std::vector<std::string> variables;
  std::istringstream in(whole_file(process + "/environ"));
  for (std::string variable; std::getline(in, variable, '\0');) variables.push_back(variable);
  return variables;
}

std::string file_name(const char* pattern, pid_t pid, const std::string& process, const std::vector<std::string>& variables) {
  std::vector<const char*> environment;
  for (const std::string& variable : variables) environment.push_back(variable.c_str());
  environment.push_back(nullptr);
  char host[256] = "unknown";
  ::gethostname(host, sizeof host - 1);
  const std::string command = whole_file(process + "/cmdline");
  const std::string program = std::filesystem::path(command.c_str()).filename();
  Text<4096> name;
  write_file_name(name, pattern, {pid, host, program, rank_in(environment.data())});
  return std::string(name.view());
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
  ProfileSettings settings;
  Text<300> problem;
  constexpr std::string_view kVariable = "NUMAHEAP_PROFILE=";
  for (const std::string& variable : variables) {
    if (variable.starts_with(kVariable)) parse_profile(variable.substr(kVariable.size()), &settings, &problem);
  }
  // The signal would end a program that does not wait for it.
  if (settings.signal == 0 || !catches(process, settings.signal)) {
    *why = "it was not told to write its profile while it runs: start it with NUMAHEAP_PROFILE=FILE,signal=USR2";
    return false;
  }
  const std::string name = file_name(settings.file, pid, process, variables);
  *path = name.starts_with('/') ? process + "/root" + name : process + "/cwd/" + name;
  struct stat before = {}, now = {};
  const bool existed = ::stat(path->c_str(), &before) == 0;
  if (::kill(pid, settings.signal) != 0) {
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
