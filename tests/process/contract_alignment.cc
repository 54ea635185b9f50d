// Alignment: what the ABI promises of malloc, and what the callers of the aligned functions asked for.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "harness/case.h"

namespace {

constexpr size_t kMalloc = 16;  // alignof(max_align_t) on x86-64; SSE spills rely on it even in a malloc(1)

bool aligned(const void* p, size_t alignment) { return (reinterpret_cast<uintptr_t>(p) & (alignment - 1)) == 0; }

// Writes to both ends, so that a block that is not there faults here.
void touch_ends(void* p, size_t n) {
  if (n == 0) return;
  static_cast<volatile char*>(p)[0] = 1;
  static_cast<volatile char*>(p)[n - 1] = 1;
}

size_t round_up_pow2(size_t n) {
  size_t p = kMalloc;
  while (p < n) p *= 2;
  return p;
}

}  // namespace

CASE(malloc_every_size) {
  // Eight at a time, so that neighbours within one span are looked at and not the same object again and again.
  for (size_t n = 0; n <= 100000; n++) {
    void* kept[8];
    for (void*& p : kept) {
      p = malloc(n);
      REQUIRE(p != nullptr, "malloc(%zu)", n);
      EXPECT(aligned(p, kMalloc), "malloc(%zu) = %p", n, p);
      EXPECT(malloc_usable_size(p) >= n, "malloc(%zu) has %zu usable bytes", n, malloc_usable_size(p));
      touch_ends(p, n);
    }
    for (void* p : kept) free(p);
  }
}

CASE(calloc_and_realloc_every_size) {
  void* moving = nullptr;
  for (size_t n = 1; n <= 100000; n += n < 4096 ? 1 : 37) {
    void* p = calloc(1, n);
    REQUIRE(p != nullptr);
    EXPECT(aligned(p, kMalloc), "calloc(1, %zu) = %p", n, p);
    free(p);
    moving = realloc(moving, n);
    REQUIRE(moving != nullptr);
    EXPECT(aligned(moving, kMalloc), "realloc(p, %zu) = %p", n, moving);
    touch_ends(moving, n);
  }
  free(moving);
}

CASE(malloc_large) {
  for (size_t n = 100000; n <= size_t{64} << 20; n += n / 3 + 4093) {
    void* p = malloc(n);
    REQUIRE(p != nullptr, "malloc(%zu)", n);
    EXPECT(aligned(p, kMalloc), "malloc(%zu) = %p", n, p);
    touch_ends(p, n);
    free(p);
  }
}

CASE(power_of_two_alignments) {
  const size_t sizes[] = {0, 1, 8, 17, 100, 1000, 4096, 4097, 33000, 1 << 20, (4 << 20) + 5};
  for (size_t alignment = 8; alignment <= size_t{1} << 30; alignment *= 2) {
    for (const size_t n : sizes) {
      void* p = reinterpret_cast<void*>(uintptr_t{42});
      REQUIRE(posix_memalign(&p, alignment, n) == 0, "posix_memalign(%zu, %zu)", alignment, n);
      void* q = aligned_alloc(alignment, n);
      void* r = memalign(alignment, n);
      REQUIRE(p != nullptr && q != nullptr && r != nullptr, "alignment %zu, size %zu", alignment, n);
      EXPECT(p != q && q != r && p != r);
      for (void* block : {p, q, r}) {
        EXPECT(aligned(block, alignment) && aligned(block, kMalloc), "alignment %zu, size %zu: %p", alignment, n, block);
        EXPECT(malloc_usable_size(block) >= n);
        touch_ends(block, n);
      }
      free(q);
      free(p);
      free(r);
    }
  }
}

// Many at once, so that the aligned object is not always the first of its span.
CASE(many_aligned_objects_do_not_overlap) {
  struct Block {
    void* p;
    size_t n;
  };
  static Block blocks[4000];
  uint64_t random = 7;
  for (size_t i = 0; i < 4000; i++) {
    const size_t alignment = size_t{8} << (next_random(&random) % 10);
    const size_t n = next_random(&random) % 3000;
    REQUIRE(posix_memalign(&blocks[i].p, alignment, n) == 0);
    EXPECT(aligned(blocks[i].p, alignment), "alignment %zu, size %zu: %p", alignment, n, blocks[i].p);
    blocks[i].n = malloc_usable_size(blocks[i].p);
    fill_pattern(blocks[i].p, blocks[i].n, i);
  }
  for (size_t i = 0; i < 4000; i++) {
    EXPECT(verify_pattern(blocks[i].p, blocks[i].n, i) == blocks[i].n, "block %zu", i);
    free(blocks[i].p);
  }
}

// glibc 2.36 rounds an alignment that is no power of two up to the next one, in aligned_alloc as in memalign. Programs
// (old ones that pass sizeof(struct), mostly) depend on getting memory.
CASE(odd_alignments_are_rounded_up) {
  for (const size_t alignment : {size_t{0}, size_t{1}, size_t{3}, size_t{12}, size_t{24}, size_t{48}, size_t{100}, size_t{4095},
                                 size_t{4097}}) {
    for (int k = 0; k < 20; k++) {
      void* p = aligned_alloc(opaque_size(alignment), 100);
      void* q = memalign(opaque_size(alignment), 100);
      REQUIRE(p != nullptr && q != nullptr, "alignment %zu", alignment);
      EXPECT(aligned(p, round_up_pow2(alignment)), "aligned_alloc(%zu, 100) = %p", alignment, p);
      EXPECT(aligned(q, round_up_pow2(alignment)), "memalign(%zu, 100) = %p", alignment, q);
      free(p);
      free(q);
    }
  }
}

CASE(page_functions) {
  for (const size_t n : {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{300000}}) {
    void* p = valloc(n);
    void* q = pvalloc(n);
    REQUIRE(p != nullptr && q != nullptr);
    EXPECT(aligned(p, 4096), "valloc(%zu) = %p", n, p);
    EXPECT(aligned(q, 4096), "pvalloc(%zu) = %p", n, q);
    // pvalloc rounds the size up to whole pages, too.
    const size_t rounded = (n + 4095) / 4096 * 4096;
    EXPECT(malloc_usable_size(q) >= rounded, "pvalloc(%zu) has %zu", n, malloc_usable_size(q));
    memset(p, 1, n);
    memset(q, 2, rounded);
    free(p);
    free(q);
  }
}
