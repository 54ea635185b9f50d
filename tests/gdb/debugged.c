/* A program to be looked at by gdb (gdb_test.py): it stops where everything is known. */
#include <stdlib.h>
#include <string.h>

void *small, *freed, *large, *kept, *interior;
char of_nobody[64];

__attribute__((noinline)) void stop_here(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) static void* place(size_t bytes) {
  void* p = malloc(bytes);
  __asm__ volatile("" : : "r"(p) : "memory");
  return p;
}

int main(void) {
  small = place(100);
  freed = place(200);
  large = place(20 << 20);
  kept = place(100000);
  interior = (char*)place(1000) + 40;
  memset(small, 1, 100);
  free(freed);
  stop_here();
  return 0;
}
