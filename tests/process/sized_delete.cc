// operator delete(p, size) in bulk, on a machine of several nodes that is described to the process (CMakeLists.txt): nodes
// 0 and 2 have a CPU each. Whoever frees an object, it must go back to the heap it came from, as the object it was.
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <future>
#include <new>
#include <thread>
#include <vector>

#include "owned_blocks.h"
#include "pin.h"
#include "placed.h"

namespace {

uint64_t live_bytes(int node) {
  numaheap_heap_stats stats;
  for (unsigned i = 0; api().heap_stats(i, &stats, sizeof stats) == 0; i++) {
    if (stats.kind != NUMAHEAP_HEAP_INTERLEAVED && stats.node == node) return stats.live_bytes;
  }
  REQUIRE(false, "no heap of node %d", node);
  return 0;
}

template <typename Run>
void on_cpu(int cpu, Run run) {
  std::thread([cpu, &run] {
    REQUIRE(run_on(cpu), "CPU %d", cpu);
    run();
  }).join();
}

OwnedBlock made(size_t n, uint64_t tag) {
  OwnedBlock block;
  block.p = opaque(::operator new(n));
  block.n = n;
  block.tag = tag;
  own(&block);
  return block;
}

void erase(const OwnedBlock& block) {
  verify(block);
  ::operator delete(block.p, block.n);
}

}  // namespace

CASE(every_size) {
  std::vector<OwnedBlock> blocks;
  for (size_t n = 0; n <= 40000; n += n < 2100 ? 1 : 37) {
    for (int i = 0; i < 3; i++) blocks.push_back(made(n, n * 3 + i));
  }
  for (int round = 0; round < 3; round++) {
    for (const OwnedBlock& block : blocks) erase(block);
    for (OwnedBlock& block : blocks) block = made(block.n, block.tag + 1);
  }
  for (const OwnedBlock& block : blocks) erase(block);
  malloc_trim(0);  // all lists go home, where classes are compared
}

CASE(every_size_aligned) {
  for (size_t alignment = 1; alignment <= 16384; alignment *= 2) {
    const auto a = static_cast<std::align_val_t>(alignment);
    std::vector<OwnedBlock> blocks;
    for (size_t n = 0; n <= 70000; n += n < 700 ? 9 : 613) {
      OwnedBlock block;
      block.p = opaque(::operator new(n, a));
      block.n = n;
      block.tag = n;
      own(&block);
      EXPECT(reinterpret_cast<uintptr_t>(block.p) % alignment == 0, "%p, %zu bytes at %zu", block.p, n, alignment);
      blocks.push_back(block);
    }
    for (const OwnedBlock& block : blocks) {
      verify(block);
      ::operator delete(block.p, block.n, a);
    }
  }
  malloc_trim(0);
}

// C23's names for the same. realloc may have left an object in a class that is not that of its size.
CASE(free_sized_forms) {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t), free_sized);
  const auto aligned_sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t, size_t), free_aligned_sized);
  REQUIRE(sized != nullptr && aligned_sized != nullptr);
  for (size_t n = 0; n <= 70000; n += n / 11 + 1) {
    sized(opaque(malloc(n)), n);
    sized(opaque(calloc(1, n)), n);
    sized(opaque(realloc(malloc(n * 4 / 3 + 1), n + 1)), n + 1);
    sized(opaque(realloc(malloc(n), n * 2 + 1)), n * 2 + 1);
    for (const size_t alignment : {16, 24, 48, 64, 256, 1000, 4096, 16384}) {
      aligned_sized(opaque(aligned_alloc(alignment, n)), alignment, n);
    }
  }
  malloc_trim(0);
}

CASE(blocks_of_malloc) {
  for (size_t n = 0; n <= 40000; n += n / 9 + 1) {
    ::operator delete(opaque(malloc(n)), n);
    ::operator delete[](opaque(calloc(1, n)), n);
  }
  malloc_trim(0);
}

// 64 bytes to 30 KiB, from either node, freed on the CPU of the other.
CASE(objects_of_another_node_go_home) {
  if (!std::async(std::launch::async, [] { return run_on(0) && run_on(1); }).get()) {
    puts("skipped: needs CPUs 0 and 1");
    return;
  }
  for (const size_t n : {size_t{64}, size_t{1000}, size_t{30000}}) {
    for (const int cpu : {0, 1}) {
      const int node = cpu == 0 ? 0 : 2, other = 2 - node;
      std::vector<OwnedBlock> blocks(5000);
      const uint64_t before = live_bytes(node), before_other = live_bytes(other);
      on_cpu(cpu, [&] {
        for (size_t i = 0; i < blocks.size(); i++) blocks[i] = made(n, i);
      });
      EXPECT(live_bytes(node) >= before + blocks.size() * n * 7 / 8, "%zu bytes: not from node %d", n, node);
      on_cpu(1 - cpu, [&] {
        for (const OwnedBlock& block : blocks) erase(block);
        malloc_trim(0);
      });
      EXPECT(live_bytes(node) < before + blocks.size() * n / 8, "%zu bytes: still on node %d", n, node);
      EXPECT(live_bytes(other) < before_other + blocks.size() * n / 8, "%zu bytes: gone to node %d", n, other);
    }
  }
}

// Threads that wander over both CPUs take what others have put down and delete it.
CASE(hand_to_hand) {
  constexpr size_t kSlots = 512;
  static std::atomic<OwnedBlock*> slots[kSlots];
  std::vector<std::thread> threads;
  for (unsigned id = 1; id <= 4; id++) {
    threads.emplace_back([id] {
      uint64_t random = id;
      for (long i = scaled(400000, 60000); i-- > 0;) {
        if (i % 4096 == 0) run_on(static_cast<int>(next_random(&random) % 2));
        const uint64_t r = next_random(&random);
        auto* mine = new OwnedBlock(made((r >> 32) % (r % 16 == 0 ? 36000 : 500), r));
        OwnedBlock* theirs = slots[(r >> 8) % kSlots].exchange(mine);
        if (theirs == nullptr) continue;
        erase(*theirs);
        delete theirs;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& slot : slots) {
    OwnedBlock* left = slot.load();
    if (left == nullptr) continue;
    erase(*left);
    delete left;
  }
  malloc_trim(0);
}
