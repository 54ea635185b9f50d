// Plugins that are opened with RTLD_DEEPBIND. The test runs with and without NUMAHEAP_DEEPBIND, which lets the flag stand.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

static void* open_with(int flags) {
  void* plugin = dlopen(NH_PLUGIN_DIR "/libnh_test_crossing.so", RTLD_NOW | flags);
  REQUIRE(plugin != NULL, "%s", dlerror());
  return plugin;
}

static int bound_deeply(void* plugin) {
  void* (*theirs)(void) = (void* (*)(void))dlsym(plugin, "crossing_malloc");
  return theirs() != (void*)malloc;
}

CASE(the_option_decides) {
  const int kept = getenv("NUMAHEAP_DEEPBIND") != NULL;
  EXPECT(bound_deeply(open_with(RTLD_DEEPBIND)) == kept);
}

CASE(memory_crosses) {
  if (getenv("NUMAHEAP_DEEPBIND") != NULL) return;
  void* plugin = open_with(RTLD_DEEPBIND);
  void* (*make)(size_t) = (void* (*)(size_t))dlsym(plugin, "crossing_make");
  void (*drop)(void*) = (void (*)(void*))dlsym(plugin, "crossing_drop");
  void* (*grow)(void*, size_t) = (void* (*)(void*, size_t))dlsym(plugin, "crossing_grow");
  int (*own)(void) = (int (*)(void))dlsym(plugin, "crossing_own");
  for (size_t n = 1; n < 3000000; n = n * 3 + 1) {
    drop(opaque(malloc(n)));
    free(make(n));
    free(grow(opaque(malloc(n)), 2 * n));
    drop(realloc(make(n), 2 * n));
  }
  EXPECT(own());
}

CASE(other_flags_are_not_changed) {
  void* plugin = open_with(RTLD_LOCAL);
  EXPECT(!bound_deeply(plugin));
  EXPECT(dlsym(RTLD_DEFAULT, "crossing_malloc") == NULL, "RTLD_LOCAL");
  open_with(RTLD_GLOBAL | RTLD_DEEPBIND);
  EXPECT(dlsym(RTLD_DEFAULT, "crossing_malloc") != NULL, "RTLD_GLOBAL");
  EXPECT(dlopen("libnh_no_such_library.so", RTLD_NOW) == NULL);
  const char* error = dlerror();
  EXPECT(error != NULL && strstr(error, "libnh_no_such_library.so") != NULL, "%s", error);
}

// libc asks by the return address whose RUNPATH counts.
CASE(the_caller_is_still_the_caller) {
  void* (*open)(const char*) = (void* (*)(const char*))dlsym(open_with(RTLD_LOCAL), "crossing_open");
  EXPECT(dlopen("libnh_test_by_runpath.so", RTLD_NOW) == NULL, "this program has no RUNPATH that leads there");
  void* found = open("libnh_test_by_runpath.so");
  EXPECT(found != NULL, "%s", dlerror());
}
