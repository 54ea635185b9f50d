#include "program_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void show_range(const char* name, const void* p, size_t bytes) {
  FILE* file = fopen("/proc/self/smaps", "r");
  demand(file != NULL, "smaps cannot be read");
  const uintptr_t from = (uintptr_t)p, to = from + bytes;
  long thp = 0, mapped = 0, kib;
  int inside = 0;
  for (char line[512]; fgets(line, sizeof line, file) != NULL;) {
    uintptr_t start, end;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
      inside = start < to && end > from;
      if (inside) mapped += (long)((end - start) >> 10);
    } else if (inside && sscanf(line, "AnonHugePages: %ld", &kib) == 1) {
      thp += kib;
    }
  }
  fclose(file);
  printf("%s %ld %ld\n", name, thp, mapped);
  fflush(stdout);
}

void show_rss(void) {
  FILE* file = fopen("/proc/self/status", "r");
  demand(file != NULL, "status cannot be read");
  long kib;
  for (char line[512]; fgets(line, sizeof line, file) != NULL;) {
    if (sscanf(line, "VmRSS: %ld", &kib) == 1) printf("rss %ld\n", kib);
  }
  fclose(file);
  fflush(stdout);
}

void demand(int condition, const char* text) {
  if (condition) return;
  fprintf(stderr, "%s\n", text);
  exit(1);
}
