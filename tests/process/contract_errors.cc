// What the family does when it cannot do what it is asked: return value, errno, and nothing else changed.
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "harness/case.h"

namespace {

void* const kUntouched = reinterpret_cast<void*>(uintptr_t{0x2a2a2a});

// Sizes that no machine has; the last ones wrap around when a header or a rounding is added.
const size_t kHuge[] = {size_t{PTRDIFF_MAX},     size_t{PTRDIFF_MAX} + 1, SIZE_MAX / 2 + 4096, SIZE_MAX - 4096,
                        SIZE_MAX - 4095,         SIZE_MAX - 64,           SIZE_MAX - 16,       SIZE_MAX - 15,
                        SIZE_MAX - 8,            SIZE_MAX - 1,            SIZE_MAX,            size_t{1} << 62,
                        (size_t{1} << 47) + 4096};

template <typename Call>
void expect_enomem(const char* what, size_t n, Call call) {
  errno = 0;
  void* p = call();
  const int error = errno;
  EXPECT(p == nullptr, "%s(%#zx) = %p", what, n, p);
  EXPECT(error == ENOMEM, "%s(%#zx): errno %d", what, n, error);
  if (p != nullptr) free(p);
}

}  // namespace

CASE(huge_sizes) {
  for (const size_t n : kHuge) {
    expect_enomem("malloc", n, [n] { return malloc(opaque_size(n)); });
    expect_enomem("calloc", n, [n] { return calloc(1, opaque_size(n)); });
    expect_enomem("calloc", n, [n] { return calloc(opaque_size(n), 1); });
    expect_enomem("realloc(NULL)", n, [n] { return realloc(nullptr, opaque_size(n)); });
    expect_enomem("reallocarray(NULL)", n, [n] { return reallocarray(nullptr, 1, opaque_size(n)); });
    expect_enomem("memalign", n, [n] { return memalign(64, opaque_size(n)); });
    expect_enomem("memalign small alignment", n, [n] { return memalign(8, opaque_size(n)); });
    expect_enomem("aligned_alloc", n, [n] { return aligned_alloc(4096, opaque_size(n)); });
    expect_enomem("valloc", n, [n] { return valloc(opaque_size(n)); });
    expect_enomem("pvalloc", n, [n] { return pvalloc(opaque_size(n)); });
    void* p = kUntouched;
    errno = 0;
    EXPECT(posix_memalign(&p, 64, opaque_size(n)) == ENOMEM, "posix_memalign(64, %#zx)", n);
    EXPECT(errno == ENOMEM, "posix_memalign(64, %#zx) left errno %d, glibc's leaves ENOMEM", n, errno);
    EXPECT(p == kUntouched, "posix_memalign changed the pointer although it failed");
  }
}

CASE(multiplication_overflow) {
  const size_t root = size_t{1} << 32;
  const struct {
    size_t count, size;
  } products[] = {{root, root},         {root + 1, root},      {SIZE_MAX, 2},     {2, SIZE_MAX}, {SIZE_MAX / 2 + 1, 2},
                  {SIZE_MAX, SIZE_MAX}, {SIZE_MAX / 16 + 1, 16}, {SIZE_MAX / 3 + 1, 3}, {size_t{1} << 63, 2}};
  void* kept = malloc(100);
  memset(kept, 7, 100);
  for (const auto& [count, size] : products) {
    expect_enomem("calloc", count, [=] { return calloc(opaque_size(count), opaque_size(size)); });
    expect_enomem("reallocarray", count, [=] { return reallocarray(kept, opaque_size(count), opaque_size(size)); });
    expect_enomem("reallocarray(NULL)", count, [=] { return reallocarray(nullptr, opaque_size(count), opaque_size(size)); });
  }
  for (int i = 0; i < 100; i++) EXPECT(static_cast<unsigned char*>(kept)[i] == 7);
  free(kept);
  // The other side of the border: a product of 0 does not overflow.
  void* p = calloc(0, SIZE_MAX);
  void* q = calloc(SIZE_MAX, 0);
  EXPECT(p != nullptr && q != nullptr && p != q);
  free(p);
  free(q);
}

