// The tiny allocator: noscan objects below 16 bytes packed into 16-byte blocks, and the start bits that tell which
// addresses in a block are objects. The 8-byte class uses the same bits.
//
// A block is filled by a bump offset with 8/4/2/1 alignment. Bit i of its 16 start bits says that an object begins at
// byte i; it is set before the object is handed out and cleared, atomically, by free. Bit 15 stands for the CPU that is
// still filling the block (no object begins at byte 15). Whoever clears the last bit returns the block: the free of the
// last object, or the CPU that moves on to another block.
//
// Thread safety: all functions, from any thread. A bit that is clear already when it is to be cleared is a double free
// or an interior pointer: the functions that free return false, and nothing was done.
//
// Algorithm: the Go runtime's tiny allocator, with explicit free in place of the garbage collector.
#pragma once

#include <cstddef>

#include "cache/cpu_caches.h"

namespace nh {

inline constexpr std::size_t kTinySize = 16;  // objects are smaller

// size in 1 .. 15. nullptr: out of memory.
void* tiny_alloc(CpuCaches& caches, std::size_t size);
[[nodiscard]] bool tiny_free(CpuCaches& caches, void* p, const MSpan& span);
bool tiny_is_object(const void* p, const MSpan& span);
// Whether any object begins in the block at p.
bool tiny_block_is_used(const void* p, const MSpan& span);
// Bytes from p to the next object, or to where the next one may begin. 0: no object begins at p.
std::size_t tiny_usable(CpuCaches& caches, const void* p, const MSpan& span);

// Objects of the 8-byte class, which have no room for a mark.
void* eight_alloc(CpuCaches& caches);
[[nodiscard]] bool eight_free(CpuCaches& caches, void* p, const MSpan& span);
bool eight_is_object(const void* p, const MSpan& span);

}  // namespace nh
