// The calls that the malloc family, operator new and the public API are made of. They start the heap if need be, keep
// errno on success, and abort with one line on a pointer that is not a live object of ours.
#pragma once

#include <cstddef>

#include "api/large_calls.h"
#include "cache/mcache.h"

namespace nh {

// Where a small request that the fast path could not serve goes. nullptr and ENOMEM when memory is exhausted.
[[gnu::noinline]] void* allocate_slow(std::size_t size);
// A pointer that the fast path could not free (FreeOutcome::kOdd), nullptr included.
[[gnu::noinline]] void release_odd(void* p);
// An object whose list is full (FreeOutcome::kFull).
[[gnu::noinline]] void release_full(void* p);

[[gnu::always_inline]] inline void* allocate(std::size_t size) {
  void* p;
  if (mcache_alloc(size, &p)) [[likely]] return p;
  return size > kMaxSmallSize ? allocate_large(size) : allocate_slow(size);
}

[[gnu::always_inline]] inline void release(void* p) {
  switch (mcache_free(p)) {
    case FreeOutcome::kDone: return;
    case FreeOutcome::kOdd: return release_odd(p);
    case FreeOutcome::kFull: return release_full(p);
  }
}

void* allocate_noscan(std::size_t size);
// alignment: a power of two of at most kPageSize. False: take the slow way.
[[gnu::always_inline]] inline bool allocate_aligned_fast(std::size_t alignment, std::size_t size, bool noscan, void** object) {
  const SpanClass c = class_for_aligned(size, alignment < 16 ? 16 : alignment, noscan);
  return c != 0 && mcache_alloc_class(c, object);
}
// alignment: a power of two.
void* allocate_aligned(std::size_t alignment, std::size_t size, bool noscan = false);
void* allocate_zeroed(std::size_t count, std::size_t size, bool noscan = false);
void* reallocate(void* p, std::size_t size);
// Bytes that may be written; 0 for nullptr.
std::size_t usable_size(const void* p);

// Frees an object that the caller says was allocated with this size (and alignment, 0 where unknown). exact: the object
// cannot have been resized, so its class must be the one of the size.
void release_sized(void* p, std::size_t size, std::size_t alignment, bool exact);

}  // namespace nh
