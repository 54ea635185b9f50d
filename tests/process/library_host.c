// A program whose malloc is not numaheap's opens a library that is linked to numaheap. Run without the library preloaded.
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/case.h"

static void* guest(void) {
  void* library = dlopen(NH_PLUGIN_DIR "/libnh_test_guest.so", RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != NULL, "%s", dlerror());
  return library;
}

static int calls(void* library, const char* name) {
  int (*function)(void) = (int (*)(void))dlsym(library, name);
  REQUIRE(function != NULL, "%s", dlerror());
  return function();
}

CASE(the_program_keeps_its_malloc) {
  // Otherwise the cases below prove nothing.
  void* library = guest();
  void* (*theirs)(void) = (void* (*)(void))dlsym(library, "guest_malloc");
  EXPECT(theirs() == (void*)malloc);
  EXPECT(dlsym(RTLD_DEFAULT, "numaheap_malloc") == NULL);
}
CASE(functions) { EXPECT(calls(guest(), "guest_functions")); }
CASE(allocators) { EXPECT(calls(guest(), "guest_allocators")); }
CASE(reports) { EXPECT(calls(guest(), "guest_reports")); }

static void* in_a_thread(void* library) { return calls(library, "guest_functions") ? library : NULL; }

CASE(threads_and_fork) {
  void* library = guest();
  EXPECT(calls(library, "guest_functions"));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) REQUIRE(pthread_create(&threads[i], NULL, in_a_thread, library) == 0);
  const pid_t child = fork();
  if (child == 0) _exit(calls(library, "guest_functions") ? 0 : 1);
  int status = 1;
  EXPECT(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
  for (int i = 0; i < 4; i++) {
    void* result = NULL;
    EXPECT(pthread_join(threads[i], &result) == 0 && result == library);
  }
}

CASE(closed_and_opened_again) {
  for (int i = 0; i < 10; i++) {
    void* library = guest();
    EXPECT(calls(library, "guest_allocators"));
    EXPECT(dlclose(library) == 0);
    free(opaque(malloc(100)));
  }
}
