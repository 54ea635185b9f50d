// The plugin of library_deepbind.c and library_namespace.c: memory that crosses the border of a library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void* crossing_make(size_t n) { return memset(malloc(n), 7, n); }
void crossing_drop(void* p) { free(p); }
void* crossing_grow(void* p, size_t n) { return realloc(p, n); }
// Both calls in libc: it allocates, we free.
int crossing_own(void) {
  char* text = NULL;
  if (asprintf(&text, "%d", 4711) != 4) return 0;
  char* copy = strdup(text);
  const int same = copy != NULL && strcmp(copy, "4711") == 0;
  free(text);
  free(copy);
  return same;
}
void* crossing_malloc(void) { return (void*)malloc; }
// Opens by a bare name what only this library's own RUNPATH leads to.
void* crossing_open(const char* name) { return dlopen(name, RTLD_NOW); }
