// The C malloc family, with glibc's contract where the standards leave a choice (glibc 2.36).
#include <cerrno>
#include <cstdint>

#include <malloc.h>

#include "api/heap_calls.h"
#include "process/malloc_info.h"
#include "process/process.h"
#include "process/upkeep.h"
#include "base/bits.h"

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]
// Each at the start of a cache line: where a fast path falls across lines is worth up to 12 %, and would otherwise change
// with every edit of the code before it.
#define NH_EXPORT_HOT NH_EXPORT [[gnu::aligned(64)]]
// glibc declares these noexcept.
#define NH_ALIAS(target) __attribute__((alias(#target), copy(target), visibility("default")))

using namespace nh;

NH_EXPORT_HOT void* malloc(std::size_t size) noexcept { return allocate(size); }
NH_EXPORT_HOT void free(void* p) noexcept { release(p); }
NH_EXPORT void* calloc(std::size_t count, std::size_t size) noexcept { return allocate_zeroed(count, size); }
NH_EXPORT void* realloc(void* p, std::size_t size) noexcept { return reallocate(p, size); }

NH_EXPORT void* reallocarray(void* p, std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return reallocate(p, bytes);
}

namespace {

// glibc rounds an alignment that is no power of two up to one, and takes anything up to half of the address space.
[[gnu::noinline]] void* memalign_slow(std::size_t alignment, std::size_t size) {
  if (is_pow2(alignment)) return allocate_aligned(alignment, size);
  if (alignment > SIZE_MAX / 2 + 1) {
    errno = EINVAL;
    return nullptr;
  }
  return allocate_aligned(alignment == 0 ? 16 : std::size_t{1} << log2_ceil(alignment), size);
}

// Leaves *out alone on failure. Like glibc's, it leaves ENOMEM in errno, too: programs report it by perror().
[[gnu::noinline]] int posix_memalign_slow(void** out, std::size_t alignment, std::size_t size) {
  if (!is_pow2(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  const int saved = errno;
  void* p = allocate_aligned(alignment, size);
  if (p == nullptr) return ENOMEM;
  errno = saved;
  *out = p;
  return 0;
}

// Without the frame that the slow ways need.
[[gnu::noinline]] void* memalign_paged(std::size_t alignment, std::size_t size) {
  void* p;
  return allocate_paged_fast(alignment, size, &p) ? p : memalign_slow(alignment, size);
}
[[gnu::noinline]] int posix_memalign_paged(void** out, std::size_t alignment, std::size_t size) {
  void* p;
  if (!allocate_paged_fast(alignment, size, &p)) return posix_memalign_slow(out, alignment, size);
  *out = p;
  return 0;
}

}  // namespace

NH_EXPORT_HOT void* memalign(std::size_t alignment, std::size_t size) noexcept {
  void* p;
  return allocate_aligned_fast(alignment, size, &p) ? p : memalign_paged(alignment, size);
}

NH_EXPORT_HOT int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
  void* p;
  if (alignment >= sizeof(void*) && allocate_aligned_fast(alignment, size, &p)) [[likely]] {
    *out = p;
    return 0;
  }
  return posix_memalign_paged(out, alignment, size);
}

NH_EXPORT void* valloc(std::size_t size) noexcept { return allocate_aligned(kOsPageSize, size); }

NH_EXPORT void* pvalloc(std::size_t size) noexcept {
  if (size > SIZE_MAX - kOsPageSize) {
    errno = ENOMEM;
    return nullptr;
  }
  return allocate_aligned(kOsPageSize, align_up(size, kOsPageSize));
}

NH_EXPORT std::size_t malloc_usable_size(void* p) noexcept { return usable_size(p); }

// C23. The size must be the one that was asked for.
NH_EXPORT void free_sized(void* p, std::size_t size) noexcept { release_sized_fast(p, size, 1, false); }
NH_EXPORT void free_aligned_sized(void* p, std::size_t alignment, std::size_t size) noexcept {
  // memalign() rounded it up, too.
  if (!is_pow2(alignment) && alignment <= SIZE_MAX / 2) alignment = alignment == 0 ? 1 : std::size_t{1} << log2_ceil(alignment);
  release_sized_fast(p, size, alignment, false);
}

// None of glibc's parameters means anything here; 1 says that it was taken, as programs expect.
NH_EXPORT int mallopt(int, int) noexcept { return 1; }

NH_EXPORT int malloc_trim(std::size_t) noexcept {
  const int saved = errno;
  const std::size_t released = started() ? trim_all() : 0;
  errno = saved;
  return released != 0;
}

NH_EXPORT struct mallinfo2 mallinfo2() noexcept { return collect_mallinfo(); }

NH_EXPORT struct mallinfo mallinfo() noexcept {
  const struct mallinfo2 wide = collect_mallinfo();
  struct mallinfo narrow = {};
  // The old interface has int fields; glibc lets them wrap, too.
  narrow.arena = static_cast<int>(wide.arena);
  narrow.hblks = static_cast<int>(wide.hblks);
  narrow.hblkhd = static_cast<int>(wide.hblkhd);
  narrow.uordblks = static_cast<int>(wide.uordblks);
  narrow.fordblks = static_cast<int>(wide.fordblks);
  narrow.keepcost = static_cast<int>(wide.keepcost);
  return narrow;
}

NH_EXPORT void malloc_stats() noexcept { write_malloc_stats(); }
NH_EXPORT int malloc_info(int options, FILE* stream) noexcept { return write_malloc_info(options, stream); }

// glibc's names for the same functions, which some programs call to get past an interposed malloc.
extern "C" {
void* aligned_alloc(std::size_t, std::size_t) noexcept NH_ALIAS(memalign);
void cfree(void* p) noexcept NH_ALIAS(free);
void* __libc_malloc(std::size_t) noexcept NH_ALIAS(malloc);
void __libc_free(void*) noexcept NH_ALIAS(free);
void* __libc_calloc(std::size_t, std::size_t) noexcept NH_ALIAS(calloc);
void* __libc_realloc(void*, std::size_t) noexcept NH_ALIAS(realloc);
void* __libc_memalign(std::size_t, std::size_t) noexcept NH_ALIAS(memalign);
void* __libc_valloc(std::size_t) noexcept NH_ALIAS(valloc);
void* __libc_pvalloc(std::size_t) noexcept NH_ALIAS(pvalloc);
}
