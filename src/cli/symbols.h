// Names of functions by their addresses in a process that may be gone: the symbol tables of the files that it had mapped.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cli/profile_file.h"

namespace nh::cli {

class Symbols {
 public:
  explicit Symbols(const std::vector<ProfileMapping>& mappings) : mappings_(mappings) {}

  // "solve(Grid const&)", or "libfoo.so+0x1234" where its file has no symbol there, or the address alone.
  const std::string& name(std::uint64_t address);

 private:
  struct Segment {
    std::uint64_t offset, address, bytes;
  };
  struct Function {
    std::uint64_t address, bytes;
    std::string name;
  };
  struct File {
    std::vector<Segment> segments;
    std::vector<Function> functions;  // by address
  };

  static File read_file(const std::string& path);
  const File& file(const std::string& path);
  std::string find(std::uint64_t address);

  const std::vector<ProfileMapping>& mappings_;
  std::map<std::string, File> files_;
  std::map<std::uint64_t, std::string> names_;
};

}  // namespace nh::cli
