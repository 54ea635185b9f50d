/* Writes the JSON of numaheap_stats_json() to stdout, with something alive in two kinds of heap. */
#include <numaheap/numaheap.h>

#include <stdio.h>
#include <stdlib.h>

static char text[1 << 20];

int main(void) {
  void* small = malloc(100);
  void* large = calloc(1, 8 << 20);
  const int length = numaheap_stats_json(text, sizeof text);
  if (length < 0 || (size_t)length >= sizeof text) return 1;
  fwrite(text, 1, (size_t)length, stdout);
  free(small);
  free(large);
  return 0;
}
