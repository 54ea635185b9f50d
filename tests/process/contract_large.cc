// Blocks larger than the machine's caches, than a huge page, than an arena of the library, than the memory.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "harness/case.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kGiB = size_t{1} << 30;

// Lines of /proc/self/maps, read without allocation.
long mappings() {
  static char buffer[1 << 16];
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  long lines = 0;
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    for (ssize_t i = 0; i < n; i++) lines += buffer[i] == '\n';
  }
  close(fd);
  return lines;
}

}  // namespace

CASE(ten_gib_touched_sparsely) {
  const size_t n = 10 * kGiB;
  auto* p = static_cast<char*>(malloc(n));
  REQUIRE(p != nullptr, "malloc(10 GiB): errno %d", errno);
  EXPECT(malloc_usable_size(p) >= n);
  const long before = resident_kib();
  for (size_t at = 0; at < n; at += kGiB / 4) memcpy(p + at, &at, sizeof at);
  p[n - 1] = 1;
  // 41 places: with huge pages 82 MiB at most; all of it would be 10 GiB.
  EXPECT(resident_kib() - before < 512 * 1024, "%ld KiB for 41 touched places", resident_kib() - before);
  for (size_t at = 0; at < n; at += kGiB / 4) EXPECT(memcmp(p + at, &at, sizeof at) == 0, "at %zu GiB", at / kGiB);
  free(p);
}

// Sparse matrices and hash tables are made like this: calloc must not write what the kernel would zero on demand.
CASE(ten_gib_again_and_again) {
  for (int round = 0; round < 20; round++) {
    auto* p = static_cast<char*>(calloc(10, kGiB));
    REQUIRE(p != nullptr, "round %d: errno %d", round, errno);
    for (size_t at = 0; at < 10 * kGiB; at += kGiB) {
      EXPECT(p[at] == 0, "round %d: calloc gave a dirty byte", round);
      p[at] = 1;
    }
    free(p);
  }
  malloc_trim(0);
  EXPECT(resident_kib() < 256 * 1024, "%ld KiB resident after all was freed", resident_kib());
}

CASE(realloc_of_a_large_block) {
  auto* p = static_cast<char*>(malloc(100 * kMiB));
  fill_pattern(p, 100 * kMiB, 1);
  // Grown and shrunk across arenas, with a neighbour in the way half of the time.
  void* fence = malloc(5 * kMiB);
  for (const size_t mib : {size_t{300}, size_t{150}, size_t{700}, size_t{128}}) {
    p = static_cast<char*>(realloc(p, mib * kMiB));
    REQUIRE(p != nullptr);
    EXPECT(verify_pattern(p, 100 * kMiB, 1) == 100 * kMiB, "at %zu MiB", mib);
  }
  free(fence);
  free(p);
}

CASE(a_block_that_grows_is_copied_until_16_kib_only) {
  auto* p = static_cast<char*>(malloc(10000));
  fill_pattern(p, 10000, 2);
  p = static_cast<char*>(realloc(p, 17000));
  REQUIRE(p != nullptr);
  EXPECT(malloc_usable_size(p) == 40960, "%zu usable", malloc_usable_size(p));
  int moves = 0;
  for (size_t n = 17000; n < 4 * kMiB; n += 6000) {
    auto* q = static_cast<char*>(realloc(p, n));
    REQUIRE(q != nullptr && malloc_usable_size(q) >= n);
    EXPECT(n > 40960 || q == p, "moved at %zu", n);
    moves += q != p;
    p = q;
    p[n - 1] = 1;
  }
  EXPECT(moves < 10, "moved %d times: others may stand in the way, but not each time", moves);
  // The way back, and the memory with it.
  auto* q = static_cast<char*>(realloc(p, 16400));
  EXPECT(q == p && malloc_usable_size(q) == 40960, "%zu usable at 16400", malloc_usable_size(q));
  q = static_cast<char*>(realloc(q, 10000));
  REQUIRE(q != nullptr);
  EXPECT(malloc_usable_size(q) < 16384, "%zu usable at 10000", malloc_usable_size(q));
  EXPECT(verify_pattern(q, 10000, 2) == 10000);
  free(q);
}

// First-touch memory comes in pages of 2 MiB.
CASE(a_large_block_that_shrinks_does_not_keep_a_huge_page) {
  auto* p = static_cast<char*>(malloc(20 * kMiB));
  fill_pattern(p, kMiB, 3);
  p = static_cast<char*>(realloc(p, 5 * kMiB));
  EXPECT(malloc_usable_size(p) < 7 * kMiB, "%zu usable at 5 MiB", malloc_usable_size(p));
  p = static_cast<char*>(realloc(p, 300000));
  REQUIRE(p != nullptr);
  EXPECT(malloc_usable_size(p) < 400000, "%zu usable at 300000", malloc_usable_size(p));
  EXPECT(verify_pattern(p, 300000, 3) == 300000);
  free(p);
}

