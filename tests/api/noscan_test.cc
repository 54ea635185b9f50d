// The entry points for memory without pointers, held against what numaheap.h says of them.
#include <numaheap/numaheap.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace {

std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

// The header's rule. Of the sizes up to 24 those from 17 on fall into the class of 24 bytes.
std::size_t promised_alignment(std::size_t size) {
  if (size == 0) return 16;
  if (size < 16) return size % 8 == 0 ? 8 : size % 4 == 0 ? 4 : size % 2 == 0 ? 2 : 1;
  return size > 16 && size <= 24 ? 8 : 16;
}

class Blocks {
 public:
  ~Blocks() {
    for (void* p : all_) free(p);
  }
  template <typename T>
  T* keep(T* p) {
    all_.push_back(p);
    return p;
  }
  const std::vector<void*>& all() const { return all_; }

 private:
  std::vector<void*> all_;
};

TEST(Noscan, AlignmentIsAsDocumented) {
  Blocks blocks;
  for (std::size_t size = 0; size <= 4096; size++) {
    for (int i = 0; i < 5; i++) {
      void* p = blocks.keep(numaheap_malloc_noscan(size));
      ASSERT_NE(p, nullptr);
      ASSERT_EQ(address(p) % promised_alignment(size), 0u) << "size " << size << " at " << p;
    }
  }
  for (std::size_t size : {32767, 32768, 32769, 100000, 5 << 20}) {
    ASSERT_EQ(address(blocks.keep(numaheap_malloc_noscan(size))) % 16, 0u) << size;
  }
}

TEST(Noscan, ObjectsDoNotOverlap) {
  struct Object {
    unsigned char* at;
    std::size_t size;
    unsigned char fill;
  };
  std::vector<Object> objects;
  for (unsigned round = 0; round < 200; round++) {
    for (std::size_t size = 1; size <= 40; size++) {
      auto* p = static_cast<unsigned char*>(numaheap_malloc_noscan(size));
      ASSERT_NE(p, nullptr);
      const auto fill = static_cast<unsigned char>(round * 40 + size);
      memset(p, fill, size);
      objects.push_back({p, size, fill});
    }
    // Every other object goes, so that blocks are left in part and filled again.
    if (round % 3 == 2) {
      for (std::size_t i = round % 2; i < objects.size(); i += 2) {
        ASSERT_EQ(std::count(objects[i].at, objects[i].at + objects[i].size, objects[i].fill),
                  static_cast<std::ptrdiff_t>(objects[i].size));
        free(objects[i].at);
        objects[i].at = nullptr;
      }
      std::erase_if(objects, [](const Object& o) { return o.at == nullptr; });
    }
  }
  for (const Object& o : objects) {
    EXPECT_EQ(std::count(o.at, o.at + o.size, o.fill), static_cast<std::ptrdiff_t>(o.size));
    free(o.at);
  }
}

// 3 bytes: four of them fit between offsets 0 and 12 of a 16-byte block, a fifth from 12 to 15.
TEST(Noscan, TinyObjectsArePacked) {
  constexpr std::size_t kCount = 20000;
  for (const std::size_t size : {1, 2, 3, 4, 5, 7}) {
    Blocks blocks;
    std::vector<std::uintptr_t> used;
    for (std::size_t i = 0; i < kCount; i++) used.push_back(address(blocks.keep(numaheap_malloc_noscan(size))) / 16);
    std::sort(used.begin(), used.end());
    const auto distinct = static_cast<std::size_t>(std::unique(used.begin(), used.end()) - used.begin());
    // Blocks that another CPU was filling are left with room: a thousandth more is plenty.
    const std::size_t per_block = size == 1 ? 15 : 16 / size;
    EXPECT_LE(distinct, kCount / per_block + kCount / 1000 + 4) << "size " << size;
  }
}

TEST(Noscan, UsableBytesBelongToTheCaller) {
  Blocks blocks;
  std::vector<std::pair<unsigned char*, std::size_t>> objects;
  for (unsigned round = 0; round < 3; round++) {
    for (std::size_t size = 1; size <= 300; size++) {
      auto* p = static_cast<unsigned char*>(blocks.keep(numaheap_malloc_noscan(size)));
      objects.emplace_back(p, size);
    }
  }
  for (std::size_t i = 0; i < objects.size(); i++) {
    const auto [p, size] = objects[i];
    const std::size_t usable = malloc_usable_size(p);
    ASSERT_GE(usable, size);
    ASSERT_LE(usable, size <= 16 ? 16 : size + size / 8 + 16);
    memset(p, static_cast<int>(i), usable);
  }
  for (std::size_t i = 0; i < objects.size(); i++) {
    const auto [p, size] = objects[i];
    ASSERT_EQ(std::count(p, p + size, static_cast<unsigned char>(i)), static_cast<std::ptrdiff_t>(size))
        << "size " << size;
  }
}

