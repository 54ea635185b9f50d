// Where the library lies, and whether preloading it can work for a program.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <vector>

#include <elf.h>
#include <unistd.h>

#include "cli/cli.h"

namespace nh::cli {
namespace {

constexpr char kLibraryName[] = "libnumaheap.so";

bool readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

std::string absolute(const std::string& path) {
  char resolved[PATH_MAX];
  return ::realpath(path.c_str(), resolved) != nullptr ? resolved : path;
}

// The directory of this executable; empty where /proc is missing.
std::string own_directory() {
  char path[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  if (n <= 0 || n == ssize_t{sizeof path}) return "";
  const std::string self(path, static_cast<std::size_t>(n));
  return self.substr(0, self.rfind('/'));
}

// The file that execvp would take.
std::string resolve(const std::string& command) {
  if (command.find('/') != command.npos) return command;
  const char* const path = std::getenv("PATH");
  const std::string directories = std::string(path != nullptr ? path : "/bin:/usr/bin") + ":";
  for (std::size_t from = 0, colon; (colon = directories.find(':', from)) != directories.npos; from = colon + 1) {
    const std::string directory = directories.substr(from, colon - from);
    const std::string file = (directory.empty() ? "." : directory) + "/" + command;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return command;
}

}  // namespace

std::string find_library(const std::string& asked, std::string* searched) {
  std::vector<std::string> places;
  const auto add = [&](const std::string& directory) {
    const std::string place = directory + "/" + kLibraryName;
    if (std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  };
  if (!asked.empty()) {
    places.push_back(asked);
  } else {
    const std::string own = own_directory();
    if (!own.empty()) {
      add(own);
      add(own + "/../" NUMAHEAP_LIBDIR);
      add(own + "/../lib");
    }
    add(NUMAHEAP_FULL_LIBDIR);
  }
  searched->clear();
  for (const std::string& place : places) {
    if (readable(place)) return absolute(place);
    if (!searched->empty()) *searched += ", ";
    *searched += place;
  }
  return "";
}

std::string preload_obstacle(const std::string& command) {
  std::ifstream file(resolve(command), std::ios::binary);
  Elf64_Ehdr header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return "";
  if (std::string_view(reinterpret_cast<const char*>(header.e_ident), SELFMAG) != ELFMAG) return "";
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) return "it is not a 64-bit x86 program";
  for (unsigned i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return "";
    if (segment.p_type == PT_INTERP) return "";
  }
  return "it is statically linked; link it with libnumaheap.a";
}

}  // namespace nh::cli
