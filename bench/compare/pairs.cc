// A block that is freed at once: what the fast path costs, size by size.
#include <algorithm>
#include <functional>

#include "compare/blocks.h"
#include "compare/rows.h"
#include "compare/timing.h"

namespace bench {
namespace {

void* from_new(std::size_t size) { return ::operator new(size); }

// That the blocks of this size are writable to the last byte and do not overlap.
template <class Allocate, class Free>
std::string checked_blocks(std::size_t size, Allocate&& get, Free&& give) {
  constexpr std::size_t kMost = 64;
  const std::size_t count = std::clamp<std::size_t>((std::size_t{1} << 20) / size, 2, kMost);
  void* blocks[kMost];
  for (std::size_t i = 0; i < count; i++) {
    blocks[i] = get(size);
    set_word(blocks[i], i);
    if (size > 8) static_cast<unsigned char*>(blocks[i])[size - 1] = static_cast<unsigned char>(i);
  }
  Checksum sum;
  for (std::size_t i = 0; i < count; i++) {
    sum.add(word_of(blocks[i]));
    sum.add(static_cast<unsigned char*>(blocks[i])[size - 1]);
    give(blocks[i]);
  }
  return sum.text();
}

Result malloc_pair(const Run& run, std::size_t size) {
  const double ns = ns_per_operation(run, [size](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      void* const p = std::malloc(size);
      keep(p);
      std::free(p);
    }
  });
  return {ns, checked_blocks(size, allocate, [](void* p) { std::free(p); })};
}

Result new_pair(const Run& run, std::size_t size) {
  const double ns = ns_per_operation(run, [size](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      void* const p = ::operator new(size);
      keep(p);
      ::operator delete(p, size);
    }
  });
  return {ns, checked_blocks(size, from_new, [size](void* p) { ::operator delete(p, size); })};
}

Result written_pair(const Run& run, std::size_t size) {
  const double ns = ns_per_operation(run, [size](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      void* const p = allocate(size);
      std::memset(p, static_cast<int>(i), size);
      keep(p);
      std::free(p);
    }
  });
  return {ns, checked_blocks(size, allocate, [](void* p) { std::free(p); })};
}

// A program that asked for zeroes uses them: one word per 4 KiB is read, must be zero, and is written.
Result calloc_pair(const Run& run, std::size_t size) {
  constexpr std::size_t kPage = 4096;
  std::uint64_t not_zero = 0;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      auto* const p = static_cast<char*>(std::calloc(1, size));
      keep(p);
      if (p == nullptr) [[unlikely]] out_of_memory();
      for (std::size_t at = 0; at < size; at += kPage) {
        not_zero |= word_of(p + at);
        set_word(p + at, 1);
      }
      keep(p);
      std::free(p);
    }
  });
  return {ns, not_zero == 0 ? "zeroes" : "not zero"};
}

constexpr std::size_t K = 1024;
constexpr std::size_t M = 1024 * K;

}  // namespace

void add_pairs(Table& table) {
  const auto add = [&](const char* theme, const char* what, Result (*pair)(const Run&, std::size_t), auto... sizes) {
    for (const std::size_t size : {static_cast<std::size_t>(sizes)...}) {
      table.push_back({theme + ("/" + size_name(size)), "ns/op", what,
                       [pair, size](const Run& run) { return pair(run, size); }});
    }
  };
  add("pair", "malloc and free at once", malloc_pair, 8, 16, 64, 256, K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K,
      512 * K, M, 4 * M);
  add("new", "operator new and sized delete at once", new_pair, 8, 64, 256, K, 8 * K, 32 * K, 256 * K, 4 * M);
  add("written", "malloc, write all of it, free", written_pair, 512, K, 4 * K, 8 * K, 16 * K, 32 * K);
  add("calloc", "calloc, one word per 4 KiB read and written, free", calloc_pair, 256, 4 * M, 16 * M);
}

}  // namespace bench
