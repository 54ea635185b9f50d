// Calls no function of the family itself, only functions of libc that do: the library must come into the program anyway.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

int main(void) {
  const char* copy = strdup("ok");
  if (copy == NULL) return 2;
  puts(copy);
  return 0;
}
