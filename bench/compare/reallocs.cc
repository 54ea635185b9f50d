// Blocks that grow.
#include <algorithm>
#include <vector>

#include "compare/blocks.h"
#include "compare/rows.h"
#include "compare/timing.h"

namespace bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

unsigned char* grow(unsigned char* p, std::size_t size) {
  auto* const q = static_cast<unsigned char*>(std::realloc(p, size));
  keep(q);
  if (q == nullptr) [[unlikely]] out_of_memory();
  return q;
}

// From `from` to `to` bytes by half of the size each time, as vectors grow. `fill`: the new part is written each time.
Result by_half(const Run& run, std::size_t from, std::size_t to, bool fill) {
  std::uint64_t found = 0;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      unsigned char* p = nullptr;
      std::size_t size = 0;
      for (std::size_t next = from; size < to; next = std::min(to, next + next / 2)) {
        p = grow(p, next);
        if (fill) {
          std::memset(p + size, 7, next - size);
        } else if (size == 0) {
          set_word(p, 7);
        }
        size = next;
      }
      found |= word_of(p);
      std::free(p);
    }
  });
  Checksum sum;
  sum.add(found);
  return {ns / 1e3, sum.text()};
}

// Sixteen texts that grow in turn by 16 to 64 bytes until all are 32 KiB long.
Result appends(const Run& run) {
  constexpr std::size_t kTexts = 16;
  constexpr std::size_t kLength = 32 * 1024;
  std::uint64_t found = 0;
  std::size_t operations = 0;
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      unsigned char* texts[kTexts] = {};
      std::size_t lengths[kTexts] = {};
      Random random(9);
      operations = 0;
      for (std::size_t full = 0; full < kTexts;) {
        full = 0;
        for (std::size_t k = 0; k < kTexts; k++) {
          if (lengths[k] >= kLength) {
            full++;
            continue;
          }
          const std::size_t more = 16 + random.below(49);
          texts[k] = grow(texts[k], lengths[k] + more);
          std::memset(texts[k] + lengths[k], static_cast<int>(k), more);
          lengths[k] += more;
          operations++;
        }
      }
      Checksum sum;
      for (std::size_t k = 0; k < kTexts; k++) {
        for (std::size_t at = 0; at < lengths[k]; at += 1024) sum.add(texts[k][at]);
        sum.add(lengths[k]);
        std::free(texts[k]);
      }
      found = std::strtoull(sum.text().c_str(), nullptr, 16);
    }
  });
  Checksum sum;
  sum.add(found);
  return {ns / static_cast<double>(operations), sum.text()};
}

// A thousand blocks of up to 2000 bytes that get another size once in their lives.
Result small_blocks(const Run& run) {
  constexpr std::size_t kBlocks = 1000;
  std::vector<unsigned char*> blocks(kBlocks);
  std::uint64_t wrong = 0;
  Random random(31);
  const auto any_size = [&random] { return 16 + random.below(1985); };
  const double ns = ns_per_operation(run, [&](std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      for (std::size_t k = 0; k < kBlocks; k++) {
        blocks[k] = grow(nullptr, any_size());
        set_word(blocks[k], k);
      }
      for (unsigned char*& block : blocks) block = grow(block, any_size());
      for (std::size_t k = 0; k < kBlocks; k++) {
        wrong |= word_of(blocks[k]) ^ k;
        std::free(blocks[k]);
      }
    }
  });
  return {ns / kBlocks, wrong == 0 ? "intact" : "overwritten"};
}

}  // namespace

void add_reallocs(Table& table) {
  table.push_back({"realloc/1M", "us/op", "from 64 bytes to 1 MiB by half of the size, contents not touched",
                   [](const Run& run) { return by_half(run, 64, kMiB, false); }});
  table.push_back({"realloc/1M-filled", "us/op", "from 64 bytes to 1 MiB by half of the size, filled",
                   [](const Run& run) { return by_half(run, 64, kMiB, true); }});
  table.push_back({"realloc/64M-filled", "us/op", "from 4 KiB to 64 MiB by half of the size, filled",
                   [](const Run& run) { return by_half(run, 4096, 64 * kMiB, true); }});
  table.push_back({"realloc/appends", "ns/op", "16 texts that grow to 32 KiB in turn by 16 to 64 bytes", appends});
  table.push_back({"realloc/small", "ns/op", "1000 blocks of 16 to 2000 bytes, each given another size, then freed", small_blocks});
}

}  // namespace bench
