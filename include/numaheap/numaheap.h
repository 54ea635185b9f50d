/* numaheap: a malloc for Linux HPC machines: huge pages, one heap per NUMA node.
 *
 * Preloading or linking libnumaheap replaces malloc and its family; nothing here is needed for that. This header adds
 * what the C library has no names for: memory that holds no pointers, memory on a certain node, statistics, control.
 *
 * Conventions. Sizes are bytes. All functions share one heap: what any of them returned may be passed to numaheap_free(),
 * numaheap_realloc() and numaheap_usable_size(). Where numaheap is the malloc of the process (preloaded, or linked to the
 * program), that heap is malloc's, and free(), realloc() and malloc_usable_size() take the same pointers. Not so in a
 * process that has another malloc and has only loaded a library which needs libnumaheap.so: a library that may end up there
 * uses the functions with the prefix throughout. Functions that allocate return NULL and set errno to ENOMEM when memory is
 * exhausted or the size exceeds PTRDIFF_MAX. All functions are thread-safe; none may be called from a signal handler unless
 * said so.
 */
#ifndef NUMAHEAP_H
#define NUMAHEAP_H

#include <stddef.h>
#include <stdint.h>

#define NUMAHEAP_VERSION_MAJOR 0
#define NUMAHEAP_VERSION_MINOR 1
#define NUMAHEAP_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0", of the library that runs; "0.1.0+trust-sizes" where it was built with NUMAHEAP_TRUST_SIZES. */
const char* numaheap_version(void);

/* ---- the heap by its own name ---------------------------------------------------------------------------------------
 * As malloc() and its kin, in every process. */
void* numaheap_malloc(size_t size);
void* numaheap_calloc(size_t count, size_t size);
/* alignment: a power of two, else NULL and EINVAL. */
void* numaheap_aligned_alloc(size_t alignment, size_t size);
/* p: from this heap, or NULL. size 0 frees p and returns NULL. */
void* numaheap_realloc(void* p, size_t size);
/* p: from this heap, or NULL. Keeps errno. */
void numaheap_free(void* p);
/* Bytes that may be written at p, at least those that were asked for; 0 for NULL. */
size_t numaheap_usable_size(const void* p);

/* ---- memory without pointers ---------------------------------------------------------------------------------------
 * "noscan" memory holds plain numbers, text, pixels: never pointers. It comes from spans of its own. Objects of 1 to 15
 * bytes are packed tightly; their alignment is the largest power of two that divides the size. Objects of 17 to 24
 * bytes are aligned to 8, all others (size 0 included) to 16. */
void* numaheap_malloc_noscan(size_t size);
void* numaheap_calloc_noscan(size_t count, size_t size);
/* alignment: a power of two, else NULL and EINVAL. */
void* numaheap_aligned_alloc_noscan(size_t alignment, size_t size);

/* ---- placement of single allocations -------------------------------------------------------------------------------
 * malloc() places memory by the policy of the process (NUMAHEAP_POLICY, NUMAHEAP_LARGE). These functions place one
 * object, whatever that policy is. A binding of the process and its cpuset stay in force.
 *
 * A node with too little memory is helped out by the next in the order, unless NUMAHEAP_ALLOC_STRICT is given. When
 * realloc() has to move an object it looks for memory where the object lies, on the same node, interleaved, or by first
 * touch, and if need be elsewhere: strictness belongs to the call, not to the object.
 *
 * On machines with several nodes memory on a node is faulted in when it is allocated, not by the program's first write,
 * so that it cannot end up elsewhere; only the first 2 MiB of a node are left to first writes, which the kernel places on
 * that node while it has room. When a cpuset changes at run time the kernel moves pages, and memory that was allocated
 * while the node was not allowed lies elsewhere and stays there. Where the kernel's automatic balancing is on (`numaheap topo`
 * says so) it moves pages to the nodes from which they are used, and one that was moved while an earlier object lay in it
 * stays there. Only the nodes that a process or NUMAHEAP_POLICY is bound to are kept to then.
 *
 * Nodes have the kernel's numbers, which may have gaps. */