CASE(failed_realloc_keeps_the_block) {
  for (const size_t size : {size_t{1}, size_t{40}, size_t{5000}, size_t{50000}, size_t{6} << 20}) {
    void* p = malloc(size);
    REQUIRE(p != nullptr);
    fill_pattern(p, size, size);
    for (const size_t n : kHuge) {
      errno = 0;
      void* q = realloc(p, opaque_size(n));
      EXPECT(q == nullptr && errno == ENOMEM, "realloc(p, %#zx) = %p, errno %d", n, q, errno);
      if (q != nullptr) p = q;
    }
    EXPECT(verify_pattern(p, size, size) == size, "%zu bytes", size);
    free(p);
  }
}

CASE(posix_memalign_bad_alignment) {
  for (const size_t alignment : {size_t{0}, size_t{1}, size_t{2}, size_t{4}, size_t{12}, size_t{24}, size_t{100}, size_t{4097},
                                 (size_t{1} << 62) + 1, SIZE_MAX}) {
    void* p = kUntouched;
    const int error = posix_memalign(&p, opaque_size(alignment), 100);
    EXPECT(error == EINVAL, "posix_memalign(%zu) = %d", alignment, error);
    EXPECT(p == kUntouched, "posix_memalign(%zu) changed the pointer", alignment);
  }
}

CASE(alignments_that_no_address_has) {
  for (const size_t alignment : {size_t{1} << 62, size_t{1} << 63}) {
    void* p = kUntouched;
    EXPECT(posix_memalign(&p, opaque_size(alignment), 64) == ENOMEM);
    EXPECT(p == kUntouched);
    expect_enomem("memalign", alignment, [=] { return memalign(opaque_size(alignment), 64); });
    expect_enomem("aligned_alloc", alignment, [=] { return aligned_alloc(opaque_size(alignment), 64); });
  }
  // Above the largest power of two nothing can be rounded up to: glibc says EINVAL.
  for (const size_t alignment : {(size_t{1} << 63) + 1, SIZE_MAX}) {
    errno = 0;
    EXPECT(memalign(opaque_size(alignment), 64) == nullptr && errno == EINVAL, "memalign: errno %d", errno);
    errno = 0;
    EXPECT(aligned_alloc(opaque_size(alignment), 64) == nullptr && errno == EINVAL, "aligned_alloc: errno %d", errno);
  }
}

CASE(pvalloc_of_minus_one) {
  expect_enomem("pvalloc", SIZE_MAX, [] { return pvalloc(opaque_size(SIZE_MAX)); });
}

CASE(failure_has_no_side_effect) {
  // Some allocators map or split before they notice; a thousand failures must not cost memory or address space.
  free(malloc(100));
  const long before_rss = resident_kib(), before_vm = status_kib("VmSize");
  for (int i = 0; i < 1000; i++) {
    for (const size_t n : kHuge) {
      void* p = malloc(opaque_size(n));
      EXPECT(p == nullptr);
      free(p);
    }
  }
  EXPECT(resident_kib() - before_rss < 1024, "grew by %ld KiB", resident_kib() - before_rss);
  EXPECT(status_kib("VmSize") - before_vm < 4096, "grew by %ld KiB", status_kib("VmSize") - before_vm);
}

CASE(free_keeps_errno) {
  void* blocks[] = {malloc(0), malloc(1), malloc(100), malloc(40000), malloc(size_t{3} << 20), malloc(size_t{64} << 20),
                    aligned_alloc(4096, 10000), nullptr};
  for (void* p : blocks) {
    if (p != nullptr) memset(p, 1, malloc_usable_size(p));
  }
  for (void* p : blocks) {
    errno = 4711;
    free(p);
    EXPECT(errno == 4711, "errno became %d", errno);
  }
  // Enough of them to pass through every slow path of free.
  static void* many[50000];
  for (void*& p : many) p = malloc(300);
  errno = 4711;
  for (void* p : many) free(p);
  EXPECT(errno == 4711, "errno became %d", errno);
}

// POSIX leaves errno open after a success, but real programs print strerror(errno) after something else failed:
// glibc keeps it, apart from paths that ran into the kernel.
CASE(success_keeps_errno) {
  errno = 4711;
  for (size_t n = 1; n < 200000; n += n / 5 + 1) {
    void* p = malloc(n);
    p = realloc(p, n * 2);
    free(p);
    EXPECT(errno == 4711, "errno became %d at %zu bytes", errno, n);
    errno = 4711;
  }
}
