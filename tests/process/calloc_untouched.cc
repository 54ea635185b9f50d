// calloc of some pages writes to none of them if nobody has used them before. On base pages, where that can be seen.
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

namespace {

constexpr size_t kBytes[] = {4096, 5000, 8192, 12000, 20000, 32768};
constexpr unsigned kSizes = sizeof kBytes / sizeof *kBytes;

}  // namespace

CASE(fresh_pages_stay_untouched) {
  free(calloc(1, 4096));
  const long before = resident_kib();
  size_t bytes = 0;
  for (unsigned i = 0; i < 6000; i++) {
    const size_t n = kBytes[i % kSizes];
    REQUIRE(opaque(calloc(1, n)) != nullptr);
    bytes += n;
  }
  const long grown = resident_kib() - before;
  // The descriptors, the page map, and a mark behind the last object of some spans.
  EXPECT(grown < static_cast<long>(bytes / 1024 / 8), "%ld KiB for %zu", grown, bytes / 1024);
}

// Objects of all lives, from lists and from spans: calloc's read as zero.
CASE(zero_whoever_had_it) {
  constexpr unsigned kSlots = 3000;
  static struct {
    unsigned char* p;
    size_t n;
  } slots[kSlots];
  uint64_t random = 1;
  for (long step = 0; step < scaled(300000, 30000); step++) {
    auto& slot = slots[next_random(&random) % (step % 20000 < 10000 ? kSlots : kSlots / 20)];
    const uint64_t dice = next_random(&random);
    if (slot.p != nullptr) {
      free(slot.p);
      slot.p = nullptr;
      if (dice % 4 != 0) continue;
    }
    slot.n = kBytes[dice / 16 % kSizes] - dice / 256 % 16;
    slot.p = static_cast<unsigned char*>(dice / 4 % 2 == 0 ? malloc(slot.n) : calloc(slot.n, 1));
    REQUIRE(slot.p != nullptr);
    if (dice / 4 % 2 == 1) {
      for (size_t i = 0; i < slot.n; i += i + 8 < slot.n ? 8 : 1) REQUIRE(slot.p[i] == 0, "byte %zu of %zu", i, slot.n);
    }
    memset(slot.p, 0xa5, slot.n);
  }
}

// The first free object of a span is the one that was freed.
CASE(what_was_freed_serves_first) {
  void* p = calloc(1, 20000);
  memset(p, 1, 20000);
  free(p);
  EXPECT(opaque(calloc(1, 20000)) == p);
}
