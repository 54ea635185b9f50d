// What is inside the blocks: zeros from calloc, the old bytes after realloc, room for every usable byte.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "harness/case.h"

namespace {

// The offset of the first byte that is not zero, or n.
size_t first_nonzero(const void* p, size_t n) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  if (n == 0) return 0;
  // Comparing the block with itself, one byte shifted, is as fast as memcmp.
  if (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0) return n;
  size_t i = 0;
  while (bytes[i] == 0) i++;
  return i;
}

void check_calloc(size_t n) {
  void* p = calloc(1, n);
  REQUIRE(p != nullptr, "calloc(1, %zu)", n);
  EXPECT(first_nonzero(p, n) == n, "calloc(1, %zu): byte %zu is not zero", n, first_nonzero(p, n));
  memset(p, 0xa5, malloc_usable_size(p));
  free(p);
}

}  // namespace

CASE(calloc_is_zero_after_dirty_reuse) {
  // Every small size twice: the second calloc gets the very block that the first one left dirty.
  for (size_t n = 1; n <= 40000; n++) {
    check_calloc(n);
    check_calloc(n);
  }
  for (size_t n = 40000; n <= size_t{80} << 20; n += n / 4 + 4099) {
    check_calloc(n);
    check_calloc(n);
  }
}

// Spans that were whole, dirty objects of another size before: zeroing by what the memory was once mapped as is wrong.
CASE(calloc_is_zero_when_spans_change_class) {
  static void* blocks[4096];
  const size_t sizes[] = {48, 8000, 200, 32768, 16, 1024, 60000, 3000, 512};
  for (const size_t n : sizes) {
    for (void*& p : blocks) {
      p = calloc(n, 1);
      REQUIRE(p != nullptr);
      EXPECT(first_nonzero(p, n) == n, "%zu bytes: byte %zu", n, first_nonzero(p, n));
    }
    for (void* p : blocks) memset(p, 0xff, n);
    for (void* p : blocks) free(p);
    malloc_trim(0);
  }
}

CASE(calloc_arrays) {
  for (size_t count = 1; count < 3000; count += 13) {
    for (const size_t size : {1, 3, 8, 24, 100}) {
      auto* p = static_cast<unsigned char*>(calloc(count, size));
      REQUIRE(p != nullptr);
      EXPECT(malloc_usable_size(p) >= count * size);
      EXPECT(first_nonzero(p, count * size) == count * size, "calloc(%zu, %zu)", count, size);
      memset(p, 0xee, count * size);
      free(p);
    }
  }
}

CASE(usable_bytes_are_writable) {
  // All blocks of one size are alive together, so that a size that is too generous runs into its neighbour.
  static unsigned char* blocks[64];
  EXPECT(malloc_usable_size(nullptr) == 0);
  for (size_t n = 0; n <= 70000; n += n < 2100 ? 1 : 211) {
    for (size_t i = 0; i < 64; i++) {
      blocks[i] = static_cast<unsigned char*>(malloc(n));
      const size_t usable = malloc_usable_size(blocks[i]);
      EXPECT(usable >= n, "malloc(%zu): %zu usable", n, usable);
      memset(blocks[i], static_cast<int>(i + 1), usable);
    }
    for (size_t i = 0; i < 64; i++) {
      const size_t usable = malloc_usable_size(blocks[i]);
      const auto mark = static_cast<unsigned char>(i + 1);
      EXPECT(usable == 0 || (blocks[i][0] == mark && memcmp(blocks[i], blocks[i] + 1, usable - 1) == 0), "malloc(%zu)", n);
      free(blocks[i]);
    }
  }
}

CASE(usable_bytes_of_large_blocks_are_writable) {
  for (size_t n = 100000; n <= size_t{70} << 20; n += n / 2 + 12345) {
    auto* a = static_cast<unsigned char*>(malloc(n));
    auto* b = static_cast<unsigned char*>(malloc(n));
    REQUIRE(a != nullptr && b != nullptr);
    memset(a, 1, malloc_usable_size(a));
    memset(b, 2, malloc_usable_size(b));
    EXPECT(a[0] == 1 && memcmp(a, a + 1, malloc_usable_size(a) - 1) == 0, "%zu bytes", n);
    free(a);
    free(b);
  }
}

