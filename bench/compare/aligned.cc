// Blocks with an alignment of their own: cache lines for vectors, pages for I/O.
#include "compare/blocks.h"
#include "compare/rows.h"
#include "compare/timing.h"

namespace bench {
namespace {

// Eight live blocks of growing size, so that an allocator that pads and splits has something to split.
Result aligned_blocks(const Run& run, std::size_t alignment, std::size_t step) {
  constexpr std::size_t kBlocks = 8;
  std::uint64_t misaligned = 0;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    void* blocks[kBlocks];
    for (std::size_t i = 0; i < count; i++) {
      for (std::size_t k = 0; k < kBlocks; k++) {
        blocks[k] = std::aligned_alloc(alignment, (k + 1) * step);
        keep(blocks[k]);
        if (blocks[k] == nullptr) [[unlikely]] out_of_memory();
        misaligned |= reinterpret_cast<std::uintptr_t>(blocks[k]) & (alignment - 1);
        set_word(blocks[k], k);
      }
      for (void* const block : blocks) std::free(block);
    }
  });
  return {ns / kBlocks, misaligned == 0 ? "aligned" : "misaligned"};
}

struct alignas(64) Lane {
  std::uint64_t values[24];
};

// What the compiler makes of a type with an alignment of its own: operator new with the alignment, delete with both.
Result lanes(const Run& run) {
  std::uint64_t misaligned = 0;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      Lane* const lane = new Lane;
      keep(lane);
      misaligned |= reinterpret_cast<std::uintptr_t>(lane) % alignof(Lane);
      delete lane;
    }
  });
  return {ns, misaligned == 0 ? "aligned" : "misaligned"};
}

}  // namespace

void add_aligned(Table& table) {
  const auto add = [&](const char* name, const char* what, std::size_t alignment, std::size_t step) {
    table.push_back({name, "ns/op", what, [=](const Run& run) { return aligned_blocks(run, alignment, step); }});
  };
  add("aligned/64", "aligned_alloc(64, 64 to 512 bytes), eight at a time", 64, 64);
  add("aligned/4K", "aligned_alloc(4096, 4 to 32 KiB), eight at a time", 4096, 4096);
  table.push_back({"aligned/new", "ns/op", "new and delete of a type of 192 bytes that is aligned to 64", lanes});
}

}  // namespace bench
