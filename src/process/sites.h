// Call sites: the stacks at which sampled objects were allocated, and what lives of each.
//
// A table of fixed size, found by hashing. Entries are added and never taken away, and counters only count, so that nothing
// here waits: malloc in a signal handler, or in a child whose parent's other threads were half-way through an entry, goes
// on. Such an entry is passed over for ever, and the stack gets another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/os.h"

namespace nh {

inline constexpr unsigned kMaxFrames = 58;

// What sampled objects stand for: each for many that were not sampled.
struct Estimate {
  std::uint64_t objects = 0;  // in 1/kObjectUnit of an object
  std::uint64_t bytes = 0;
};
inline constexpr std::uint64_t kObjectUnit = 1024;

struct Site {
  std::atomic<std::uint64_t> hash;   // 0: no entry
  std::atomic<std::uint32_t> depth;  // 0: being made
  std::atomic<std::uint32_t> samples;
  std::atomic<std::uint64_t> objects, bytes;            // in all
  std::atomic<std::uint64_t> freed_objects, freed_bytes;
  const void* frame[kMaxFrames];  // return addresses, the caller of malloc first

  void allocated(const Estimate& e);
  void freed(const Estimate& e);
  Estimate all() const;
  Estimate live() const;
};
static_assert(sizeof(Site) == 512);

class Sites {
 public:
  static constexpr unsigned kMost = 16384;

  // False: no memory. Once.
  bool init(const OsOps& os);
  bool ready() const { return sites_.load(std::memory_order_acquire) != nullptr; }
  // The entry of this stack; where the table is full, that of all others (depth 1, address null). depth: at least 1.
  Site* find(const void* const* frames, unsigned depth);
  Site& operator[](unsigned i) { return sites_.load(std::memory_order_relaxed)[i]; }
  unsigned index(const Site* site) const { return static_cast<unsigned>(site - sites_.load(std::memory_order_relaxed)); }
  template <typename Visit>
  void for_each(Visit&& visit) {
    Site* const sites = sites_.load(std::memory_order_acquire);
    for (unsigned i = 0; sites != nullptr && i < kMost; i++) {
      if (sites[i].depth.load(std::memory_order_acquire) != 0) visit(sites[i]);
    }
  }

 private:
  std::atomic<Site*> sites_{nullptr};
};

}  // namespace nh
