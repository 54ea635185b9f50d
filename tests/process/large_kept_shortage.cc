// Where address space is short, what CPUs keep is memory for every request before one fails.
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "harness/case.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// How many blocks can be had, asked of a child so that nothing is left of it.
int blocks_of(size_t n) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int count = 0;
    while (count < 200 && opaque(malloc(n)) != nullptr) count++;
    _exit(count);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status), "status %#x", static_cast<unsigned>(status));
  return WEXITSTATUS(status);
}

void leave_room_for(size_t bytes) {
  const rlim_t limit = static_cast<rlim_t>(status_kib("VmSize")) * 1024 + bytes;
  const struct rlimit both = {limit, limit};
  REQUIRE(setrlimit(RLIMIT_AS, &both) == 0);
}

void keep(size_t n) {
  for (int i = 0; i < 3; i++) free(opaque(malloc(n)));
}

}  // namespace

CASE(kept_extents_serve_before_a_large_request_fails) {
  leave_room_for(150 * kMiB);
  const int without = blocks_of(60 * kMiB);
  EXPECT(without >= 1 && without <= 4, "%d", without);
  keep(24 * kMiB);
  const int with = blocks_of(60 * kMiB);
  EXPECT(with == without, "%d blocks, then %d", without, with);
}

CASE(kept_objects_serve_before_a_request_of_their_kind_fails) {
  leave_room_for(150 * kMiB);
  keep(kMiB);
  const int without = blocks_of(3 * kMiB);
  for (size_t n = 2 * kMiB; n <= 4 * kMiB; n += kMiB / 4) keep(n);
  const int with = blocks_of(3 * kMiB);
  // A split of the free pages in the middle may cost one in each heap.
  EXPECT(with >= without - 3, "%d blocks, then %d", without, with);
}

// Free objects in the lists of a CPU, in transfer caches, and in spans that mcentrals keep.
CASE(free_small_objects_serve_before_a_request_of_another_size_fails) {
  leave_room_for(7 * kMiB);
  constexpr size_t kSizes[] = {64, 320, 8000};
  for (const size_t n : kSizes) {
    static void* objects[kMiB / 64];
    const size_t count = kMiB / n;
    for (size_t i = 0; i < count; i++) REQUIRE((objects[i] = malloc(n)) != nullptr);
    for (size_t i = 0; i < count; i++) free(objects[i]);
  }
  const int kept = blocks_of(32 * 1024);
  malloc_trim(0);
  const int trimmed = blocks_of(32 * 1024);
  EXPECT(trimmed > 50 && trimmed < 200, "%d", trimmed);
  // Pages that nobody could use for a whole block lie elsewhere.
  EXPECT(kept >= trimmed - trimmed / 10, "%d blocks, and %d after malloc_trim", kept, trimmed);
}
