// mallinfo() and its kin as programs know them from glibc: fields that add up, and calls that cost next to nothing.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <initializer_list>

#include "harness/case.h"

namespace {

constexpr long kMiB = 1 << 20;

long in_use(const struct mallinfo2& m) { return static_cast<long>(m.uordblks + m.hblkhd); }

void check_sums() {
  const struct mallinfo2 m = mallinfo2();
  EXPECT(m.uordblks + m.fordblks == m.arena, "%zu + %zu, %zu", m.uordblks, m.fordblks, m.arena);
  EXPECT(m.keepcost <= m.fordblks, "%zu, %zu", m.keepcost, m.fordblks);
  static char json[1 << 16];
  nh_stats_json(json, sizeof json);
  EXPECT(static_cast<long long>(m.arena + m.hblkhd) == json_sum(json, "committed_bytes"), "%zu + %zu, %lld", m.arena,
         m.hblkhd, json_sum(json, "committed_bytes"));
}

double microseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

// The best of several: other processes run beside us.
double cost_of(void (*call)()) {
  double best = 1e9;
  for (int round = 0; round < 20; round++) {
    const double begin = microseconds();
    for (int i = 0; i < 10; i++) call();
    const double took = (microseconds() - begin) / 10;
    if (took < best) best = took;
  }
  return best;
}

void* g_blocks[1 << 18];

void hold_much() {
  for (void*& p : g_blocks) p = memset(malloc(1000), 1, 1);
  for (size_t i = 0; i < sizeof g_blocks / sizeof g_blocks[0]; i += 7) {
    free(g_blocks[i]);
    g_blocks[i] = malloc(i % 3000);
  }
}

}  // namespace

CASE(sums_add_up) {
  check_sums();
  void* blocks[6] = {};
  size_t i = 0;
  for (const size_t size : {100, 30000, 200000, 5000000, 70000000}) {
    blocks[i++] = memset(malloc(size), 1, size);
    check_sums();
  }
  for (void* p : blocks) free(p);
  check_sums();
}

// Programs add uordblks and hblkhd to see what they use.
CASE(large_objects_count_as_what_was_asked_for) {
  for (const long mib : {65, 64, 100, 2048}) {
    const struct mallinfo2 before = mallinfo2();
    void* p = malloc(static_cast<size_t>(mib * kMiB));
    const struct mallinfo2 held = mallinfo2();
    EXPECT(in_use(held) - in_use(before) >= mib * kMiB && in_use(held) - in_use(before) < mib * kMiB + 16384,
           "%ld bytes for %ld MiB", in_use(held) - in_use(before), mib);
    EXPECT(held.hblks == before.hblks + 1 && held.hblkhd - before.hblkhd >= static_cast<size_t>(mib * kMiB));
    p = realloc(p, static_cast<size_t>((mib + 50) * kMiB));
    const long grown = in_use(mallinfo2()) - in_use(before);
    EXPECT(grown >= (mib + 50) * kMiB && grown < (mib + 50) * kMiB + 16384, "%ld bytes for %ld MiB", grown, mib + 50);
    p = realloc(p, 40 * kMiB);
    const long shrunk = in_use(mallinfo2()) - in_use(before);
    EXPECT(shrunk >= 40 * kMiB && shrunk < 40 * kMiB + 16384, "%ld bytes for 40 MiB", shrunk);
    free(p);
    EXPECT(in_use(mallinfo2()) == in_use(before) && mallinfo2().hblks == before.hblks);
    check_sums();
  }
}

CASE(small_objects_are_in_use_while_the_program_holds_them) {
  const struct mallinfo2 before = mallinfo2();
  for (void*& p : g_blocks) p = malloc(100);
  const long held = in_use(mallinfo2()) - in_use(before);
  const long expected = static_cast<long>((1 << 18) * malloc_usable_size(g_blocks[0]));
  EXPECT(held == expected, "%ld instead of %ld", held, expected);
  for (void* p : g_blocks) free(p);
  EXPECT(in_use(mallinfo2()) == in_use(before), "%ld left", in_use(mallinfo2()) - in_use(before));
  check_sums();
}

CASE(mallinfo_is_no_walk) {
  hold_much();
  const double took = cost_of([] { (void)mallinfo2(); });
  EXPECT(took < 20, "%.1f us", took);
}

CASE(malloc_trim_with_nothing_to_trim_is_no_walk) {
  hold_much();
  malloc_trim(0);
  const double took = cost_of([] { malloc_trim(0); });
  EXPECT(took < 40, "%.1f us", took);
}