CASE(realloc_growth_and_shrink_chains) {
  // 1 B up to 64 MiB and down again, neighbours in between so that growing in place is not always possible.
  size_t n = 1;
  auto* p = static_cast<unsigned char*>(malloc(1));
  fill_pattern(p, 1, 1);
  void* fences[400];
  int fence_count = 0;
  const size_t top = size_t{64} << 20;
  for (int step = 0; n < top; step++) {
    const size_t bigger = n + n / 3 + 1;
    p = static_cast<unsigned char*>(realloc(p, bigger));
    REQUIRE(p != nullptr);
    EXPECT(verify_pattern(p, n, n) == n, "growing %zu to %zu: byte %zu", n, bigger, verify_pattern(p, n, n));
    n = bigger;
    fill_pattern(p, n, n);
    if (step % 2 == 0 && fence_count < 400) fences[fence_count++] = malloc(n > 100000 ? 100000 : n);
  }
  const size_t seed = n;
  while (n > 1) {
    const size_t smaller = n - n / 4 - 1;
    p = static_cast<unsigned char*>(realloc(p, smaller > 0 ? smaller : 1));
    REQUIRE(p != nullptr);
    n = smaller > 0 ? smaller : 1;
    EXPECT(verify_pattern(p, n, seed) == n, "shrinking to %zu: byte %zu", n, verify_pattern(p, n, seed));
  }
  free(p);
  while (fence_count > 0) free(fences[--fence_count]);
}

CASE(realloc_between_all_sizes) {
  size_t sizes[64];
  size_t count = 0;
  for (size_t n = 1; n <= size_t{9} << 20; n = n * 2 - n / 4 + 1) sizes[count++] = n;
  for (size_t i = 0; i < count; i++) {
    for (size_t j = 0; j < count; j++) {
      void* p = malloc(sizes[i]);
      fill_pattern(p, sizes[i], i);
      p = realloc(p, sizes[j]);
      REQUIRE(p != nullptr);
      const size_t kept = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
      EXPECT(verify_pattern(p, kept, i) == kept, "%zu to %zu: byte %zu", sizes[i], sizes[j], verify_pattern(p, kept, i));
      EXPECT(malloc_usable_size(p) >= sizes[j]);
      free(p);
    }
  }
}

// A program may use all that malloc_usable_size reports, and redis does: realloc moves those bytes, too.
CASE(realloc_moves_all_usable_bytes) {
  for (size_t n = 1; n <= size_t{3} << 20; n += n / 3 + 1) {
    void* p = malloc(n);
    const size_t usable = malloc_usable_size(p);
    fill_pattern(p, usable, n);
    p = realloc(p, usable * 2 + 100);
    REQUIRE(p != nullptr);
    EXPECT(verify_pattern(p, usable, n) == usable, "malloc(%zu) with %zu usable bytes", n, usable);
    free(p);
  }
}

// What the block leaves behind must come back, or this fills the memory.
CASE(realloc_back_and_forth) {
  constexpr size_t kSizes[] = {100, 1000, 16, 3, 8000, 200, 15000};
  char* p = static_cast<char*>(malloc(100));
  fill_pattern(p, 3, 1);
  long before = 0;
  for (long i = 0; i < scaled(3000000, 300000); i++) {
    const size_t n = kSizes[i % 7];
    p = static_cast<char*>(realloc(p, n));
    REQUIRE(p != nullptr);
    p[n - 1] = p[n - 1];
    if (verify_pattern(p, 3, 1) != 3) REQUIRE(false, "lost its contents on the way to %zu bytes", n);
    if (i == 10000) before = resident_kib();
  }
  free(p);
  EXPECT(resident_kib() < before + 4096, "%ld KiB resident, %ld before", resident_kib(), before);
}

// From full lists to empty ones and back: many blocks at once.
CASE(realloc_of_many_blocks) {
  static char* blocks[6000];
  constexpr size_t kMany = sizeof blocks / sizeof *blocks;
  for (size_t i = 0; i < kMany; i++) {
    blocks[i] = static_cast<char*>(malloc(64));
    fill_pattern(blocks[i], 64, i);
  }
  for (const size_t n : {1000, 150, 2000, 80}) {
    for (size_t i = 0; i < kMany; i++) {
      blocks[i] = static_cast<char*>(realloc(blocks[i], n));
      REQUIRE(blocks[i] != nullptr);
      EXPECT(verify_pattern(blocks[i], 64, i) == 64, "block %zu of %zu bytes", i, n);
    }
  }
  for (char* p : blocks) free(p);
}

CASE(realloc_of_aligned_blocks) {
  for (size_t alignment = 32; alignment <= 1 << 16; alignment *= 4) {
    void* p = aligned_alloc(alignment, 1000);
    fill_pattern(p, 1000, alignment);
    p = realloc(p, 100000);
    EXPECT(verify_pattern(p, 1000, alignment) == 1000);
    free(p);
  }
}

// A shrunk block must not hold on to all of its memory: a 64 MiB buffer cut to 100 bytes is a common idiom.
CASE(realloc_shrinks_for_real) {
  void* blocks[8];
  for (void*& p : blocks) {
    p = malloc(size_t{32} << 20);
    memset(p, 1, size_t{32} << 20);
    p = realloc(p, 100);
  }
  malloc_trim(0);
  EXPECT(resident_kib() < 64 * 1024, "%ld KiB resident after shrinking 256 MiB to 800 B", resident_kib());
  for (void* p : blocks) free(p);
}
