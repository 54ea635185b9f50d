#include "central/transfer_cache.h"

namespace nh {
namespace {

// Up to about 128 KiB of objects wait for another CPU. More of them are no gain: batches that went from hand to hand lie
// scattered, and what comes out of spans lies side by side (bench/README.md).
unsigned slots_for(SpanClass c, unsigned most) {
  const std::size_t n = 128 * KiB / (batch_objects(c) * std::size_t{size_class(c).bytes});
  return static_cast<unsigned>(n < 2 ? 2 : n > most ? most : n);
}

}  // namespace

TransferCache::TransferCache(SpanClass c) : slots_(slots_for(c, kMaxSlots)) {}

Batch TransferCache::take(unsigned wanted) {
  if (filled_.load(std::memory_order_relaxed) == 0) return {};
  LockGuard guard(lock_);
  const unsigned filled = filled_.load(std::memory_order_relaxed);
  if (filled == 0) return {};
  Batch& last = slot_[filled - 1];
  Batch taken = last;
  if (wanted == 1 && last.count > 1) {
    last = {next_object(taken.head), taken.count - 1};
    next_object(taken.head) = nullptr;
    taken.count = 1;
  } else {
    filled_.store(filled - 1, std::memory_order_relaxed);
  }
  objects_.store(objects() - taken.count, std::memory_order_relaxed);
  add_L(takes_, std::uint64_t{1});
  return taken;
}

bool TransferCache::put(const Batch& batch) {
  LockGuard guard(lock_);
  const unsigned filled = filled_.load(std::memory_order_relaxed);
  if (filled == slots_) return false;
  slot_[filled] = batch;
  filled_.store(filled + 1, std::memory_order_relaxed);
  add_L(objects_, std::size_t{batch.count});
  add_L(puts_, std::uint64_t{1});
  return true;
}

void TransferCache::repair_after_fork(bool lost) {
  if (lock_.held_by_me() || (!lock_.held() && !lost)) return;
  lock_.reset_after_fork();
  filled_.store(0, std::memory_order_relaxed);
  objects_.store(0, std::memory_order_relaxed);
}

bool TransferCache::check() {
  LockGuard guard(lock_);
  std::size_t objects = 0;
  for (unsigned i = 0; i < filled_.load(std::memory_order_relaxed); i++) {
    unsigned n = 0;
    for (void* p = slot_[i].head; p != nullptr; p = next_object(p)) n++;
    if (n != slot_[i].count) return false;
    objects += n;
  }
  return objects == this->objects();
}

}  // namespace nh
