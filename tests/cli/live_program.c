// What `numaheap stat`, `top` and `map` look at in live_test.py: a process that has allocated what the arguments say, and tells
// what its own statistics are.
//
//   live_program THREADS [fork|LIBRARY]    LIBRARY: opened by dlopen; its heap is used, not malloc
//
// Every thread, and a fork child once more, keeps 1000 objects of 100 bytes, frees 500 more, and keeps two of 10 MiB, written
// to; besides a few that are aligned to pages or placed on a node, which have heaps and lists of their own. The first thread
// frees 500 objects of each of the others. For every byte on standard input the process prints its statistics as JSON and a
// line with a dot; with 'e' it becomes `sleep 100`, with 'f' it allocates and frees until it is killed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void* (*get)(size_t) = malloc;
static void (*put)(void*) = free;
static void* (*get_aligned)(size_t, size_t) = aligned_alloc;
static void* (*get_placed)(size_t);
static int (*json)(char*, size_t);
int numaheap_stats_json(char* buffer, size_t capacity) __attribute__((weak));
void* numaheap_malloc_local(size_t size) __attribute__((weak));

static void* volatile keep;

static void allocate(void) {
  void* freed[500];
  for (int i = 0; i < 1000; i++) keep = memset(get(100), 1, 100);
  for (int i = 0; i < 500; i++) keep = freed[i] = get(100);
  for (int i = 0; i < 500; i++) put(freed[i]);
  for (int i = 0; i < 10; i++) keep = get_aligned(4096, 4096);
  for (int i = 0; i < 10; i++) put(keep = get_placed(200)), keep = get_placed(200);
  for (int i = 0; i < 2; i++) keep = memset(get(10 << 20), 1, 10 << 20);
}

static pthread_barrier_t done;
static void* handed_over[64][500];

static void* thread(void* mine) {
  allocate();
  for (int i = 0; i < 500; i++) ((void**)mine)[i] = get(100);
  pthread_barrier_wait(&done);
  for (;;) pause();
  return mine;
}

static void answer(void) {
  static char text[1 << 18];
  char c = 0;
  while (read(0, &c, 1) == 1) {
    if (c == 'e') execlp("sleep", "sleep", "100", (char*)0);
    while (c == 'f') {
      void* objects[3000];
      for (int i = 0; i < 3000; i++) objects[i] = get(16 + i % 3000 * 11);
      for (int i = 0; i < 3000; i++) put(objects[i]);
      put(memset(get(5 << 20), 1, 5 << 20));
    }
    const int n = json(text, sizeof text);
    memcpy(text + n, ".\n", 2);
    if (write(1, text, n + 2) < 0) return;
  }
}

int main(int argc, char** argv) {
  const int threads = atoi(argv[1]);
  json = numaheap_stats_json;
  get_placed = numaheap_malloc_local;
  if (argc > 2 && argv[2][0] == '/') {
    void* library = dlopen(argv[2], RTLD_NOW);
    if (library == NULL) return puts(dlerror()), 1;
    *(void**)&get = dlsym(library, "numaheap_malloc");
    *(void**)&get_aligned = dlsym(library, "numaheap_aligned_alloc");
    *(void**)&get_placed = dlsym(library, "numaheap_malloc_local");
    *(void**)&put = dlsym(library, "numaheap_free");
    *(void**)&json = dlsym(library, "numaheap_stats_json");
  }
  pthread_barrier_init(&done, NULL, threads);
  for (int i = 1; i < threads; i++) {
    pthread_t id;
    if (pthread_create(&id, NULL, thread, handed_over[i]) != 0) return 1;
  }
  allocate();
  pthread_barrier_wait(&done);
  for (int i = 1; i < threads; i++) {
    for (int k = 0; k < 500; k++) put(handed_over[i][k]);
  }
  if (argc > 2 && strcmp(argv[2], "fork") == 0) {
    if (fork() != 0) {
      pause();
      return 0;
    }
    allocate();
  }
  answer();
  return 0;
}
