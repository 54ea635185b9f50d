// Misuse of large objects that were freed and wait in the cache of a CPU: each kind of size goes there on its own way.
#include <malloc.h>
#include <pthread.h>

#include <new>

#include "misuse.h"
#include "pin.h"

namespace {

alignas(64) char g_static_bytes[4096];

// A block that was freed when its size was in use already. Without restartable sequences it is not kept, and its pages
// are free.
char* freed(size_t n) {
  stay_here();
  char* p = nullptr;
  for (int i = 0; i < 3; i++) {
    p = block(n);
    free(p);
  }
  return p;
}

void twice(size_t n) {
  char* p = freed(n);
  free(misuse(p));
}

// What free() has left in the object is gone.
void twice_written_to(size_t n) {
  char* p = freed(n);
  memset(opaque(p), 0x77, 256);
  free(misuse(p));
}

void interior(size_t n, size_t offset) {
  char* p = freed(n);
  free(misuse(p + offset));
}

void interior_of_one_in_use(size_t n, size_t offset) {
  freed(n);
  free(misuse(block(n) + offset));
}

void foreign(size_t n) {
  freed(n);
  free(misuse(g_static_bytes + 64));
}

void reallocated(size_t n) {
  char* p = freed(n);
  free(opaque(realloc(misuse(p), n * 2)));
}

void reallocated_to_zero(size_t n) {
  char* p = freed(n);
  free(opaque(realloc(misuse(p), opaque_size(0))));
}

void asked_for_its_size(size_t n) {
  char* p = freed(n);
  opaque(reinterpret_cast<void*>(malloc_usable_size(misuse(p))));
}

void deleted(size_t n) {
  char* p = freed(n);
  ::operator delete(misuse(p), n);
}

void* free_it(void* p) {
  free(p);
  return nullptr;
}
void freed_by_another_thread(size_t n) {
  freed(n);
  char* p = block(n);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, free_it, p) == 0);
  pthread_join(thread, nullptr);
  free(misuse(p));
}

}  // namespace

// `kind` of size: the smallest bin, bins that hold several and one, the largest, extents.
#define FOR_EACH_SIZE(name, words, call)                                    \
  CASE_FATAL(name##_40_kb, words) { const size_t n = 40000; call; }         \
  CASE_FATAL(name##_64_kib, words) { const size_t n = kMiB / 16; call; }    \
  CASE_FATAL(name##_1_mib, words) { const size_t n = kMiB; call; }          \
  CASE_FATAL(name##_4_mib, words) { const size_t n = 4 * kMiB; call; }      \
  CASE_FATAL(name##_20_mib, words) { const size_t n = 20 * kMiB; call; }

FOR_EACH_SIZE(twice, "free: double free", twice(n))
FOR_EACH_SIZE(twice_written_to, "double free", twice_written_to(n))
FOR_EACH_SIZE(interior, "interior pointer|double free", interior(n, 16))
FOR_EACH_SIZE(interior_page, "interior pointer|double free", interior(n, 16384))
FOR_EACH_SIZE(interior_in_use, "free: interior pointer", interior_of_one_in_use(n, 8))
FOR_EACH_SIZE(interior_tail_in_use, "free: interior pointer", interior_of_one_in_use(n, n - 1))
FOR_EACH_SIZE(foreign, "not from this heap", foreign(n))
FOR_EACH_SIZE(realloc, "realloc: double free", reallocated(n))
FOR_EACH_SIZE(realloc_to_zero, "realloc: double free", reallocated_to_zero(n))
FOR_EACH_SIZE(usable_size, "malloc_usable_size: double free", asked_for_its_size(n))
FOR_EACH_SIZE(sized_delete, "free: double free", deleted(n))
FOR_EACH_SIZE(another_thread, "free: double free", freed_by_another_thread(n))