enum numaheap_where {
  /* On the node of the running CPU, large objects too; if that has no memory or may not be used, on the nearest one. */
  NUMAHEAP_LOCAL = 0,
  NUMAHEAP_ON_NODE = 1,
  /* Spread over the nodes of NUMAHEAP_POLICY=interleave:NODES, else over all ordinary ones, page by page. A page may have
   * 2 MiB: most objects that are smaller lie on one node each. */
  NUMAHEAP_INTERLEAVED = 2,
  /* Each page on the node of the thread that first writes to it. Objects of more than 32 KiB take whole pages of 2 MiB
   * of address space for it; smaller ones share pages with others and are placed as with NUMAHEAP_LOCAL. */
  NUMAHEAP_FIRST_TOUCH = 3,
  /* Where the memory is that is best for something, as far as the machine tells (`numaheap topo`): on the nearest to the
   * running CPU of the nodes that are equally good, and when that is full on the next nearest, then on the next best. Memory
   * of a GPU never counts. Where all memory is of one kind this is the nearest, as with NUMAHEAP_LOCAL. Capacity is that of
   * the largest memory, which is slow where there are several kinds. */
  NUMAHEAP_BANDWIDTH = 4,
  NUMAHEAP_LATENCY = 5,
  NUMAHEAP_CAPACITY = 6,
  /* As NUMAHEAP_INTERLEAVED, over the nodes of NUMAHEAP_POLICY=weighted:NODES, else over all nodes, fast and slow ones too,
   * but on each by its weight: the kernel's (Linux 6.9, /sys/kernel/mm/mempolicy/weighted_interleave), before that its
   * bandwidth in units of 2 MiB, or evenly where the machine does not tell bandwidths. */
  NUMAHEAP_WEIGHTED = 7
};

enum numaheap_alloc_flags {
  NUMAHEAP_ALLOC_STRICT = 1, /* no other node may help out: NULL and ENOMEM instead. Of the nodes that are best for something
                              * only the nearest serves. Not with NUMAHEAP_FIRST_TOUCH. */
  NUMAHEAP_ALLOC_ZERO = 2,   /* all bytes are zero */
  NUMAHEAP_ALLOC_NOSCAN = 4  /* holds no pointers: 17 to 24 bytes, aligned to 8 or less, are packed more densely */
};

typedef struct numaheap_placement {
  int32_t where;  /* enum numaheap_where */
  int32_t node;   /* for NUMAHEAP_ON_NODE */
  uint32_t flags; /* of enum numaheap_alloc_flags, or 0 */
} numaheap_placement;

/* alignment: a power of two, or 0 for malloc's 16 (with NUMAHEAP_ALLOC_NOSCAN 8 for 17 to 24 bytes). size 0: a pointer of
 * its own, to be freed. Errors, all with NULL:
 *   EINVAL  a bad alignment, placement, where or flag; a node that does not exist or has no memory
 *   EPERM   the node is outside the cpuset or the binding of this process; strict: the kernel does not let us bind memory
 *           (default containers), so that nothing can be promised
 *   ENOMEM  no memory, if strict none on this node; or a size above PTRDIFF_MAX */
void* numaheap_alloc(size_t size, size_t alignment, const numaheap_placement* placement);

/* The same in short, without alignment. */
void* numaheap_malloc_on_node(size_t size, int node);
void* numaheap_malloc_on_node_strict(size_t size, int node);
void* numaheap_malloc_interleaved(size_t size);
void* numaheap_malloc_first_touch(size_t size);
void* numaheap_malloc_local(size_t size);

/* Whether memory lies where the placement asks for it, as the kernel tells it of each page of [p, p + size); it may be any
 * memory, and was perhaps never asked for like this. 1: all pages lie there. 0: some do not. Pages that nobody has written to
 * so far lie nowhere and do not count. A system call for each 64 pages.
 *   NUMAHEAP_LOCAL, _ON_NODE  on that node
 *   NUMAHEAP_BANDWIDTH, _LATENCY, _CAPACITY  on one of the nodes that are equally good, not on the next best; with
 *                             NUMAHEAP_ALLOC_STRICT on the nearest of them
 *   NUMAHEAP_INTERLEAVED, _WEIGHTED  on no other nodes, and on each of them its share, give or take 2 MiB and a sixteenth
 *                             of the whole
 * -1 and errno where that cannot be told:
 *   EINVAL  a bad placement, where or flag; NUMAHEAP_FIRST_TOUCH, which says nothing about nodes; a node that does not exist
 *           or has no memory; size 0
 *   EFAULT  there is no memory in some of the range
 *   ENOENT  nobody has written to any of its pages
 *   EPERM, ENOSYS  the kernel does not tell (default containers, kernels without NUMA)
 *   ENOMEM  no address space for a heap */
