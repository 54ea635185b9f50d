// Blocks of memory as the rows of bench/compare ask for them.
#pragma once

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "common/workload.h"

namespace bench {

[[noreturn, gnu::noinline, gnu::cold]] inline void out_of_memory() { throw std::bad_alloc(); }

inline void* allocate(std::size_t size) {
  void* const p = std::malloc(size);
  keep(p);
  if (p == nullptr) [[unlikely]] out_of_memory();
  return p;
}

// The first word of a block, which the rows use to know it again.
inline void set_word(void* p, std::uint64_t word) { std::memcpy(p, &word, sizeof word); }
inline std::uint64_t word_of(const void* p) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

// 64, 1K, 4M: the part of a row's name.
inline std::string size_name(std::size_t bytes) {
  if (bytes >= (1u << 20)) return std::to_string(bytes >> 20) + "M";
  if (bytes >= (1u << 10)) return std::to_string(bytes >> 10) + "K";
  return std::to_string(bytes);
}

// Sizes as programs mix them: half of them up to 64 bytes, four fifths up to 256, one in a hundred above 4 KiB; about
// 400 bytes on average.
class MixedSizes {
 public:
  MixedSizes() {
    struct Step {
      std::size_t until, from, to;  // entries of the table below `until`: sizes of [from, to]
    };
    constexpr Step kSteps[] = {{2048, 16, 64},     {3277, 65, 256},     {3850, 257, 1024},
                               {4055, 1025, 4096}, {4088, 4097, 16384}, {4096, 16385, 32768}};
    Random random(42);
    std::size_t i = 0;
    for (const Step& step : kSteps) {
      for (; i < step.until; i++) {
        sizes_[i] = static_cast<std::uint32_t>(step.from + random.below(step.to - step.from + 1));
      }
    }
  }

  std::size_t operator()(std::uint64_t random) const { return sizes_[random % sizes_.size()]; }

 private:
  std::array<std::uint32_t, 4096> sizes_;
};

}  // namespace bench
