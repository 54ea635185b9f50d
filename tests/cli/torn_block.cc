// torn_block SEED: a process with a note and a block of which nothing is true: sizes that could be, addresses that lead into
// random bytes. Whoever reads it must get along.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/live_block.h"

extern "C" {
[[gnu::visibility("hidden")]] nh::LiveBlock numaheap_live_block = {};
}
asm(".pushsection .note.numaheap, \"a\", @note\n.balign 4\n.long 9, 8, 1\n.asciz \"numaheap\"\n.balign 4\n"
    ".long 1, numaheap_live_block - .\n.popsection\n");

int main(int, char** argv) {
  const auto seed = static_cast<unsigned>(std::atoi(argv[1]));
  std::mt19937_64 random(seed);
  static std::uint64_t words[1 << 18];
  // Numbers of all magnitudes, and pointers to each other.
  for (std::uint64_t& w : words) {
    const std::uint64_t r = random();
    w = r % 3 == 0 ? reinterpret_cast<std::uint64_t>(&words[r / 3 % (1 << 18)]) : random() >> (r / 3 % 64);
  }
  const auto place = [&] {
    return random() % 16 == 0 ? random() >> (random() % 64)
                              : reinterpret_cast<std::uint64_t>(&words[random() % (1 << 18)]);
  };
  nh::LiveBlock& b = numaheap_live_block;
  if (seed % 8 == 7) {
    for (std::size_t i = 8; i + 8 <= sizeof b; i += 8) std::memcpy(reinterpret_cast<char*>(&b) + i, &words[i], 8);
  } else {
    b.page_bytes = 8192;
    b.unit_bytes = 2 << 20;
    b.arena_bytes = 64 << 20;
    b.first_touch = 1 + random() % 4;
    b.heap_count = 2 * (b.first_touch + 2 + random() % 3);
    b.heap_bytes = 8192;
    b.extent_heap = b.first_touch;
    b.lists = 242;
    b.first_bin = 138;
    b.centrals = 274;
    b.cpus = random() % 64;
    b.page_kind_count = 300;
    b.kind_shift = 22;
    b.fallback_count = 8;
    std::uint64_t* const addresses[] = {&b.window,          &b.window_bytes, &b.page_map,      &b.page_kinds,
                                        &b.spans,           &b.heaps,        &b.list_bytes,    &b.caches,
                                        &b.memory_syscalls, &b.fallbacks,    &b.fallback_texts};
    for (std::uint64_t* const a : addresses) *a = place();
    const auto fill = [&](nh::LiveField* fields, std::size_t n, std::size_t within) {
      for (std::size_t i = 0; i < n; i++) fields[i] = {static_cast<std::uint16_t>(random() % (within / 8) * 8), 8};
    };
    fill(b.heap, sizeof b.heap / sizeof b.heap[0], 4096);
    fill(b.central, sizeof b.central / sizeof b.central[0], 1024);
    fill(b.cpu, sizeof b.cpu / sizeof b.cpu[0], 1024);
    fill(b.span, sizeof b.span / sizeof b.span[0], 192);
    if (seed % 8 == 6) {  // without an end to the numbers of arenas and a window as large
      static std::uint64_t heap[1024 * 16];
      for (std::uint64_t& w : heap) w = UINT64_MAX >> (random() % 40);
      b.heaps = reinterpret_cast<std::uint64_t>(heap);
    }
  }
  std::memset(b.library_version, 'v', sizeof b.library_version);  // no end
  std::memset(b.cache_mode, '\n', sizeof b.cache_mode);
  b.magic = nh::kLiveMagic;
  if (::write(1, "ready\n", 6) < 0) return 1;
  char c;
  return ::read(0, &c, 1) < 0;
}
