// A C program with threads and a fork, all of which use the heap.
#include <numaheap/numaheap.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void* work(void* argument) {
  const unsigned char mark = (unsigned char)(uintptr_t)argument;
  for (size_t size = 1; size < 200000; size = size * 3 / 2 + 1) {
    unsigned char* p = malloc(size);
    if (p == NULL) return NULL;
    memset(p, mark, size);
    p = realloc(p, size * 2);
    if (p == NULL || p[size - 1] != mark) return NULL;
    free(p);
  }
  return argument;
}

int main(void) {
  pthread_t threads[4];
  for (uintptr_t i = 0; i < 4; i++) {
    if (pthread_create(&threads[i], NULL, work, (void*)(i + 1)) != 0) return 2;
  }
  for (uintptr_t i = 0; i < 4; i++) {
    void* result = NULL;
    pthread_join(threads[i], &result);
    if (result != (void*)(i + 1)) return 3;
  }
  void* aligned = NULL;
  if (posix_memalign(&aligned, 4096, 100) != 0 || (uintptr_t)aligned % 4096 != 0) return 4;
  const int node = numaheap_node_id(0);
  double* placed = numaheap_malloc_on_node(1000 * sizeof *placed, node);
  if (placed == NULL) return 6;
  placed[999] = 1;
  placed = realloc(placed, 100000 * sizeof *placed);
  if (placed == NULL || placed[999] != 1) return 7;
  free(placed);
  const pid_t child = fork();
  if (child == 0) _exit(work((void*)5) == (void*)5 ? 0 : 1);
  int status = 1;
  if (waitpid(child, &status, 0) != child || status != 0) return 5;
  free(aligned);
  puts("ok");
  return 0;
}