int numaheap_verify(const void* p, size_t size, const numaheap_placement* placement);

/* The nodes that may be asked for: those with memory in the cpuset and the binding of this process, by number. 0: no
 * address space for a heap. Nodes of device memory (a GPU's) are not listed, but may be asked for, too. */
unsigned numaheap_node_count(void);
/* The number of the index-th of them; -1 and EINVAL past the last one. */
int numaheap_node_id(unsigned index);
/* The one that NUMAHEAP_LOCAL means here and now; -1 and ENOMEM where there is no heap. */
int numaheap_local_node(void);

/* The node of the page that p points into, as the kernel tells it; p may be any address. -1 and errno otherwise:
 *   ENOENT  nobody has written to this page so far, so it lies nowhere yet
 *   EFAULT  there is no memory at this address
 *   EPERM, ENOSYS  the kernel does not tell (default containers, kernels without NUMA) */
int numaheap_node_of(const void* p);

/* ---- control -----------------------------------------------------------------------------------------------------*/

/* Empties the caches of all CPUs and gives free memory back to the operating system: all units of 2 MiB in which
 * nothing is left, whatever their age, those inside huge pages of 1 GiB excepted. Returns the bytes released.
 * malloc_trim() does the same. */
size_t numaheap_trim(void);

/* Decides anew whether this process is bound to one node or spans several, by the CPUs that the calling thread may run
 * on, as was done when the library started: for a program that has bound itself since, or was taken for one that spans
 * nodes because a thread of it ran elsewhere for a moment. Returns the node that it is bound to, -1 where it spans nodes.
 * Objects that exist stay where they are. */
int numaheap_rebind(void);

/* ---- statistics ----------------------------------------------------------------------------------------------------
 * Numbers are a snapshot taken piece by piece while other threads go on; sums may be off by what moved meanwhile. */

enum numaheap_heap_kind {
  NUMAHEAP_HEAP_NODE = 0,        /* memory of one node */
  NUMAHEAP_HEAP_FIRST_TOUCH = 1, /* large objects, placed by the threads that first write to them */
  NUMAHEAP_HEAP_INTERLEAVED = 2, /* spread over the nodes page by page */
  NUMAHEAP_HEAP_WEIGHTED = 3,    /* the same by weights */
  NUMAHEAP_HEAP_INTERLEAVED_FAST = 4 /* spread over the nodes with fast memory, for numaheap/hbwmalloc.h */
};

typedef struct numaheap_heap_stats {
  int32_t node;             /* the kernel's number, -1 for a heap of no node in particular */
  int32_t kind;             /* enum numaheap_heap_kind */
  uint64_t live_bytes;      /* in objects that the program holds, rounded up to their size classes */
  uint64_t cached_bytes;    /* in free objects of caches and transfer caches */
  uint64_t free_bytes;      /* committed, but in no span */
  uint64_t committed_bytes; /* memory that may be used and was not given back, touched or not; = hugetlb + thp + base */
  uint64_t released_bytes;  /* given back so far, all in all */
  uint64_t hugetlb_bytes;   /* committed on pages of a hugetlb pool */
  uint64_t thp_bytes;       /* committed, advised to be transparent huge pages; the kernel may have had none */
  uint64_t base_bytes;      /* committed on base pages */
  uint64_t metadata_bytes;  /* the allocator's own structures */
  uint64_t arenas;          /* address space taken so far, in units of 64 MiB */
  uint64_t spans;
  uint64_t large_objects;
  uint64_t refills;         /* batches of objects handed to CPU caches */
  uint64_t flushes;         /* batches that came back */
  uint64_t remote_frees;    /* objects that came back from CPUs of other nodes */
  uint64_t foreign_serves;  /* requests served for other nodes whose memory was exhausted */
  uint64_t served_objects;  /* objects handed out: to the caches of CPUs in batches, large ones one by one */
  uint64_t local_objects;   /* those of them that CPUs of this node asked for; 0 for a heap of no node */
} numaheap_heap_stats;

/* The number of heaps: one per node with memory, then first touch, then interleaved; then, on machines with several nodes,
 * weighted; then, where several have fast memory, interleaved over these. 0: no address space for a heap. */
unsigned numaheap_heap_count(void);
/* Fills *out for heap `index`. size: sizeof *out as the caller knows it, so that fields can be added. 0, or -1 with
 * errno EINVAL for an index past the last heap or out == NULL. */
