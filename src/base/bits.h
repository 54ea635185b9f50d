// Integer helpers. All are constexpr and free of undefined shifts for the arguments their comments allow.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace nh {

// Not std::has_single_bit(): that counts bits, which takes a call where the processor need not have an instruction for it.
constexpr bool is_pow2(std::size_t x) { return x != 0 && (x & (x - 1)) == 0; }

// alignment must be a power of two; x + alignment must not overflow.
constexpr std::size_t align_up(std::size_t x, std::size_t alignment) { return (x + alignment - 1) & ~(alignment - 1); }
constexpr std::size_t align_down(std::size_t x, std::size_t alignment) { return x & ~(alignment - 1); }
constexpr bool is_aligned(std::size_t x, std::size_t alignment) { return (x & (alignment - 1)) == 0; }

constexpr std::size_t div_up(std::size_t x, std::size_t y) { return (x + y - 1) / y; }

// floor(log2(x)); x must not be 0.
constexpr unsigned log2_floor(std::size_t x) { return static_cast<unsigned>(std::bit_width(x)) - 1; }
// ceil(log2(x)); x must not be 0.
constexpr unsigned log2_ceil(std::size_t x) { return x <= 1 ? 0 : log2_floor(x - 1) + 1; }

// The lowest n bits set; n in 0..64.
constexpr std::uint64_t low_bits(unsigned n) { return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1; }

inline std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

}  // namespace nh
