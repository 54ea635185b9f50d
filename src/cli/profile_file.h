// A heap profile as NUMAHEAP_PROFILE writes it (process/profile.h), read for `numaheap profile`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nh::cli {

struct ProfileStack {
  std::uint64_t live_objects, live_bytes, all_objects, all_bytes;
  std::vector<std::uint64_t> frames;  // return addresses, the caller of malloc first
};

struct ProfileMapping {
  std::uint64_t begin, end, offset;
  std::string path;  // "" for memory without a file
};

struct ProfileFile {
  std::vector<ProfileStack> stacks;
  std::vector<ProfileMapping> mappings;  // in order of their addresses
};

// False: *why says what is wrong, naming the line.
bool read_profile(const char* path, ProfileFile* file, std::string* why);

}  // namespace nh::cli
