// Large arrays as HPC programs get them, what fills them, and the threads that work on them.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "common/workload.h"

namespace bench {

struct FreeArray {
  void operator()(void* p) const { std::free(p); }
};

// Of trivial T only: the elements are not constructed and none of the memory is touched, so whoever writes to a page
// first decides where it lies.
template <class T>
using Array = std::unique_ptr<T[], FreeArray>;

template <class T>
Array<T> make_array(std::size_t count) {
  auto* const p = static_cast<T*>(std::malloc(count * sizeof(T)));
  keep(p);
  if (p == nullptr) throw std::bad_alloc();
  return Array<T>(p);
}

// Binds thread i of OpenMP's team to the i-th CPU of this process. (The runtime reads OMP_PROC_BIND before main() runs:
// too early for a program to set it.)
void pin_team();

// Uniform in [0, 1).
inline double random_real(Random& random) { return static_cast<double>(random.next() >> 11) * 0x1p-53; }

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kGiB = std::size_t{1} << 30;

}  // namespace bench
