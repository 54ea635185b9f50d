#include "heap/metadata.h"

#include "base/bits.h"

namespace nh {
namespace {

// The first chunk is what a small process pays; later ones are sized so that their number stays small.
constexpr std::size_t kFirstChunk = 128 * KiB;
constexpr std::size_t kLaterChunk = 2 * MiB;

}  // namespace

void MetadataPool::init(const OsOps& os, NodeId node, bool bind) {
  os_ = &os;
  node_ = node;
  bind_ = bind;
}

void* MetadataPool::map_chunk(std::size_t bytes) {
  void* p = os_->reserve(bytes, kOsPageSize);
  if (p == nullptr) return nullptr;
  if (os_->make_writable(p, bytes) != 0) {
    os_->unmap(p, bytes);
    return nullptr;
  }
  // With THP=always the first touch of a small pool would cost 2 MiB.
  if (bytes < kHugeSize) os_->advise_thp(p, bytes, false);
  // A refusal leaves first touch, which comes from a CPU of the node in all but rare cases.
  if (bind_) os_->bind(p, bytes, BindMode::kPreferred, NodeSet::of(node_));
  return p;
}

void* MetadataPool::alloc(std::size_t bytes, std::size_t alignment) {
  for (;;) {
    std::size_t chunk;
    {
      LockGuard guard(lock_);
      const std::uintptr_t start = align_up(next_, alignment);
      if (next_ != 0 && start + bytes <= end_) {
        next_ = start + bytes;
        return reinterpret_cast<void*>(start);
      }
      chunk = total_ == 0 ? kFirstChunk : kLaterChunk;
    }
    const std::size_t least = align_up(bytes + sizeof(Chunk), kOsPageSize);
    if (chunk < least) chunk = least;
    void* p = map_chunk(chunk);
    if (p == nullptr) return nullptr;
    LockGuard guard(lock_);
    __atomic_store_n(&total_, total_ + chunk, __ATOMIC_RELAXED);
    const bool all_asked_for = chunk > kLaterChunk / 2 && chunk == least;
    auto* const record = all_asked_for ? reinterpret_cast<Chunk*>(address(p) + chunk) - 1 : static_cast<Chunk*>(p);
    *record = {chunks_, address(p), address(p) + chunk};
    __atomic_store_n(&chunks_, record, __ATOMIC_RELEASE);
    if (all_asked_for) return p;
    // Two threads may have mapped at once; the chunk with more left is kept, the rest of the other is lost: it is small.
    if (end_ - next_ < chunk - sizeof(Chunk)) {
      next_ = address(record + 1);
      end_ = record->end;
    }
  }
}

void MetadataPool::repair_after_fork() {
  if (!lock_.held() || lock_.held_by_me()) return;
  lock_.reset_after_fork();
  next_ = end_ = 0;
}

}  // namespace nh
