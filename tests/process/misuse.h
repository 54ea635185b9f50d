// Shared by the misuse programs: blocks in the sizes that take different paths through the heap.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

constexpr size_t kSmall[] = {8, 16, 64, 1024, 32768};
constexpr size_t kMiB = size_t{1} << 20;

// A written block: what the library keeps inside free memory must not be mistaken for what a program left there.
inline char* block(size_t n) {
  auto* p = static_cast<char*>(opaque(malloc(n)));
  REQUIRE(p != nullptr);
  memset(p, 0x5a, n);
  return p;
}

inline char* misuse(void* p) {
  about_to_misuse(p);
  return static_cast<char*>(opaque(p));
}