TEST(Noscan, CallocIsZeroAfterDirtyReuse) {
  for (const std::size_t size : {1, 3, 8, 12, 16, 24, 40, 1000, 32768, 40000, 1 << 20, 6 << 20}) {
    // Enough for what is freed to come round again.
    const unsigned count = size > 100000 ? 3 : size < 64 ? 20000 : 200;
    std::vector<void*> dirty;
    for (unsigned i = 0; i < count; i++) dirty.push_back(memset(numaheap_malloc_noscan(size), 0xa5, size));
    std::vector<void*> sorted = dirty;
    std::sort(sorted.begin(), sorted.end());
    for (void* p : dirty) free(p);
    unsigned reused = 0;
    std::vector<void*> again;
    for (unsigned i = 0; i < count; i++) {
      auto* p = static_cast<unsigned char*>(numaheap_calloc_noscan(1, size));
      ASSERT_NE(p, nullptr);
      ASSERT_EQ(std::count(p, p + size, 0), static_cast<std::ptrdiff_t>(size)) << "size " << size;
      reused += std::binary_search(sorted.begin(), sorted.end(), p);
      again.push_back(p);
    }
    EXPECT_GT(reused, 0u) << "size " << size << ": nothing was reused, so nothing was tested";
    for (void* p : again) free(p);
  }
}

TEST(Noscan, AlignedAllocation) {
  Blocks blocks;
  for (std::size_t alignment = 1; alignment <= (std::size_t{4} << 20); alignment *= 2) {
    for (const std::size_t size : {0, 1, 5, 8, 9, 17, 24, 100, 5000, 33000, 3 << 20}) {
      auto* p = static_cast<unsigned char*>(blocks.keep(numaheap_aligned_alloc_noscan(alignment, size)));
      ASSERT_NE(p, nullptr) << alignment << " " << size;
      ASSERT_EQ(address(p) % alignment, 0u) << alignment << " " << size;
      ASSERT_GE(malloc_usable_size(p), size);
      if (size != 0) p[0] = p[size - 1] = 1;
    }
  }
  for (const std::size_t alignment : {std::size_t{0}, std::size_t{3}, std::size_t{24}, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(numaheap_aligned_alloc_noscan(alignment, 64), nullptr) << alignment;
    EXPECT_EQ(errno, EINVAL) << alignment;
  }
}

TEST(Noscan, RefusalsSetErrno) {
  struct Case {
    const char* name;
    void* (*call)();
  };
  const Case cases[] = {
      {"malloc over PTRDIFF_MAX", [] { return numaheap_malloc_noscan(std::size_t{PTRDIFF_MAX} + 1); }},
      {"malloc SIZE_MAX", [] { return numaheap_malloc_noscan(SIZE_MAX); }},
      {"calloc overflow", [] { return numaheap_calloc_noscan(SIZE_MAX / 2, 3); }},
      {"calloc over PTRDIFF_MAX", [] { return numaheap_calloc_noscan(1, SIZE_MAX); }},
      {"aligned over PTRDIFF_MAX", [] { return numaheap_aligned_alloc_noscan(4096, SIZE_MAX - 4096); }},
      {"aligned to half the address space", [] { return numaheap_aligned_alloc_noscan(SIZE_MAX / 2 + 1, 64); }},
  };
  for (const Case& c : cases) {
    errno = 0;
    EXPECT_EQ(c.call(), nullptr) << c.name;
    EXPECT_EQ(errno, ENOMEM) << c.name;
  }
}

TEST(Noscan, SuccessKeepsErrno) {
  errno = 77;
  for (const std::size_t size : {1, 8, 100, 100000, 8 << 20}) {
    void* p = numaheap_malloc_noscan(size);
    void* q = numaheap_calloc_noscan(1, size);
    void* r = numaheap_aligned_alloc_noscan(64, size);
    free(p);
    free(q);
    free(r);
    EXPECT_EQ(errno, 77) << size;
  }
}

TEST(Noscan, ZeroBytesGiveUniquePointers) {
  void* p[] = {numaheap_malloc_noscan(0), numaheap_calloc_noscan(0, 5), numaheap_calloc_noscan(5, 0),
               numaheap_aligned_alloc_noscan(64, 0)};
  std::sort(std::begin(p), std::end(p));
  EXPECT_NE(p[0], nullptr);
  EXPECT_EQ(std::unique(std::begin(p), std::end(p)), std::end(p));
  for (void* q : p) free(q);
}

TEST(Noscan, ReallocKeepsContents) {
  std::vector<unsigned char> expected;
  auto* p = static_cast<unsigned char*>(numaheap_malloc_noscan(1));
  p[0] = 7;
  expected.push_back(7);
  for (const std::size_t size : {3, 9, 8, 15, 20, 16, 200, 40000, 3 << 20, 50, 4}) {
    p = static_cast<unsigned char*>(realloc(p, size));
    ASSERT_NE(p, nullptr);
    const std::size_t kept = std::min(expected.size(), size);
    ASSERT_TRUE(std::equal(p, p + kept, expected.begin())) << size;
    expected.resize(size);
    for (std::size_t i = 0; i < size; i++) p[i] = expected[i] = static_cast<unsigned char>(i * 31 + size);
  }
  free(p);
}

}  // namespace
