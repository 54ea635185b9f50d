// Where the library lies, and whether preloading it can work for a program.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <vector>

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/cli.h"

namespace nh::cli {
namespace {

constexpr char kLibraryName[] = "libnumaheap.so";
constexpr char kSonameSuffix[] = ".0";  // all that is there where a distribution's package for developers is not
// Beside the directory of the tool: where it was configured for, and where packages have their libraries.
constexpr const char* kLibraryDirectories[] = {NUMAHEAP_LIBDIR, "lib", "lib64", "lib/" NUMAHEAP_MULTIARCH};

bool readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

std::string absolute(const std::string& path) {
  char resolved[PATH_MAX];
  return ::realpath(path.c_str(), resolved) != nullptr ? resolved : path;
}

// Links stay: one may be there since LD_PRELOAD cannot hold the path that it leads to.
std::string absolute_with_links(const std::string& path) {
  return path[0] == '/' ? path : absolute(".") + "/" + path;
}

// The directory of this executable; empty where /proc is missing.
std::string own_directory() {
  char path[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  if (n <= 0 || n == ssize_t{sizeof path}) return "";
  const std::string self(path, static_cast<std::size_t>(n));
  return self.substr(0, self.rfind('/'));
}

bool is_elf64(const Elf64_Ehdr& header) {
  return std::string_view(reinterpret_cast<const char*>(header.e_ident), SELFMAG) == ELFMAG &&
         header.e_ident[EI_CLASS] == ELFCLASS64;
}

// Whether a program has libnumaheap.a in it. The name of a variable is there even where it has been stripped.
bool has_ours(std::ifstream& file) {
  constexpr std::string_view kName = "NUMAHEAP_HUGE_SOURCE";
  file.clear();
  file.seekg(0);
  std::string piece(1 << 20, '\0');
  std::size_t kept = 0;  // of the piece before, so that a name that lies across both is found
  while (file.read(piece.data() + kept, static_cast<std::streamsize>(piece.size() - kept)) || file.gcount() > 0) {
    const std::string_view text(piece.data(), kept + static_cast<std::size_t>(file.gcount()));
    if (text.find(kName) != text.npos) return true;
    kept = std::min(text.size(), kName.size() - 1);
    std::copy(text.end() - static_cast<std::ptrdiff_t>(kept), text.end(), piece.begin());
  }
  return false;
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

std::string tool_name() {
  const std::string directory = own_directory();
  if (directory.empty() || absolute(resolve("numaheap")) == directory + "/numaheap") return "numaheap";
  return shell_word(directory + "/numaheap");
}

std::string shell_word(const std::string& word) {
  constexpr char kPlain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// The loader splits at both and knows no quoting.
bool fits_ld_preload(const std::string& path) { return path.find_first_of(" :") == path.npos; }

std::string run_through_link(const std::string& tool, const std::string& library) {
  return "ln -s " + shell_word(library) + " ~/libnumaheap.so; " + tool + " run --library ~/libnumaheap.so";
}

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
      for (const char* const directory : kLibraryDirectories) add(own + "/../" + directory);
    }
    add(NUMAHEAP_FULL_LIBDIR);
  }
  searched->clear();
  for (const std::string& place : places) {
    if (readable(place)) return asked.empty() ? absolute(place) : absolute_with_links(place);
    if (asked.empty() && readable(place + kSonameSuffix)) return absolute(place + kSonameSuffix);
    if (!searched->empty()) *searched += ", ";
    *searched += place;
  }
  return "";
}

bool defines_malloc(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const auto read = [&](std::uint64_t at, void* to, std::size_t bytes) {
    file.seekg(static_cast<std::streamoff>(at));
    return static_cast<bool>(file.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes)));
  };
  Elf64_Ehdr header;
  if (!read(0, &header, sizeof header) || !is_elf64(header) || header.e_shentsize != sizeof(Elf64_Shdr)) return false;
  Elf64_Shdr symbols, names;
  for (unsigned i = 0;; i++) {
    if (i == header.e_shnum || !read(header.e_shoff + i * sizeof symbols, &symbols, sizeof symbols)) return false;
    if (symbols.sh_type == SHT_DYNSYM) break;
  }
  if (!read(header.e_shoff + symbols.sh_link * sizeof names, &names, sizeof names)) return false;
  // A damaged file must not make us ask for more memory than there is.
  constexpr std::uint64_t kMost = 256 << 20;
  if (symbols.sh_size > kMost || names.sh_size > kMost) return false;
  std::vector<Elf64_Sym> table(symbols.sh_size / sizeof(Elf64_Sym));
  std::string text(names.sh_size, '\0');
  if (!read(symbols.sh_offset, table.data(), table.size() * sizeof table[0]) ||
      !read(names.sh_offset, text.data(), text.size()))
    return false;
  return std::any_of(table.begin(), table.end(), [&](const Elf64_Sym& symbol) {
    return symbol.st_shndx != SHN_UNDEF && symbol.st_name < text.size() &&
           text.compare(symbol.st_name, 7, "malloc", 7) == 0;
  });
}

std::string preload_obstacle(const std::string& command) {
  const std::string path = resolve(command);
  // The loader ignores LD_PRELOAD where the program gains rights by being started.
  struct stat state;
  if (::stat(path.c_str(), &state) == 0 && S_ISREG(state.st_mode)) {
    if ((state.st_mode & S_ISUID) != 0 && state.st_uid != ::getuid()) return "it is set-uid, and so ignores LD_PRELOAD";
    if ((state.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && state.st_gid != ::getgid()) {
      return "it is set-gid, and so ignores LD_PRELOAD";
    }
  }
  if (::getuid() != 0 && ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) {
    return "it has capabilities of its own (getcap), and so ignores LD_PRELOAD";
  }
  std::ifstream file(path, std::ios::binary);
  Elf64_Ehdr header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return "";
  if (std::string_view(reinterpret_cast<const char*>(header.e_ident), SELFMAG) != ELFMAG) return "";
  if (!is_elf64(header) || header.e_machine != EM_X86_64) return "it is not a 64-bit x86 program";
  for (unsigned i = 0;; i++) {
    if (i == header.e_phnum) return has_ours(file) ? "" : "it is statically linked; link it with libnumaheap.a";
    Elf64_Phdr segment;
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return "";
    if (segment.p_type == PT_INTERP) break;
  }
  if (!defines_malloc(path) || has_ours(file)) return "";
  return "it brings a malloc of its own, which comes before every preloaded one";
}

}  // namespace nh::cli
