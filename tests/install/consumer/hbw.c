// A program that was written for memkind's hbwmalloc.h.
#include <numaheap/hbwmalloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  const int available = hbw_check_available() == 0;
  if (hbw_set_policy(HBW_POLICY_PREFERRED) != 0 || hbw_get_policy() != HBW_POLICY_PREFERRED) return 2;
  const size_t n = 300000;
  double* field = hbw_malloc(n * sizeof *field);
  double* zeroes = hbw_calloc(n, sizeof *zeroes);
  if (field == NULL || zeroes == NULL) return 3;
  for (size_t i = 0; i < n; i++) field[i] = (double)i + zeroes[i];
  field = hbw_realloc(field, 2 * n * sizeof *field);
  if (field == NULL || field[n - 1] != (double)(n - 1)) return 4;
  if (hbw_malloc_usable_size(field) < 2 * n * sizeof *field) return 5;
  void* aligned = NULL;
  if (hbw_posix_memalign(&aligned, 128, 1000) != 0 || (uintptr_t)aligned % 128 != 0) return 6;
  void* huge = NULL;
  if (hbw_posix_memalign_psize(&huge, 64, 3 << 20, HBW_PAGESIZE_2MB) != 0 || (uintptr_t)huge % (2 << 20) != 0) return 7;
  if (hbw_verify_memory_region(field, n * sizeof *field, HBW_TOUCH_PAGES) != (available ? 0 : -1)) return 8;
  if (hbw_set_policy(HBW_POLICY_BIND) == 0) return 9;
  hbw_free(field);
  hbw_free(zeroes);
  hbw_free(aligned);
  free(huge);  // the same heap
  puts("ok");
  return 0;
}
