// Large objects that CPUs keep when they are freed, seen from outside: contents, statistics, trimming, fork, shortage.
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <initializer_list>
#include <new>

#include "harness/case.h"
#include "pin.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kSizes[] = {40000, 64 << 10, 300000, kMiB, 3 * kMiB, 4 * kMiB, 5 * kMiB, 20 * kMiB};

char* written(size_t n, int byte) {
  auto* p = static_cast<char*>(malloc(n));
  REQUIRE(p != nullptr, "malloc(%zu): errno %d", n, errno);
  memset(p, byte, n);
  return p;
}

// From now on the CPU keeps a block of this size that is freed.
void warm(size_t n) {
  for (int i = 0; i < 3; i++) free(written(n, 0x5a));
}

const char* stats() {
  static char json[1 << 18];
  const int length = nh_stats_json(json, sizeof json);
  REQUIRE(length > 0 && static_cast<size_t>(length) < sizeof json);
  return json;
}
long long number(const char* key) { return json_sum(stats(), key); }
bool has_sequences() { return strstr(stats(), "rseq\"") != nullptr; }
bool has_statistics() { return nh_stats_json != nullptr; }

// The exit status of a child that does this.
template <typename Work>
void in_child(Work work) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    work();
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(status == 0, "the child ended with %#x", static_cast<unsigned>(status));
}

}  // namespace

