// Asked before a heap has more memory backed: whether the process comes near a limit by it.
//
// The heaps do not know the limits of the process, so process/ says who answers (process/memory_limit.h). Until then, and
// in tests of the layers below, there are no limits.
#pragma once

#include <atomic>
#include <cstddef>

namespace nh {

struct GrowthAdvice {
  // Memory is short: transparent huge pages, which may take more than the program uses, are not to be asked for.
  bool no_thp = false;
};

// bytes: what is about to be backed. Idle memory of all heaps may have been given back when it returns. To be called
// without any lock; units that the caller works on are marked busy or not yet released, so that they are left alone.
using GrowthAdviser = GrowthAdvice (*)(std::size_t bytes);

inline constinit std::atomic<GrowthAdviser> g_growth_adviser{nullptr};

inline void set_growth_adviser(GrowthAdviser adviser) { g_growth_adviser.store(adviser, std::memory_order_release); }

inline GrowthAdvice advise_growth(std::size_t bytes) {
  const GrowthAdviser adviser = g_growth_adviser.load(std::memory_order_acquire);
  return adviser != nullptr ? adviser(bytes) : GrowthAdvice();
}

}  // namespace nh
