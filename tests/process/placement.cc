// Placed objects in a process of their own, on whatever machine this is: first operations, threads, fork, misuse.
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>

#include "placed.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

void* at_place(unsigned place, size_t size) {
  switch (place % 5) {
    case 0: return api().on_node(size, api().node_id(place / 5 % api().node_count()));
    case 1: return api().interleaved(size);
    case 2: return api().first_touch(size);
    case 3: return api().local(size);
    default: return malloc(size);
  }
}

struct Block {
  void* p = nullptr;
  size_t size = 0;
  uint64_t seed = 0;
};

// Allocates, grows, shrinks and frees at all places, with every byte verified. Blocks change hands over `desk`.
constexpr unsigned kDesk = 64;
Block desk[kDesk];
pthread_mutex_t desk_lock = PTHREAD_MUTEX_INITIALIZER;

void* churn(void* seed) {
  auto random = reinterpret_cast<uintptr_t>(seed);
  uint64_t state = random;
  Block mine[32];
  const long steps = scaled(60000, 15000);
  for (long step = 0; step < steps; step++) {
    const uint64_t r = next_random(&state);
    Block& block = mine[r % 32];
    if (block.p != nullptr) {
      REQUIRE(verify_pattern(block.p, block.size, block.seed) == block.size, "%zu bytes at %p", block.size, block.p);
    }
    const size_t size = size_t{1} << (r >> 8) % (step % 64 == 0 ? 19 : 12);
    switch ((r >> 16) % 4) {
      case 0:
        free(block.p);
        block = {};
        break;
      case 1: {
        if (block.p == nullptr) break;
        const size_t kept = size < block.size ? size : block.size;
        block.p = realloc(block.p, size);
        REQUIRE(block.p != nullptr);
        REQUIRE(verify_pattern(block.p, kept, block.seed) == kept, "realloc to %zu", size);
        block.size = size;
        fill_pattern(block.p, size, block.seed);
        break;
      }
      case 2: {
        pthread_mutex_lock(&desk_lock);
        const Block other = desk[(r >> 24) % kDesk];
        desk[(r >> 24) % kDesk] = block;
        pthread_mutex_unlock(&desk_lock);
        block = other;
        break;
      }
      default:
        free(block.p);
        block = {at_place(static_cast<unsigned>(r >> 32), size), size, r};
        REQUIRE(block.p != nullptr, "%zu bytes", size);
        fill_pattern(block.p, size, block.seed);
    }
  }
  for (const Block& block : mine) free(block.p);
  return nullptr;
}

}  // namespace

CASE(the_first_operation_of_a_process) {
  auto* p = static_cast<char*>(api().on_node(100, api().node_id(0)));
  REQUIRE(p != nullptr);
  memset(p, 1, 100);
  free(p);
}

CASE(threads_share_all_places) {
  pthread_t threads[6];
  for (uintptr_t i = 0; i < 6; i++) {
    REQUIRE(pthread_create(&threads[i], nullptr, churn, reinterpret_cast<void*>(i + 1)) == 0);
  }
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  for (const Block& block : desk) free(block.p);
}

CASE(a_child_goes_on_with_them) {
  static void* blocks[200];
  for (unsigned i = 0; i < 200; i++) {
    blocks[i] = at_place(i, 3000);
    fill_pattern(blocks[i], 3000, i);
  }
  const pid_t child = fork();
  REQUIRE(child >= 0);
  for (unsigned i = 0; i < 200; i++) {
    EXPECT(verify_pattern(blocks[i], 3000, i) == 3000);
    blocks[i] = realloc(blocks[i], 70000);
    EXPECT(verify_pattern(blocks[i], 3000, i) == 3000);
  }
  for (void* p : blocks) free(p);
  churn(reinterpret_cast<void*>(uintptr_t{9}));
  if (child == 0) _exit(failures() == 0 ? 0 : 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(status == 0, "status %x", static_cast<unsigned>(status));
}

CASE(what_is_freed_serves_again) {
  numaheap_heap_stats first, last;
  for (int round = 0; round < 200; round++) {
    void* blocks[400];
    for (int i = 0; i < 400; i++) blocks[i] = api().interleaved(i % 8 == 0 ? 40000 : 4000);
    for (void* p : blocks) free(p);
    if (round == 0) REQUIRE(api().heap_stats(api().node_count() + 1, &first, sizeof first) == 0);
  }
  REQUIRE(api().heap_stats(api().node_count() + 1, &last, sizeof last) == 0);
  REQUIRE(last.kind == NUMAHEAP_HEAP_INTERLEAVED);
  EXPECT(last.committed_bytes <= first.committed_bytes + 4 * kMiB, "%lu after %lu", last.committed_bytes,
         first.committed_bytes);
}

CASE_FATAL(double_free_of_a_placed_object, "double free") {
  void* p = api().on_node(100, api().node_id(0));
  free(p);
  about_to_misuse(p);
  free(opaque(p));
}

CASE_FATAL(interior_pointer_into_a_placed_object, "interior pointer") {
  auto* p = static_cast<char*>(api().interleaved(1000));
  about_to_misuse(p + 16);
  free(opaque(p + 16));
}

CASE_FATAL(double_free_of_a_large_placed_object, "double free") {
  void* p = api().interleaved(6 * kMiB);
  free(p);
  about_to_misuse(p);
  free(opaque(p));
}
