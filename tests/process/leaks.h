// Losing objects, and asking numaheap_find_leaks() about them.
#pragma once

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <numaheap/numaheap.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forgotten_calls.h"
#include "harness/case.h"

inline const auto g_find = NH_LIBRARY_FUNCTION(decltype(&numaheap_find_leaks), numaheap_find_leaks);
inline const auto g_noscan = NH_LIBRARY_FUNCTION(decltype(&numaheap_malloc_noscan), numaheap_malloc_noscan);

[[gnu::noinline]] inline numaheap_leaks find() {
  numaheap_leaks leaks;
  forget_calls();
  REQUIRE(g_find != nullptr && g_find(&leaks, sizeof leaks, -1) == 0, "errno %d", errno);
  return leaks;
}

inline numaheap_leaks g_before;

// What is lost since begin().
inline void begin() { g_before = find(); }
inline void expect_lost(uint64_t direct, uint64_t indirect, const char* what) {
  const numaheap_leaks now = find();
  EXPECT(now.direct_objects - g_before.direct_objects == direct && now.indirect_objects - g_before.indirect_objects == indirect,
         "%s: %ld directly, %ld indirectly, not %ld and %ld", what, long(now.direct_objects - g_before.direct_objects),
         long(now.indirect_objects - g_before.indirect_objects), long(direct), long(indirect));
}

using Make = void*(size_t);
// All of it, since a free object holds a pointer to the next.
inline void* zeroed(void* p) { return memset(p, 0, malloc_usable_size(p)); }
inline void* make(size_t n) { return zeroed(malloc(n)); }
inline void* make_noscan(size_t n) { return zeroed(g_noscan(n)); }

[[gnu::noinline]] inline void lose(Make* make_one, size_t count, size_t bytes) {
  deep([=] {
    for (size_t i = 0; i < count; i++) {
      void* volatile p = make_one(bytes);
      (void)p;
    }
  });
}

inline thread_local void* volatile t_own;
