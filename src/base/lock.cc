#include "base/lock.h"

#include <bit>

namespace nh {

static_assert(std::endian::native == std::endian::little, "the futex is the half of the word that holds the lowest bit");

namespace {

LockWaiter g_waiter;
std::atomic<void (*)()> g_wait_hook{nullptr};

// Longer spins only help while the holder runs on another CPU; measured holds are well below a microsecond.
constexpr int kSpins = 60;

}  // namespace

void set_lock_waiter(const LockWaiter& waiter) { g_waiter = waiter; }

void set_wait_hook(void (*hook)()) { g_wait_hook.store(hook, std::memory_order_release); }

void about_to_wait() {
  // acquire: what the hook looks at was set before it was.
  if (void (*const hook)() = g_wait_hook.load(std::memory_order_acquire); hook != nullptr) hook();
}

void Lock::lock_slow() {
  for (int i = 0; i < kSpins; i++) {
    std::uint64_t free = 0;
    if (word_.load(std::memory_order_relaxed) == 0 &&
        word_.compare_exchange_weak(free, self(), std::memory_order_acquire, std::memory_order_relaxed)) {
      return;
    }
    __builtin_ia32_pause();
  }
  for (;;) {
    // Each time: a signal handler may have forked meanwhile, and the holder does not exist in the child.
    about_to_wait();
    // From here on we take the lock with the bit: we cannot know whether others sleep, and a needless wake is harmless.
    std::uint64_t seen = 0;
    if (word_.compare_exchange_weak(seen, self() | kWaiters, std::memory_order_acquire, std::memory_order_relaxed)) return;
    if (seen == 0) continue;
    if ((seen & kWaiters) == 0 && !word_.compare_exchange_weak(seen, seen | kWaiters, std::memory_order_relaxed)) continue;
    if (g_waiter.wait != nullptr) {
      g_waiter.wait(futex(), static_cast<std::uint32_t>(seen | kWaiters));
    } else {
      __builtin_ia32_pause();
    }
  }
}

void Lock::unlock_slow() {
  if (g_waiter.wake != nullptr) g_waiter.wake(futex());
}

#ifdef NUMAHEAP_DEBUG

namespace {

struct HeldLocks {
  static constexpr unsigned kMax = 8;
  const Lock* lock[kMax];
  unsigned count;
};
thread_local HeldLocks t_held __attribute__((tls_model("initial-exec")));

}  // namespace

void Lock::note_acquire() {
  for (unsigned i = 0; i < t_held.count; i++) {
    const LockRank held = t_held.lock[i]->rank();
    NH_CHECK(held < rank_ || held == LockRank::kWindow, "locks taken out of rank");
  }
  NH_CHECK(t_held.count < HeldLocks::kMax, "too many locks held");
  t_held.lock[t_held.count++] = this;
}

void Lock::note_release() {
  NH_CHECK(t_held.count > 0 && t_held.lock[t_held.count - 1] == this, "locks released out of order");
  t_held.count--;
}

unsigned locks_held() { return t_held.count; }

#else

unsigned locks_held() { return 0; }

#endif

}  // namespace nh
