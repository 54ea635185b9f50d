// dlmopen: a library in a namespace of its own has a libc of its own, and with it that libc's malloc. The two heaps live side
// by side; what one gives must not go to the other.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

CASE(a_second_libc_has_a_heap_of_its_own) {
  void* plugin = dlmopen(LM_ID_NEWLM, NH_PLUGIN_DIR "/libnh_test_crossing.so", RTLD_NOW);
  REQUIRE(plugin != NULL, "%s", dlerror());
  void* (*theirs)(void) = (void* (*)(void))dlsym(plugin, "crossing_malloc");
  EXPECT(theirs() != (void*)malloc);
  void* (*make)(size_t) = (void* (*)(size_t))dlsym(plugin, "crossing_make");
  void (*drop)(void*) = (void (*)(void*))dlsym(plugin, "crossing_drop");
  int (*own)(void) = (int (*)(void))dlsym(plugin, "crossing_own");
  for (size_t n = 1; n < 3000000; n = n * 3 + 1) {
    void* ours = opaque(malloc(n));
    memset(ours, 1, n);
    drop(make(n));
    free(ours);
  }
  EXPECT(own());
}

CASE_FATAL(what_it_gives_is_not_ours, "not from this heap") {
  void* plugin = dlmopen(LM_ID_NEWLM, NH_PLUGIN_DIR "/libnh_test_crossing.so", RTLD_NOW);
  REQUIRE(plugin != NULL, "%s", dlerror());
  void* (*make)(size_t) = (void* (*)(size_t))dlsym(plugin, "crossing_make");
  void* p = make(100);
  about_to_misuse(p);
  free(p);
}
