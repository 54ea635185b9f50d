// The mark of a free object: its second word holds a random per-process key xor its own address.
//
// free() writes it, malloc() clears it, and an object that carries it when it is freed is looked at closely: that is a
// double free unless the program happened to write this very value. Whatever lies on a list carries it, objects fresh
// from a span too, so that malloc() notices one that was written to meanwhile, or that is on its list twice. The address
// is mixed in so that a copy of stale memory to another object does not look free. Objects of 8 bytes and tiny ones have
// no room for it; their start bits do its work.
#pragma once

#include <cstdint>

#include "base/bits.h"

namespace nh {

// Fixed at start, before the CPU caches are set up: their fast path keeps a copy.
extern std::uint64_t g_free_key [[gnu::visibility("hidden")]];

inline std::uint64_t free_mark(const void* p) { return g_free_key ^ address(p); }
inline std::uint64_t& mark_word(void* p) { return static_cast<std::uint64_t*>(p)[1]; }

}  // namespace nh
