// Placement on a machine that is described to the process (see CMakeLists.txt): nodes 0 and 2 with a CPU each, node 3
// without memory, node 5 without CPUs. Heaps and numbers are those of the description; where pages lie is not, since the
// real machine knows nothing of it: that is shown in ../numa_vm.
#include <errno.h>
#include <string.h>

#include <initializer_list>

#include "placed.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr int kInterleaved = -2;

uint64_t live_bytes(int node) {
  numaheap_heap_stats stats;
  for (unsigned i = 0; api().heap_stats(i, &stats, sizeof stats) == 0; i++) {
    const int here = stats.kind == NUMAHEAP_HEAP_INTERLEAVED ? kInterleaved : stats.node;
    if (here == node) return stats.live_bytes;
  }
  REQUIRE(false, "no heap of node %d", node);
  return 0;
}

void expect_error(void* p, int error, const char* what) {
  EXPECT(p == nullptr && errno == error, "%s: %p, errno %d", what, p, errno);
  errno = 0;
}

}  // namespace

CASE(the_nodes_with_memory_may_be_asked_for) {
  REQUIRE(api().node_count() == 3, "%u", api().node_count());
  EXPECT(api().node_id(0) == 0 && api().node_id(1) == 2 && api().node_id(2) == 5);
  EXPECT(api().local_node() == 0 || api().local_node() == 2, "%d", api().local_node());
}

CASE(nodes_that_have_none_may_not) {
  expect_error(api().on_node(64, 1), EINVAL, "unknown");
  expect_error(api().on_node(64, 3), EINVAL, "without memory");
  expect_error(api().on_node(64, 4), EINVAL, "past a gap");
  expect_error(api().on_node_strict(6 * kMiB, 3), EINVAL, "large");
}

CASE(objects_of_all_sizes_are_of_the_heap_that_was_asked_for) {
  for (const int node : {0, 2, 5, kInterleaved}) {
    for (const size_t size : {size_t{200}, size_t{4096}, size_t{100000}, 6 * kMiB}) {
      const uint64_t before = live_bytes(node);
      void* blocks[50];
      const unsigned count = size > kMiB ? 2 : 50;
      for (unsigned i = 0; i < count; i++) {
        blocks[i] = node == kInterleaved ? api().interleaved(size) : api().on_node(size, node);
        REQUIRE(blocks[i] != nullptr);
      }
      EXPECT(live_bytes(node) >= before + count * size, "node %d, size %zu: %lu after %lu", node, size,
             live_bytes(node), before);
      for (unsigned i = 0; i < count; i++) free(blocks[i]);
      EXPECT(live_bytes(node) == before, "node %d, size %zu: %lu left", node, size, live_bytes(node) - before);
    }
  }
}

// Whichever CPU this thread runs on, one of these nodes is not its own.
CASE(realloc_keeps_the_node) {
  for (const int node : {0, 2, 5, kInterleaved}) {
    const uint64_t before = live_bytes(node);
    void* p = node == kInterleaved ? api().interleaved(10) : api().on_node(10, node);
    for (const size_t size : {size_t{300}, size_t{9000}, size_t{50000}, 2 * kMiB, 9 * kMiB, size_t{20000}, 40 * kMiB}) {
      memset(p, 7, 10);
      p = realloc(p, size);
      REQUIRE(p != nullptr);
      EXPECT(memcmp(p, "\7\7\7\7\7\7\7\7\7\7", 10) == 0);
      EXPECT(live_bytes(node) >= before + size, "node %d lost it at %zu bytes", node, size);
    }
    free(p);
    EXPECT(live_bytes(node) == before);
  }
}

// What is not placed goes by the rules of malloc: by first touch once it is large.
CASE(realloc_of_other_objects_is_as_ever) {
  const uint64_t before = live_bytes(-1);
  void* p = realloc(malloc(100), 9 * kMiB);
  EXPECT(live_bytes(-1) >= before + 9 * kMiB);
  free(p);
}

// This kernel has no node 2, so it will not bind anything there: strict placement must not pretend.
CASE(strict_placement_fails_where_nothing_can_be_bound) {
  if (access("/sys/devices/system/node/node2", F_OK) == 0) return;
  const uint64_t before = live_bytes(2);
  for (const size_t size : {size_t{64}, size_t{100000}, 6 * kMiB}) {
    expect_error(api().on_node_strict(size, 2), EPERM, "strict");
    void* p = api().on_node(size, 2);
    EXPECT(p != nullptr, "a preference is another matter");
    free(p);
  }
  EXPECT(live_bytes(2) == before, "%lu bytes of failed requests", live_bytes(2) - before);
}
