// The functions of numaheap.h that are not reports.
#include <numaheap/numaheap.h>

#include <cerrno>
#include <cstring>

#include "api/heap_calls.h"
#include "process/large_home.h"
#include "process/leaks.h"
#include "process/process.h"
#include "process/profile.h"
#include "process/sampling.h"
#include "process/stats.h"
#include "process/upkeep.h"
#include "base/bits.h"
#include "base/build.h"
#include "os/os.h"

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]
#define NH_STRING_(x) #x
#define NH_STRING(x) NH_STRING_(x)
#define NH_VERSION NH_STRING(NUMAHEAP_VERSION_MAJOR) "." NH_STRING(NUMAHEAP_VERSION_MINOR) "." NH_STRING(NUMAHEAP_VERSION_PATCH)

NH_EXPORT const char* numaheap_version() { return nh::kTrustSizes ? NH_VERSION "+trust-sizes" : NH_VERSION; }

// Not the functions without our prefix: a process that has another malloc has those from elsewhere.
NH_EXPORT void* numaheap_malloc(size_t size) { return nh::allocate(size); }

NH_EXPORT void* numaheap_calloc(size_t count, size_t size) { return nh::allocate_zeroed(count, size); }

NH_EXPORT void* numaheap_aligned_alloc(size_t alignment, size_t size) {
  if (!nh::is_pow2(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return nh::allocate_aligned(alignment, size);
}

NH_EXPORT void* numaheap_realloc(void* p, size_t size) { return nh::reallocate(p, size); }

NH_EXPORT void numaheap_free(void* p) { nh::release(p); }

NH_EXPORT size_t numaheap_usable_size(const void* p) { return nh::usable_size(p); }

NH_EXPORT void* numaheap_malloc_noscan(size_t size) { return nh::allocate_noscan(size); }

NH_EXPORT void* numaheap_calloc_noscan(size_t count, size_t size) { return nh::allocate_zeroed(count, size, true); }

NH_EXPORT void* numaheap_aligned_alloc_noscan(size_t alignment, size_t size) {
  if (!nh::is_pow2(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return nh::allocate_aligned(alignment, size, true);
}

NH_EXPORT size_t numaheap_trim() { return nh::started() ? nh::trim_all() : 0; }

NH_EXPORT int numaheap_rebind() { return nh::ensure_started() ? nh::rebind_large().value : -1; }

NH_EXPORT unsigned numaheap_heap_count() { return nh::ensure_started() ? nh::reported_heaps() : 0; }

NH_EXPORT int numaheap_get_heap_stats(unsigned index, numaheap_heap_stats* out, size_t size) {
  if (index >= numaheap_heap_count() || out == nullptr) {
    errno = EINVAL;
    return -1;
  }
  uint64_t cached[nh::kMaxHeaps];
  nh::g_caches.totals(cached);
  const numaheap_heap_stats stats = nh::collect_heap(index, cached);
  // A caller of another version knows fewer fields, or more: those read as zero.
  std::memset(out, 0, size);
  std::memcpy(out, &stats, size < sizeof stats ? size : sizeof stats);
  return 0;
}

NH_EXPORT uint64_t numaheap_memory_syscalls() { return nh::memory_syscalls(); }

NH_EXPORT const char* numaheap_cache_mode() {
  nh::ensure_started();
  return nh::cache_mode_name(nh::g_caches.mode());
}

NH_EXPORT int numaheap_profile_start(size_t interval) {
  const int error = nh::ensure_started() ? nh::start_sampling(interval) : ENOMEM;
  if (error == 0) return 0;
  errno = error;
  return -1;
}

NH_EXPORT void numaheap_profile_stop() {
  if (nh::started()) nh::stop_sampling();
}

NH_EXPORT int numaheap_find_leaks(numaheap_leaks* out, size_t size, int fd) {
  numaheap_leaks leaks = {};
  const int error = nh::ensure_started() ? nh::find_leaks(&leaks, fd) : ENOMEM;
  // As for numaheap_get_heap_stats().
  if (out != nullptr) {
    std::memset(out, 0, size);
    std::memcpy(out, &leaks, size < sizeof leaks ? size : sizeof leaks);
  }
  if (error == 0) return 0;
  errno = error;
  return -1;
}

NH_EXPORT int numaheap_profile_dump(const char* path) {
  const int error = nh::write_profile(path, false);
  if (error == 0) return 0;
  errno = error;
  return -1;
}
