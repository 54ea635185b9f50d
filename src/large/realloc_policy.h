// What realloc() does with an object: a function of the object, the size that is asked for and the routes of large objects,
// and of nothing else. Who carries it out is api/heap_calls.cc.
#pragma once

#include <cstddef>

#include "base/units.h"
#include "heap/size_classes.h"
#include "cache/large_route.h"

namespace nh {

// Sizes from here on count as large: such objects grow and shrink by pages, where they are.
inline constexpr std::size_t kMinByPages = kMaxSmallSize / 2 + 1;
constexpr std::size_t as_large(std::size_t size) { return size > kMaxSmallSize ? size : kMaxSmallSize + 1; }

// Whether an object of `usable` bytes stays as it is when it gets this size: a small one while more than half of it is
// used, and any for whose size malloc() would choose the same class. below: the largest size that malloc() serves from a
// smaller class; `usable` itself where it serves none from this one.
constexpr bool stays(std::size_t below, std::size_t usable, std::size_t size) {
  if (size > usable) return false;
  if (usable > kMaxSmallSize) return size >= kMinByPages && as_large(size) > below;
  return size * 2 > usable || size > below;
}

// What to ask for when an object of `usable` bytes moves. One that grew once grows again, and classes are an eighth apart: a
// quarter more halves the number of copies. Above 16 KiB the smallest large object takes it, which grows without being
// copied. Placed objects have no bin, and may lie where every large object takes 2 MiB.
constexpr std::size_t with_room_to_grow(std::size_t usable, std::size_t size, bool placed, const LargeRoute& route) {
  if (size <= usable || size > kMaxSmallSize) return size;
  if (size >= kMinByPages && !placed && route.bin_max > kMaxSmallSize) return as_large(size);
  const std::size_t roomy = usable + usable / 4;
  return size < roomy && roomy <= kMaxSmallSize ? roomy : size;
}

struct ReallocObject {
  std::size_t usable;
  std::size_t below;         // as stays() takes it
  bool placed = false;       // its caller said where it shall lie
  bool first_touch = false;  // in first-touch memory, of whichever heap
};

// Tried in this order.
struct ReallocPlan {
  bool stay;              // the object has this size already
  std::size_t resize_to;  // grow or shrink it by pages, where it is; 0: do not try
  std::size_t move_to;    // copy it into an object of this size; where there is no memory for that, of the size asked for
};

// size: at least 1.
inline ReallocPlan plan_realloc(const ReallocObject& object, std::size_t size, const LargeRoute& route) {
  ReallocPlan plan = {};
  plan.stay = stays(object.below, object.usable, size);
  plan.move_to = with_room_to_grow(object.usable, size, object.placed, route);
  // First-touch memory comes in units of 2 MiB, or, as touched pages, from some size on: what fills less than half of that
  // belongs to other heaps. What grows past a limit goes there, its new part untouched. What grows into the sizes that have
  // the best memory moves to it. Placed objects remain where they were asked for.
  const bool has_pages = LargeRoute::word(route.pages_min) < LargeRoute::word(route.pages_end);
  const std::size_t least = has_pages ? route.first_touch_min() : kHugeSize;
  const bool shrinks_out = object.first_touch && size < route.first_touch_min() && size <= least / 2;
  const bool best = route.is_best(size);
  const bool grows_out = !object.first_touch && size > object.usable && !best && size >= LargeRoute::word(route.leave_from);
  const bool enters = best && object.usable < route.best_min;
  const bool leaves = !object.placed && (shrinks_out || grows_out || enters);
  const bool by_pages = object.usable > kMaxSmallSize && size >= kMinByPages;
  if (by_pages && !leaves) plan.resize_to = as_large(size);
  return plan;
}

}  // namespace nh
