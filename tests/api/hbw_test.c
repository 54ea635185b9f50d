/* numaheap/hbwmalloc.h against what it says of the functions, on a machine of any kind. A process each, since the policy is
 * set once:
 *
 *   api_hbw_test preferred|bind|bind_all|interleave
 *
 * Where memory lies on machines that have fast memory is shown in ../numa_vm and, by the heaps, in ../process. */
#include <numaheap/hbwmalloc.h>
#include <numaheap/numaheap.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int failed;
#define EXPECT(condition)                                             \
  do {                                                                \
    if (!(condition)) failed = 1, printf("%d: %s\n", __LINE__, #condition); \
  } while (0)

static const size_t kSizes[] = {1, 8, 100, 4096, 32768, 40000, 3 << 20, 20 << 20};

static void policies(hbw_policy_t wanted) {
  EXPECT(hbw_get_policy() == HBW_POLICY_PREFERRED);
  EXPECT(hbw_set_policy((hbw_policy_t)0) == EINVAL);
  EXPECT(hbw_set_policy((hbw_policy_t)5) == EINVAL);
  if (wanted != HBW_POLICY_PREFERRED) EXPECT(hbw_set_policy(wanted) == 0);
  EXPECT(hbw_get_policy() == wanted);
  hbw_free(hbw_malloc(1));
  EXPECT(hbw_set_policy(HBW_POLICY_PREFERRED) == EPERM);
  EXPECT(hbw_get_policy() == wanted);
}

/* serves: there is memory for this policy. */
static void objects(int serves) {
  for (size_t i = 0; i < sizeof kSizes / sizeof kSizes[0]; i++) {
    errno = 0;
    char* p = hbw_malloc(kSizes[i]);
    EXPECT((p != NULL) == serves);
    if (p == NULL) {
      EXPECT(errno == ENOMEM);
      continue;
    }
    EXPECT((uintptr_t)p % 16 == 0);
    EXPECT(hbw_malloc_usable_size(p) >= kSizes[i]);
    memset(p, 0x5a, kSizes[i]);
    p = hbw_realloc(p, 3 * kSizes[i]);
    EXPECT(p != NULL && p[0] == 0x5a && p[kSizes[i] - 1] == 0x5a);
    p = hbw_realloc(p, kSizes[i] / 2 + 1);
    EXPECT(p != NULL && p[kSizes[i] / 2] == 0x5a);
    hbw_free(p);
    p = hbw_calloc(kSizes[i], 2);
    size_t zeroes = 0;
    while (p != NULL && zeroes < 2 * kSizes[i] && p[zeroes] == 0) zeroes++;
    EXPECT(zeroes == 2 * kSizes[i]);
    EXPECT(hbw_realloc(p, 0) == NULL);
    p = hbw_realloc(NULL, kSizes[i]);
    EXPECT(p != NULL);
    free(p); /* the same heap */
  }
  EXPECT(hbw_malloc(0) == NULL);
  EXPECT(hbw_calloc(0, 8) == NULL && hbw_calloc(8, 0) == NULL);
  errno = 0;
  EXPECT(hbw_calloc(SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
  errno = 0;
  EXPECT(hbw_malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM);
  hbw_free(NULL);
  EXPECT(hbw_malloc_usable_size(NULL) == 0);
}

static void aligned(int serves, hbw_policy_t policy) {
  void* const untouched = &failed;
  void* p = untouched;
  EXPECT(hbw_posix_memalign(&p, 24, 100) == EINVAL);
  EXPECT(hbw_posix_memalign(&p, sizeof(void*) / 2, 100) == EINVAL);
  EXPECT(hbw_posix_memalign_psize(&p, 64, 100, (hbw_pagesize_t)9) == EINVAL);
  EXPECT(hbw_posix_memalign_psize(&p, 64, 100, HBW_PAGESIZE_1GB_STRICT) == EINVAL);
  EXPECT(p == untouched);
  EXPECT(hbw_posix_memalign(&p, 64, 0) == 0 && p == NULL);
  for (size_t alignment = sizeof(void*); alignment <= 4 << 20; alignment *= 4) {
    errno = 77;
    EXPECT(hbw_posix_memalign(&p, alignment, 1000) == (serves ? 0 : ENOMEM));
    EXPECT(errno == 77);
    if (!serves) continue;
    EXPECT((uintptr_t)p % alignment == 0);
    memset(p, 1, 1000);
    hbw_free(p);
  }
  const struct { hbw_pagesize_t page; size_t bytes, size; } pages[] = {
      {HBW_PAGESIZE_4KB, 4096, 100}, {HBW_PAGESIZE_2MB, 2 << 20, 100}, {HBW_PAGESIZE_1GB, 1 << 30, 100}};
  for (size_t i = 0; i < 3; i++) {
    const int refused = policy == HBW_POLICY_INTERLEAVE && pages[i].page != HBW_PAGESIZE_4KB;
    EXPECT(hbw_posix_memalign_psize(&p, 64, pages[i].size, pages[i].page) == (refused ? EINVAL : serves ? 0 : ENOMEM));
    if (refused || !serves) continue;
    if (pages[i].page != HBW_PAGESIZE_4KB) EXPECT((uintptr_t)p % pages[i].bytes == 0);
    hbw_free(p);
  }
}

static void verified(int available) {
  static char ordinary[4096];
  EXPECT(hbw_verify_memory_region(NULL, 10, 0) == EINVAL);
  EXPECT(hbw_verify_memory_region(ordinary, 0, 0) == EINVAL);
  EXPECT(hbw_verify_memory_region(ordinary, 10, 2) == EINVAL);
  ordinary[0] = 7;
  EXPECT(hbw_verify_memory_region(ordinary, 10, HBW_TOUCH_PAGES) == -1);
  EXPECT(ordinary[0] == 7);
  char* map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(hbw_verify_memory_region(map, 8192, 0) == -1);
  munmap(map, 8192);
  EXPECT(hbw_verify_memory_region(map, 8192, 0) == EFAULT);
  char* p = hbw_malloc(100000);
  if (p == NULL) return;
  EXPECT(hbw_verify_memory_region(p, 100000, HBW_TOUCH_PAGES) == (available ? 0 : -1));
  hbw_free(p);
}

int main(int count, char** words) {
  static const char* const names[] = {"", "bind", "preferred", "interleave", "bind_all"};
  int policy = 0;
  for (int i = 1; count == 2 && i < 5; i++) policy = strcmp(words[1], names[i]) == 0 ? i : policy;
  if (policy == 0) return 2;
  const int available = hbw_check_available();
  EXPECT(available == 0 || available == ENODEV);
  const int serves = available == 0 || policy == HBW_POLICY_PREFERRED || policy == HBW_POLICY_INTERLEAVE;
  policies((hbw_policy_t)policy);
  objects(serves);
  aligned(serves, (hbw_policy_t)policy);
  verified(available == 0);
  return failed;
}
