// A C program that loads C++ plugins with RTLD_LOCAL: the program itself has no libstdc++, so that the function which
// throws bad_alloc is in no scope that a preloaded library can see from the start.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

#ifndef NH_PLUGIN_DIR
#error "NH_PLUGIN_DIR names the folder of the plugins"
#endif

static void* load(const char* name, int flags) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", NH_PLUGIN_DIR, name);
  void* plugin = dlopen(path, flags);
  REQUIRE(plugin != NULL, "%s", dlerror());
  return plugin;
}

static void* function(void* plugin, const char* name) {
  void* address = dlsym(plugin, name);
  REQUIRE(address != NULL, "%s", dlerror());
  return address;
}

CASE(program_has_no_libstdcxx) {
  // Otherwise the cases below prove nothing.
  EXPECT(dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv") == NULL);
}

CASE(plugin_catches_bad_alloc) {
  void* plugin = load("libnh_test_plugin.so", RTLD_NOW | RTLD_LOCAL);
  int (*catches)(void) = (int (*)(void))function(plugin, "plugin_catches_bad_alloc");
  for (int i = 0; i < 10; i++) EXPECT(catches() == 1);
  int (*handler)(void) = (int (*)(void))function(plugin, "plugin_new_handler_calls");
  EXPECT(handler() == 3, "%d calls of the new_handler", handler());
}

CASE(plugin_constructor_ran_on_this_heap) {
  void* plugin = load("libnh_test_plugin.so", RTLD_NOW | RTLD_LOCAL);
  void* (*block)(size_t*) = (void* (*)(size_t*))function(plugin, "plugin_block_of_constructor");
  size_t n = 0;
  void* p = block(&n);
  EXPECT(verify_pattern(p, n, 77) == n);
  free(p);  // allocated by the plugin's constructor, freed here
}

CASE(load_and_unload_a_hundred_times) {
  void* kept[100];
  for (int i = 0; i < 100; i++) {
    void* plugin = load("libnh_test_plugin.so", RTLD_LAZY | RTLD_LOCAL);
    void* (*make)(size_t) = (void* (*)(size_t))function(plugin, "plugin_make");
    kept[i] = make(1000);
    fill_pattern(kept[i], 1000, (uint64_t)i);
    EXPECT(dlclose(plugin) == 0);
  }
  // The plugin's code is gone, its blocks are not.
  for (int i = 0; i < 100; i++) {
    EXPECT(verify_pattern(kept[i], 1000, (uint64_t)i) == 1000);
    free(kept[i]);
  }
}

CASE(deep_bound_plugin) {
  // RTLD_DEEPBIND makes the plugin prefer its own dependencies: libc's malloc, if it finds it there. A block of the one
  // must not meet the free of the other within the plugin, and nothing may crash at load and unload.
  void* plugin = load("libnh_test_plugin.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  int (*round_trip)(void) = (int (*)(void))function(plugin, "plugin_round_trip");
  EXPECT(round_trip() == 1);
  dlclose(plugin);
}

CASE(thread_local_memory_of_a_plugin) {
  // The dynamic linker allocates the plugin's thread-local block through malloc, in the middle of an access.
  void* plugin = load("libnh_test_plugin.so", RTLD_NOW | RTLD_LOCAL);
  int (*use)(int) = (int (*)(int))function(plugin, "plugin_thread_locals");
  for (int threads = 0; threads < 20; threads++) EXPECT(use(4) == 4);
}

CASE(dlsym_failures_allocate_messages) {
  for (int i = 0; i < 1000; i++) {
    EXPECT(dlsym(RTLD_DEFAULT, "no_such_function_anywhere") == NULL);
    EXPECT(dlerror() != NULL);
    EXPECT(dlopen("/nonexistent/library.so", RTLD_NOW) == NULL);
    EXPECT(dlerror() != NULL);
  }
}

CASE(dlopen_of_a_library_that_is_loaded) {
  // A second reference to whatever provides malloc, dropped again: it must stay (it is linked with -z nodelete).
  Dl_info info;
  REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0);
  void* again = dlopen(info.dli_fname, RTLD_NOW);
  REQUIRE(again != NULL, "%s", dlerror());
  dlclose(again);
  dlclose(again);
  free(malloc(1000));
}