// Many arrays of one size that are walked through side by side must not meet in the same sets of the caches.
CASE(equal_arrays_begin_at_different_cache_lines) {
  // One that leaves room in its last huge page, one that leaves none and is large enough to get another.
  for (const size_t n : {9 * kMiB, 64 * kMiB}) {
    constexpr int kArrays = 16;
    char* arrays[kArrays];
    bool seen[64] = {};
    int lines = 0;
    for (char*& p : arrays) {
      p = static_cast<char*>(malloc(n));
      REQUIRE(p != nullptr);
      EXPECT(malloc_usable_size(p) >= n);
      EXPECT(reinterpret_cast<uintptr_t>(p) % 64 == 0);
      bool& line = seen[reinterpret_cast<uintptr_t>(p) % 4096 / 64];
      lines += !line;
      line = true;
      p[0] = p[n - 1] = static_cast<char>(lines);
    }
    EXPECT(lines >= kArrays / 2, "%d starts of %d arrays of %zu bytes", lines, kArrays, n);
    // Grown, shrunk and asked for with an alignment of their own they are what they should be.
    const char mark = arrays[3][0];
    arrays[3] = static_cast<char*>(realloc(arrays[3], 3 * n));
    REQUIRE(arrays[3] != nullptr);
    EXPECT(arrays[3][0] == mark && arrays[3][n - 1] == mark && malloc_usable_size(arrays[3]) >= 3 * n);
    memset(arrays[3] + 3 * n - 100, 1, 100);
    arrays[3] = static_cast<char*>(realloc(arrays[3], n / 2));
    EXPECT(arrays[3] != nullptr && arrays[3][0] == mark);
    for (char* p : arrays) free(p);
    void* aligned = aligned_alloc(2 * kMiB, n);
    EXPECT(reinterpret_cast<uintptr_t>(aligned) % (2 * kMiB) == 0);
    free(aligned);
  }
}

CASE(alignment_of_a_gib) {
  for (int round = 0; round < 20; round++) {
    void* p = nullptr;
    REQUIRE(posix_memalign(&p, kGiB, 3 * kMiB) == 0);
    EXPECT(reinterpret_cast<uintptr_t>(p) % kGiB == 0);
    memset(p, 1, 3 * kMiB);
    free(p);
  }
}

CASE(sizes_around_every_border) {
  // Just below, at and above page, huge page and arena sizes: rounding mistakes live here.
  static char* blocks[256];
  size_t count = 0;
  for (const size_t border : {kMiB / 128, kMiB / 32, kMiB, 2 * kMiB, 4 * kMiB, 32 * kMiB, 64 * kMiB, 128 * kMiB}) {
    for (const long offset : {-4097L, -4096L, -16L, -1L, 0L, 1L, 16L, 4096L}) {
      const size_t n = border + static_cast<size_t>(offset);
      auto* p = static_cast<char*>(malloc(n));
      REQUIRE(p != nullptr, "malloc(%zu)", n);
      memcpy(p, &n, sizeof n);
      memcpy(p + n - sizeof n, &n, sizeof n);
      blocks[count++] = p;
    }
  }
  for (size_t i = 0; i < count; i++) {
    size_t n, end;
    memcpy(&n, blocks[i], sizeof n);
    memcpy(&end, blocks[i] + n - sizeof n, sizeof end);
    EXPECT(n == end, "block %zu: %zu and %zu", i, n, end);
    free(blocks[i]);
  }
}

// Large allocations that are refused by the machine, not by arithmetic: the heap has to go on.
CASE(more_than_the_machine_has) {
  static void* blocks[64];
  size_t got = 0;
  for (void*& p : blocks) {
    errno = 0;
    p = malloc(kGiB * 4096);
    if (p != nullptr) {
      got++;
    } else {
      EXPECT(errno == ENOMEM, "errno %d", errno);
    }
  }
  EXPECT(got < 64, "256 TiB were promised: more than the address space of a process");
  void* small = malloc(1000);
  EXPECT(small != nullptr);
  memset(small, 1, 1000);
  free(small);
  for (void* p : blocks) free(p);
}

// vm.max_map_count is 65 530, and a process has other uses for its mappings.
CASE(mappings_of_a_20_gib_heap) {
  const size_t total = static_cast<size_t>(scaled(20, 5)) * kGiB;
  static char* blocks[400000];
  size_t count = 0;
  uint64_t random = 3;
  for (size_t sum = 0; sum < total;) {
    const size_t n = (size_t{64} << 10) << (next_random(&random) % 5);
    blocks[count] = static_cast<char*>(malloc(n));
    REQUIRE(blocks[count] != nullptr, "after %zu MiB: errno %d", sum / kMiB, errno);
    // One byte in 256 blocks: enough to touch every second arena or so, little enough for any machine with THP.
    if (count % 256 == 0) blocks[count][0] = 1;
    sum += n;
    count++;
  }
  EXPECT(mappings() < 2000, "%ld mappings with all blocks live", mappings());
  for (size_t i = 0; i < count; i += 2) free(blocks[i]);
  malloc_trim(0);
  EXPECT(mappings() < 2000, "%ld mappings with every second block freed and trimmed", mappings());
  for (size_t i = 1; i < count; i += 2) free(blocks[i]);
}