int numaheap_get_heap_stats(unsigned index, numaheap_heap_stats* out, size_t size);

/* System calls made so far to change memory (mmap, munmap, mremap, mprotect, madvise, mbind). Does not move while the
 * heap is warm. Callable anywhere, signal handlers included. */
uint64_t numaheap_memory_syscalls(void);

/* How the CPU caches work here: "rseq" (libc's registration), "own-rseq" (ours), "fallback" (locks; no restartable
 * sequences on this system) or "off" (NUMAHEAP_CPU_CACHE=0). */
const char* numaheap_cache_mode(void);

/* The statistics as text for people, and as JSON. Writes at most capacity - 1 bytes and a NUL, and returns the length
 * of the whole text without NUL, as snprintf does; 0 where there is no heap. Allocates nothing.
 * Keys of the JSON, stable:
 *   version, pid, cache_mode, topology, memory_syscalls,
 *   fallbacks: an object, name of what had to be done without -> how often,
 *   nodes: an array with an object per heap: id (-1: of no node), kind ("node", "first_touch", "interleaved", "weighted",
 *   "interleaved_fast"), and the remaining fields of numaheap_heap_stats by name.
 * The file that NUMAHEAP_STATS asks for has one key more, memory: what the kernel counts in RAM, an array with an object
 * for each part ("heap", "static", "code", "stacks", "other"): ram_bytes = hugetlb_bytes + thp_bytes + base_bytes, and
 * node_bytes, an object, node -> bytes, empty on a machine with one node. */
int numaheap_stats_text(char* buffer, size_t capacity);
int numaheap_stats_json(char* buffer, size_t capacity);

/* ---- heap profile ----------------------------------------------------------------------------------------------------
 * Who holds the memory: about one object in every `interval` bytes (0: 512 KiB) is sampled, with the stack that allocated
 * it. NUMAHEAP_PROFILE does all of this without a change of the program. Objects that were allocated before the start are
 * not seen. While it is on, an allocation costs some nanoseconds more. */
/* Starts sampling, or changes the interval. 0, or -1 and errno: ENOMEM, ENOTSUP (a library built to trust sizes). */
int numaheap_profile_start(size_t interval);
/* Ends it. Objects that were sampled are followed until they are freed. */
void numaheap_profile_stop(void);
/* Writes what was sampled so far, in the text form that google-pprof and pprof read. In the name %p, %h, %r and %e stand for
 * process id, host, rank and program. 0, or -1 and errno (EINVAL: nothing was ever sampled). May be called from a signal
 * handler. */
int numaheap_profile_dump(const char* path);

/* ---- leaks -----------------------------------------------------------------------------------------------------------
 * Objects that were not freed and that nothing points to any more: no static data, thread-local storage, stack or register
 * of any thread, no memory of the program's own mappings, and no object that can be reached from there. Whatever looks like
 * a pointer to an object or into it counts as one, so some leaks are missed. Objects that were asked for as memory without
 * pointers (noscan) keep no others. A program that hides pointers (xor, offsets, tags in high bits, memory shared with other
 * processes) has objects taken for lost that are not. NUMAHEAP_LEAKS=1 looks at exit, without a change of the program. */
typedef struct numaheap_leaks {
  uint64_t direct_objects; /* no other lost object points to them; of a ring one object counts as that */
  uint64_t direct_bytes;   /* rounded up to size classes */
  uint64_t indirect_objects; /* only lost ones point to them */
  uint64_t indirect_bytes;
  uint64_t running_threads; /* that block all signals, and could not be stopped: what only their registers hold counts as
                             * lost, and what they changed meanwhile may */
} numaheap_leaks;
/* Looks for them and fills *out (unless it is NULL; size: sizeof *out as the caller knows it). Writes a report to the
 * descriptor fd, unless that is negative: by size class, or by the places that allocated them while a heap profile was on, an
 * estimate from samples then. All other threads are stopped meanwhile, for 0.1 s or less for each 100 MiB, by a real-time
 * signal that the program has no handler for: calls of theirs that no handler lets go on, such as poll(), end with EINTR. 0,
 * or -1 and errno:
 *   ENOMEM  no address space for the tables, a 30th of the heap's
 *   EAGAIN  the heap grows too fast
 *   ENOENT  /proc is not there
 *   others  the report could not be written */
int numaheap_find_leaks(numaheap_leaks* out, size_t size, int fd);

#ifdef __cplusplus
}
#endif

#endif /* NUMAHEAP_H */
