// Commands that drive a PageAlloc and its naive model side by side, and how they are written as bytes and as text.
//
// Arguments are drawn from what exists when the command runs (which live run, which page), so every sequence of
// commands is valid and stays valid when some are left out: that is what lets a failure be cut down to its essence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nh::page_fuzz {

enum class Op : std::uint8_t {
  kAlloc,         // a: size
  kAllocAligned,  // a: size, b: alignment
  kFree,          // a: which run
  kFreePart,      // a: which run, b: which part of it
  kExtend,        // a: which run, b: size
  kClaim,         // a: where, b: size
  kRelease,       // a: which claim, b: scavenged or not
  kScavenge,      // a: below where, b: how many units to look at
  kCacheFill,     // a: which cache
  kCacheAlloc,    // a: which cache, b: size
  kCacheFlush,    // a: which cache
  kGrow,          // a: by how much, b: gap
  kRebuild,
  kCompare,
};
inline constexpr std::size_t kOps = 14;
extern const char* const kOpName[kOps];

struct Command {
  Op op = Op::kCompare;
  std::uint16_t a = 0;
  std::uint16_t b = 0;
};

struct Case {
  std::uint8_t start = 0;  // which of a few places in the region the heap begins at
  std::vector<Command> commands;
};

// One byte for the start, then five bytes for each command; what does not fill a command is dropped.
Case from_bytes(const std::uint8_t* data, std::size_t size);
Case from_seed(std::uint64_t seed, std::size_t commands);
// One command per line, "alloc 17 0".
std::string to_text(const Case& c);
// False where a line is not a command; *error names it.
bool from_text(std::string_view text, Case* out, std::string* error);

// Runs a case. An empty string: allocator and model agreed throughout. Else the first command after which they did
// not, and how. Misuse that the allocator itself detects aborts the process.
std::string run(const Case& c);

}  // namespace nh::page_fuzz
