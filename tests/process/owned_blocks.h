// Blocks that know who owns them, for the stress programs.
//
// A block's whole content is a pattern made of its owner, a sequence number and its size; a byte that anyone else wrote
// is noticed when the block is verified. A Registry of live address ranges, shared by all threads, notices a block that
// is handed out twice or overlaps another before its content can be spoilt.
#pragma once

#include <malloc.h>
#include <stdlib.h>

#include <atomic>
#include <map>
#include <mutex>

#include "harness/case.h"

struct OwnedBlock {
  void* p = nullptr;
  size_t n = 0;
  uint64_t tag = 0;
};

class Registry {
 public:
  // Notes that [p, p + n) is live now. The map's own nodes come from the heap under test: they are blocks like others.
  void add(const OwnedBlock& block) {
    const auto start = reinterpret_cast<uintptr_t>(block.p);
    Shard& shard = shard_of(start);
    const std::lock_guard<std::mutex> guard(shard.mutex);
    const auto next = shard.ranges.lower_bound(start);
    if (next != shard.ranges.end()) {
      EXPECT(start + block.n <= next->first, "%p + %zu overlaps %#zx", block.p, block.n, size_t{next->first});
    }
    if (next != shard.ranges.begin()) {
      const auto before = std::prev(next);
      EXPECT(before->second <= start, "%p lies within %#zx - %#zx", block.p, size_t{before->first}, size_t{before->second});
    }
    shard.ranges[start] = start + block.n;
  }

  void remove(const OwnedBlock& block) {
    const auto start = reinterpret_cast<uintptr_t>(block.p);
    Shard& shard = shard_of(start);
    const std::lock_guard<std::mutex> guard(shard.mutex);
    EXPECT(shard.ranges.erase(start) == 1, "%p is not in the registry", block.p);
  }

 private:
  // By 32 MiB of address space. A block that crosses a border is compared within the shard of its start only: overlaps
  // across borders are left to the patterns.
  static constexpr size_t kShards = 64;
  struct Shard {
    std::mutex mutex;
    std::map<uintptr_t, uintptr_t> ranges;
  };
  Shard& shard_of(uintptr_t start) { return shards_[(start >> 25) % kShards]; }

  Shard shards_[kShards];
};

// Large blocks are verified at both ends and in places, small ones wholly.
inline void own(OwnedBlock* block) {
  const size_t head = block->n < 4096 ? block->n : 4096;
  fill_pattern(block->p, head, block->tag);
  if (block->n > head) fill_pattern(static_cast<char*>(block->p) + block->n - 64, 64, ~block->tag);
}

inline bool verify(const OwnedBlock& block) {
  const size_t head = block.n < 4096 ? block.n : 4096;
  const size_t checked = head < block.n && block.n - 64 < head ? block.n - 64 : head;
  const size_t good = verify_pattern(block.p, checked, block.tag);
  EXPECT(good == checked, "%p of %zu bytes, owner %#zx: byte %zu is wrong", block.p, block.n, size_t{block.tag}, good);
  if (block.n <= head) return good == checked;
  const size_t tail = verify_pattern(static_cast<char*>(block.p) + block.n - 64, 64, ~block.tag);
  EXPECT(tail == 64, "%p of %zu bytes: byte %zu from the end is wrong", block.p, block.n, 64 - tail);
  return good == checked && tail == 64;
}

// Sizes as programs have them: mostly small, every border now and then, seldom huge.
inline size_t random_size(uint64_t* random) {
  const uint64_t r = next_random(random);
  const unsigned kind = r % 1024;
  const size_t bits = r >> 32;
  if (kind < 600) return 1 + bits % 256;
  if (kind < 900) return 1 + bits % 4096;
  if (kind < 1000) return 1 + bits % 40000;
  if (kind < 1020) return 1 + bits % (size_t{1} << 20);
  if (kind < 1023) return 1 + bits % (size_t{5} << 20);
  return 1 + bits % (size_t{40} << 20);
}

// One step of a random program on one slot: frees what is there (after verifying it) or allocates, in every manner.
inline void random_step(OwnedBlock* block, uint64_t* random, uint64_t tag, Registry* registry) {
  const uint64_t kind = next_random(random) % 16;
  if (block->p != nullptr && kind != 0) {
    verify(*block);
    if (registry != nullptr) registry->remove(*block);
    if (kind < 4) {
      const size_t n = random_size(random);
      const size_t kept = (n < block->n ? n : block->n);
      const size_t compared = kept < 4000 ? kept : 4000;
      void* p = realloc(block->p, n);
      REQUIRE(p != nullptr, "realloc to %zu", n);
      if (block->n <= 4096 || kept < block->n - 64) {
        EXPECT(verify_pattern(p, compared, block->tag) == compared, "realloc of %zu bytes to %zu lost bytes", block->n, n);
      }
      *block = {p, n, tag};
      own(block);
      if (registry != nullptr) registry->add(*block);
      return;
    }
    free(block->p);
    block->p = nullptr;
    return;
  }
  if (block->p != nullptr) return;
  block->n = random_size(random);
  block->tag = tag;
  if (kind == 1) {
    block->p = calloc(1, block->n);
    REQUIRE(block->p != nullptr);
    const auto* bytes = static_cast<const unsigned char*>(block->p);
    for (size_t i = 0; i < block->n && i < 2048; i++) EXPECT(bytes[i] == 0, "calloc(%zu): byte %zu", block->n, i);
  } else if (kind == 2) {
    const size_t alignment = size_t{16} << (next_random(random) % 9);
    REQUIRE(posix_memalign(&block->p, alignment, block->n) == 0);
    EXPECT(reinterpret_cast<uintptr_t>(block->p) % alignment == 0);
  } else {
    block->p = malloc(block->n);
    REQUIRE(block->p != nullptr);
  }
  own(block);
  if (registry != nullptr) registry->add(*block);
}

inline void release(OwnedBlock* block, Registry* registry) {
  if (block->p == nullptr) return;
  verify(*block);
  if (registry != nullptr) registry->remove(*block);
  free(block->p);
  block->p = nullptr;
}