CASE(statistics_count_them_as_cached) {
  if (!has_statistics()) return;
  stay_here();
  for (const size_t n : kSizes) {
    malloc_trim(0);  // capacity of sizes that are kept does not go to others
    warm(n);
    const bool kept = has_sequences();
    const long long live = number("live_bytes"), objects = number("large_objects"), cached = number("cached_bytes");
    char* p = written(n, 2);
    auto usable = static_cast<long long>(malloc_usable_size(p));
    // First-touch memory counts whole units; an object may begin some cache lines into its first one.
    if (n >= 4 * kMiB) usable = (usable + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
    EXPECT(number("live_bytes") - live == usable, "%zu: %lld more", n, number("live_bytes") - live);
    EXPECT(number("large_objects") - objects == 1, "%zu", n);
    EXPECT(cached - number("cached_bytes") == (kept ? usable : 0), "%zu: %lld less", n, cached - number("cached_bytes"));
    free(p);
    EXPECT(number("live_bytes") == live && number("large_objects") == objects && number("cached_bytes") == cached, "%zu", n);
  }
}

CASE(trim_gives_them_back) {
  stay_here();
  const long long objects = has_statistics() ? number("large_objects") : 0;
  for (const size_t n : {3 * kMiB, 4 * kMiB, 20 * kMiB}) warm(n);
  const long before = resident_kib();
  malloc_trim(0);
  EXPECT(before - resident_kib() >= 20 * 1024, "%ld KiB resident, then %ld", before, resident_kib());
  if (!has_statistics()) return;
  EXPECT(number("large_objects") == objects, "%lld", number("large_objects"));
  EXPECT(number("cached_bytes") < 300000, "%lld", number("cached_bytes"));
  EXPECT(number("committed_bytes") <= static_cast<long long>(4 * kMiB), "%lld", number("committed_bytes"));
  for (const size_t n : kSizes) warm(n);
}

CASE(calloc_clears_them) {
  stay_here();
  for (const size_t n : kSizes) {
    warm(n);
    for (int round = 0; round < 3; round++) {
      errno = 4711;
      auto* p = static_cast<char*>(calloc(n / 4, 4));
      EXPECT(errno == 4711, "errno became %d", errno);
      REQUIRE(p != nullptr);
      size_t dirty = 0;
      for (size_t i = 0; i < n; i++) dirty += p[i] != 0;
      EXPECT(dirty == 0, "%zu of %zu bytes are not zero", dirty, n);
      memset(p, 1, n);
      free(p);
    }
  }
}

CASE(aligned_ones_are_aligned) {
  stay_here();
  for (const size_t n : kSizes) {
    warm(n);
    for (size_t alignment = 32; alignment <= 8 * kMiB; alignment *= 2) {
      for (int round = 0; round < 3; round++) {
        auto* p = static_cast<char*>(aligned_alloc(alignment, n));
        REQUIRE(p != nullptr, "aligned_alloc(%zu, %zu)", alignment, n);
        EXPECT(reinterpret_cast<uintptr_t>(p) % alignment == 0, "%p is not aligned to %zu", static_cast<void*>(p), alignment);
        EXPECT(malloc_usable_size(p) >= n);
        memset(p, 1, n);
        free(p);
      }
    }
    // C++'s form of it, freed with size and alignment.
    constexpr std::align_val_t kLine{64};
    ::operator delete(opaque(::operator new(n, kLine)), n, kLine);
    ::operator delete(opaque(::operator new(n)), n);
  }
}

CASE(aligned_loops_stay_with_one_block) {
  if (!has_statistics() || !has_sequences()) return;
  stay_here();
  for (const size_t n : kSizes) {
    warm(n);
    for (const size_t alignment : {64, 4096}) {
      for (int i = 0; i < 3; i++) free(aligned_alloc(alignment, n));
      void* const p = aligned_alloc(alignment, n);
      free(p);
      const long long spans = number("spans");
      for (int i = 0; i < 10; i++) {
        void* q = aligned_alloc(alignment, n);
        // The same block; where it is aligned to less it may begin at another cache line.
        EXPECT(reinterpret_cast<uintptr_t>(q) / 4096 == reinterpret_cast<uintptr_t>(p) / 4096, "%zu, %zu", n, alignment);
        free(q);
      }
      EXPECT(number("spans") == spans, "%zu, %zu", n, alignment);
    }
  }
}

CASE(realloc_goes_from_kept_to_kept) {
  stay_here();
  for (const size_t n : kSizes) warm(n);
  uint64_t random = 7;
  auto* p = static_cast<char*>(malloc(40000));
  fill_pattern(p, 40000, 1);
  for (int i = 0; i < 2000; i++) {
    const size_t n = kSizes[next_random(&random) % (sizeof kSizes / sizeof *kSizes)] + 16 + next_random(&random) % 100;
    // In the way of growing in place, half of the time.
    void* fence = i % 2 == 0 ? malloc(50000) : nullptr;
    p = static_cast<char*>(realloc(p, n));
    REQUIRE(p != nullptr, "realloc to %zu", n);
    EXPECT(malloc_usable_size(p) >= n);
    EXPECT(verify_pattern(p, 40000, 1) == 40000, "step %d, %zu bytes", i, n);
    p[n - 1] = 1;
    if (n > 40008) p[40008] = 2;
    free(fence);
  }
  free(p);
}

CASE(errno_is_kept) {
  stay_here();
  for (const size_t n : kSizes) {
    for (int i = 0; i < 4; i++) {
      errno = 4711;
      void* p = opaque(malloc(n));
      free(p);
      EXPECT(errno == 4711, "%zu: errno became %d", n, errno);
    }
  }
  EXPECT(opaque(malloc(opaque_size(SIZE_MAX / 2 + 5))) == nullptr && errno == ENOMEM);
}

CASE(parent_and_child_have_their_own) {
  stay_here();
  for (const size_t n : kSizes) warm(n);
  char* live = written(2 * kMiB, 9);
  const auto use_all = [](int byte) {
    for (int round = 0; round < 3; round++) {
      char* blocks[sizeof kSizes / sizeof *kSizes];
      for (size_t i = 0; i < sizeof kSizes / sizeof *kSizes; i++) blocks[i] = written(kSizes[i], byte + static_cast<int>(i));
      sched_yield();
      for (size_t i = 0; i < sizeof kSizes / sizeof *kSizes; i++) {
        size_t wrong = 0;
        for (size_t at = 0; at < kSizes[i]; at += 64) wrong += blocks[i][at] != static_cast<char>(byte + static_cast<int>(i));
        EXPECT(wrong == 0, "%zu of %zu bytes", wrong, kSizes[i]);
        free(blocks[i]);
      }
    }
  };
  for (int round = 0; round < 5; round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    use_all(child == 0 ? 40 : 80);
    if (child == 0) {
      EXPECT(live[kMiB] == 9);
      free(live);
      malloc_trim(0);
      use_all(20);
      in_child([&] { use_all(60); });
      _exit(failures() == 0 ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    EXPECT(status == 0, "the child ended with %#x", static_cast<unsigned>(status));
  }
  EXPECT(live[kMiB] == 9);
}
