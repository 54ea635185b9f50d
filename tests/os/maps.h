// What the kernel says about a piece of this process's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>

namespace nh::test {

struct Mapping {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::string permissions;  // as "rw-p"; empty where nothing is mapped
};

inline std::vector<Mapping> mappings() {
  std::vector<Mapping> out;
  std::FILE* const f = std::fopen("/proc/self/maps", "r");
  char line[512];
  while (f != nullptr && std::fgets(line, sizeof line, f) != nullptr) {
    Mapping m;
    char permissions[8] = "";
    if (std::sscanf(line, "%zx-%zx %7s", &m.begin, &m.end, permissions) != 3) continue;
    m.permissions = permissions;
    out.push_back(m);
  }
  if (f != nullptr) std::fclose(f);
  return out;
}

inline Mapping mapping_of(const void* p) {
  const auto a = reinterpret_cast<std::uintptr_t>(p);
  for (const Mapping& m : mappings()) {
    if (m.begin <= a && a < m.end) return m;
  }
  return {};
}

inline std::string permissions_of(const void* p) { return mapping_of(p).permissions; }

// The number of mappings that lie in [p, p + bytes), at least in part.
inline std::size_t mappings_within(const void* p, std::size_t bytes) {
  const auto a = reinterpret_cast<std::uintptr_t>(p);
  std::size_t count = 0;
  for (const Mapping& m : mappings()) count += m.begin < a + bytes && a < m.end;
  return count;
}

// What stands behind "name:" for the mapping that holds p in /proc/self/smaps.
inline std::string smaps_text(const void* p, const std::string& name) {
  const auto a = reinterpret_cast<std::uintptr_t>(p);
  std::FILE* const f = std::fopen("/proc/self/smaps", "r");
  char line[512];
  bool inside = false;
  std::string result;
  while (f != nullptr && std::fgets(line, sizeof line, f) != nullptr) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line, "%zx-%zx ", &begin, &end) == 2) inside = begin <= a && a < end;
    const std::string text = line;
    if (inside && text.starts_with(name + ":")) result = text.substr(name.size() + 1);
  }
  if (f != nullptr) std::fclose(f);
  return result;
}

// The same for a counter in kB, such as "AnonHugePages"; 0 where there is none.
inline std::size_t smaps_kb(const void* p, const std::string& name) {
  return std::strtoull(smaps_text(p, name).c_str(), nullptr, 10);
}

// The number of base pages of [p, p + bytes) that exist.
inline std::size_t resident_pages(void* p, std::size_t bytes) {
  std::vector<unsigned char> present(bytes / 4096);
  if (::mincore(p, bytes, present.data()) != 0) return 0;
  std::size_t count = 0;
  for (const unsigned char c : present) count += c & 1;
  return count;
}

}  // namespace nh::test
