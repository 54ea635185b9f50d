// The heap by its own name: numaheap_malloc() and its kin, which are malloc's where numaheap is the process's malloc.
#include <gtest/gtest.h>
#include <malloc.h>
#include <numaheap/numaheap.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

char* bytes(void* p) { return static_cast<char*>(p); }

TEST(Heap, SizesAndContents) {
  for (std::size_t n = 0; n < 40000000; n = n * 2 + 1) {
    void* p = numaheap_malloc(n);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 16, 0u);
    EXPECT_GE(numaheap_usable_size(p), n);
    std::memset(p, 1, n);
    p = numaheap_realloc(p, n + 1000);
    ASSERT_NE(p, nullptr);
    for (std::size_t i = 0; i < n; i += n / 50 + 1) EXPECT_EQ(bytes(p)[i], 1);
    numaheap_free(p);

    char* zeroed = bytes(numaheap_calloc(n, 1));
    ASSERT_NE(zeroed, nullptr);
    for (std::size_t i = 0; i < n; i += n / 50 + 1) EXPECT_EQ(zeroed[i], 0);
    numaheap_free(zeroed);
  }
}

TEST(Heap, Alignment) {
  for (std::size_t alignment = 1; alignment <= 16 << 20; alignment *= 2) {
    void* p = numaheap_aligned_alloc(alignment, 100);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % alignment, 0u);
    numaheap_free(p);
  }
  for (const std::size_t alignment : {0, 3, 48}) {
    errno = 0;
    EXPECT_EQ(numaheap_aligned_alloc(alignment, 100), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
}

TEST(Heap, Errors) {
  errno = 0;
  EXPECT_EQ(numaheap_malloc(SIZE_MAX), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(numaheap_calloc(SIZE_MAX / 2, 3), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  char* p = bytes(numaheap_malloc(100));
  p[99] = 7;
  errno = 0;
  EXPECT_EQ(numaheap_realloc(p, SIZE_MAX), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(p[99], 7);
  errno = 4711;
  numaheap_free(p);
  numaheap_free(nullptr);
  EXPECT_EQ(errno, 4711);
}

TEST(Heap, NullAndZero) {
  EXPECT_EQ(numaheap_usable_size(nullptr), 0u);
  void* p = numaheap_realloc(nullptr, 100);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(numaheap_realloc(p, 0), nullptr);
  numaheap_free(numaheap_malloc(0));
}

TEST(Heap, IsTheOneOfMalloc) {
  std::free(numaheap_malloc(100));
  numaheap_free(std::malloc(100));
  void* p = numaheap_realloc(std::malloc(100), 300);
  EXPECT_EQ(malloc_usable_size(p), numaheap_usable_size(p));
  std::free(std::realloc(p, 5000));
  numaheap_free(numaheap_malloc_noscan(100));
  numaheap_free(numaheap_malloc_local(100));
}

}  // namespace
