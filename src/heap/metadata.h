// Memory for a heap's own structures: never from malloc, on the heap's node, never given back.
#pragma once

#include <cstddef>

#include "base/lock.h"
#include "base/units.h"
#include "os/os.h"

namespace nh {

// A bump allocator over chunks from the OS. Thread-safe; the OS is asked outside the lock.
class MetadataPool {
 public:
  // node invalid: memory of any node. With bind false no placement is asked for (one node, or mbind refused).
  void init(const OsOps& os, NodeId node, bool bind);

  // Zeroed memory; alignment a power of two up to kOsPageSize. nullptr when the OS gives no more.
  void* alloc(std::size_t bytes, std::size_t alignment);

  std::size_t bytes() const { return __atomic_load_n(&total_, __ATOMIC_RELAXED); }
  Lock& lock() { return lock_; }
  // Calls visit(start, end) for all memory that it has, while nobody asks for more.
  template <typename Visit>
  void for_each_chunk(Visit&& visit) const {
    for (const Chunk* c = chunks_; c != nullptr; c = c->next) visit(c->start, c->end);
  }
  // In a fork child: another thread may have been in the middle of it; the rest of the chunk is lost then.
  void repair_after_fork();

 private:
  friend struct LiveLayout;  // process/live_block.cc

  // Lies in the chunk itself: in front, or, where one request got all of it, at the end.
  struct Chunk {
    Chunk* next;
    std::uintptr_t start;
    std::uintptr_t end;
  };

  void* map_chunk(std::size_t bytes);

  Lock lock_{LockRank::kMetadata};
  const OsOps* os_ = nullptr;
  NodeId node_;
  bool bind_ = false;
  std::uintptr_t next_ = 0;
  std::uintptr_t end_ = 0;
  std::size_t total_ = 0;
  Chunk* chunks_ = nullptr;
};

}  // namespace nh
