// Runs with NUMAHEAP_LARGE=local: objects above 4 MiB lie in the heaps where those below lie.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

namespace {
constexpr size_t kMiB = size_t{1} << 20;
}

// Where it begins a freed object lay, whose mark is still there: it must not be taken for free when it is small enough to
// have a mark itself.
CASE(a_block_that_shrinks_is_not_taken_for_a_free_one) {
  void* small = opaque(malloc(kMiB));
  memset(small, 1, kMiB);
  free(small);  // the first of its size: no CPU keeps it
  void* p = opaque(malloc(5 * kMiB));
  REQUIRE(p == small, "the lowest free address comes first: %p, %p", small, p);
  p = realloc(p, 2 * kMiB);
  EXPECT(p == small && malloc_usable_size(p) >= 2 * kMiB);
  free(p);
}
