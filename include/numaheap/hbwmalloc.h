/* High-bandwidth memory by the names of memkind's hbwmalloc.h, served by numaheap.
 *
 * For programs that were written for the hbw_ functions: include this header instead of <hbwmalloc.h> and link to numaheap
 * instead of memkind. Names, arguments and results are those that memkind documents for its stable interface. The functions
 * are inline and call names of libnumaheap that begin with numaheap_, so that a process may have memkind as well.
 *
 * High-bandwidth memory is that of nodes which numaheap takes for fast (`numaheap topo` shows them and why) and which
 * the process may use. What is different from memkind:
 *   - hbw_free and hbw_realloc take any pointer of numaheap, and free, numaheap_free and the like take theirs.
 *   - Where the page sizes of hbw_posix_memalign_psize are not to be had, smaller pages serve, as everywhere in numaheap:
 *     the object is aligned so that pages of the size can back it.
 *   - Interleaved memory may be on huge pages: then it is spread huge page by huge page. Where one node only has fast memory
 *     it lies there.
 *   - Memory on machines with several nodes is there when a function returns, so that no later write can fail for the lack
 *     of it.
 *   - MEMKIND_ variables of the environment mean nothing.
 * All functions are thread-safe; none may be called from a signal handler.
 */
#ifndef NUMAHEAP_HBWMALLOC_H
#define NUMAHEAP_HBWMALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What happens when there is not enough high-bandwidth memory, and where it lies. */
typedef enum hbw_policy_t {
  HBW_POLICY_BIND = 1,       /* on the nearest node that has it; NULL and ENOMEM when that is full */
  HBW_POLICY_PREFERRED = 2,  /* as BIND, but the next best memory serves when it is full; the default */
  HBW_POLICY_INTERLEAVE = 3, /* page by page over all nodes that have it */
  HBW_POLICY_BIND_ALL = 4    /* on the nearest node that has it, then on the others; NULL and ENOMEM when all are full */
} hbw_policy_t;

typedef enum hbw_pagesize_t {
  HBW_PAGESIZE_4KB = 1,
  HBW_PAGESIZE_2MB = 2,
  HBW_PAGESIZE_1GB_STRICT = 3, /* sizes that are multiples of 1 GiB */
  HBW_PAGESIZE_1GB = 4
} hbw_pagesize_t;

enum { HBW_TOUCH_PAGES = 1 };

int numaheap_hbw_check_available(void);
void* numaheap_hbw_malloc(size_t size);
void* numaheap_hbw_calloc(size_t count, size_t size);
void* numaheap_hbw_realloc(void* p, size_t size);
void numaheap_hbw_free(void* p);
size_t numaheap_hbw_malloc_usable_size(void* p);
int numaheap_hbw_posix_memalign(void** p, size_t alignment, size_t size);
int numaheap_hbw_posix_memalign_psize(void** p, size_t alignment, size_t size, int pagesize);
int numaheap_hbw_get_policy(void);
int numaheap_hbw_set_policy(int policy);
int numaheap_hbw_verify_memory_region(void* p, size_t size, int flags);

/* 0, or ENODEV where there is no high-bandwidth memory for this process. Then PREFERRED and INTERLEAVE have ordinary memory,
 * the others none. */
static inline int hbw_check_available(void) { return numaheap_hbw_check_available(); }

/* NULL for size 0, and with errno ENOMEM where there is not enough. */
static inline void* hbw_malloc(size_t size) { return numaheap_hbw_malloc(size); }
static inline void* hbw_calloc(size_t nmemb, size_t size) { return numaheap_hbw_calloc(nmemb, size); }

/* ptr NULL: as hbw_malloc. size 0: frees ptr and returns NULL. NULL otherwise: ptr is what it was. */
static inline void* hbw_realloc(void* ptr, size_t size) { return numaheap_hbw_realloc(ptr, size); }
static inline void hbw_free(void* ptr) { numaheap_hbw_free(ptr); }
/* Bytes that may be written at ptr; 0 for NULL. */
static inline size_t hbw_malloc_usable_size(void* ptr) { return numaheap_hbw_malloc_usable_size(ptr); }

/* 0; EINVAL: alignment is no power of two or less than that of a pointer; ENOMEM. size 0: *memptr becomes NULL.
 * With a page size EINVAL also for one that is unknown, for all but 4KB under HBW_POLICY_INTERLEAVE, and for a size that
 * 1GB_STRICT does not take. */
static inline int hbw_posix_memalign(void** memptr, size_t alignment, size_t size) {
  return numaheap_hbw_posix_memalign(memptr, alignment, size);
}
static inline int hbw_posix_memalign_psize(void** memptr, size_t alignment, size_t size, hbw_pagesize_t pagesize) {
  return numaheap_hbw_posix_memalign_psize(memptr, alignment, size, (int)pagesize);
}

/* Once in a process and before the first allocation: 0. Else EPERM; EINVAL for what is no policy. */
static inline int hbw_set_policy(hbw_policy_t mode) { return numaheap_hbw_set_policy((int)mode); }
static inline hbw_policy_t hbw_get_policy(void) { return (hbw_policy_t)numaheap_hbw_get_policy(); }

/* 0: all pages of [addr, addr + size) are high-bandwidth memory. -1: some are not, or nobody has written to them yet; with
 * HBW_TOUCH_PAGES the first byte of each page is read and written back before. EINVAL: addr NULL, size 0, other flags.
 * EFAULT: it cannot be told. */
static inline int hbw_verify_memory_region(void* addr, size_t size, int flags) {
  return numaheap_hbw_verify_memory_region(addr, size, flags);
}

#ifdef __cplusplus
}
#endif

#endif /* NUMAHEAP_HBWMALLOC_H */
