#include "cli/profile_file.h"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace nh::cli {
namespace {

bool parse_stack(const std::string& line, ProfileStack* stack) {
  int end = 0;
  const int fields = std::sscanf(line.c_str(), "%" SCNu64 ": %" SCNu64 " [%" SCNu64 ": %" SCNu64 "] @%n", &stack->live_objects,
                                 &stack->live_bytes, &stack->all_objects, &stack->all_bytes, &end);
  if (fields != 4 || end == 0) return false;
  for (const char* at = line.c_str() + end; *at != '\0';) {
    char* next;
    const std::uint64_t address = std::strtoull(at, &next, 16);
    if (next == at) return false;
    stack->frames.push_back(address);
    at = next;
  }
  return !stack->frames.empty();
}

bool parse_mapping(const std::string& line, ProfileMapping* mapping) {
  int path = 0;
  const int fields = std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %*s %n", &mapping->begin,
                                 &mapping->end, &mapping->offset, &path);
  if (fields != 3) return false;
  if (path != 0) mapping->path = line.substr(static_cast<std::size_t>(path));
  return true;
}

}  // namespace

bool read_profile(const char* path, ProfileFile* file, std::string* why) {
  std::ifstream in(path);
  if (!in) {
    *why = std::strerror(errno);
    return false;
  }
  std::string line;
  if (!std::getline(in, line) || !line.starts_with("heap profile: ") || !line.ends_with("@ heapprofile")) {
    *why = "it is no heap profile of numaheap: its first line should begin with \"heap profile: \"";
    return false;
  }
  bool in_mappings = false;
  for (std::size_t number = 2; std::getline(in, line); number++) {
    if (line == "MAPPED_LIBRARIES:") {
      in_mappings = true;
    } else if (in_mappings) {
      ProfileMapping mapping;
      if (parse_mapping(line, &mapping)) file->mappings.push_back(mapping);
    } else if (!line.empty()) {
      ProfileStack stack;
      if (!parse_stack(line, &stack)) {
        *why = "line " + std::to_string(number) + " cannot be read; was the file cut short?";
        return false;
      }
      file->stacks.push_back(stack);
    }
  }
  if (in_mappings) return true;
  *why = "it ends before the list of mappings; was it cut short?";
  return false;
}

}  // namespace nh::cli
