// numaheap.hpp: which memory an element type gets, alignment, errors, and the requirements of the standard library.
#include <numaheap/numaheap.hpp>

#include <malloc.h>

#include <complex>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

namespace {

struct Particle {
  double x, y;
};
struct alignas(256) Wide {
  char text[256];
};
struct alignas(256) Line {
  float value[64];
};
enum class Colour : short { kRed };

}  // namespace

template <>
struct numaheap::is_noscan<Particle> : std::true_type {};
template <>
struct numaheap::is_noscan<Line> : std::true_type {};

namespace {

using numaheap::allocator;
using numaheap::is_noscan_v;

static_assert(is_noscan_v<bool> && is_noscan_v<char> && is_noscan_v<int> && is_noscan_v<const float>);
static_assert(is_noscan_v<long double> && is_noscan_v<std::byte> && is_noscan_v<Colour> && is_noscan_v<int[4]>);
static_assert(is_noscan_v<Particle> && is_noscan_v<Particle[2]>);
static_assert(!is_noscan_v<int*> && !is_noscan_v<std::string> && !is_noscan_v<Wide> && !is_noscan_v<void (*)()>);
static_assert(!is_noscan_v<int Particle::*> && !is_noscan_v<std::nullptr_t>);

using Traits = std::allocator_traits<allocator<int>>;
static_assert(Traits::is_always_equal::value && Traits::propagate_on_container_move_assignment::value);
static_assert(std::is_same_v<Traits::rebind_alloc<std::string>, allocator<std::string>>);
static_assert(std::is_empty_v<allocator<int>> && std::is_nothrow_copy_constructible_v<allocator<int>>);
static_assert(std::is_nothrow_constructible_v<allocator<int>, const allocator<char>&>);

// malloc has no class of 24 bytes, noscan has: the usable size tells where memory came from.
template <typename T>
std::size_t usable_of_24_bytes() {
  static_assert(24 % sizeof(T) == 0);
  allocator<T> a;
  T* p = a.allocate(24 / sizeof(T));
  const std::size_t usable = malloc_usable_size(p);
  a.deallocate(p, 24 / sizeof(T));
  return usable;
}

TEST(Allocator, ElementTypeChoosesTheMemory) {
  EXPECT_EQ(usable_of_24_bytes<bool>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<char>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<double>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<std::byte>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<Colour>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<int[2]>(), 24u);
  EXPECT_EQ(usable_of_24_bytes<void*>(), 32u);
  EXPECT_EQ(usable_of_24_bytes<std::unique_ptr<int>>(), 32u);
}

template <typename T>
void expect_aligned() {
  allocator<T> a;
  std::vector<T*> all;
  for (std::size_t n = 0; n < 40; n++) {
    all.push_back(a.allocate(n));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(all.back()) % alignof(T), 0u) << "sizeof " << sizeof(T) << ", n " << n;
    EXPECT_GE(malloc_usable_size(all.back()), n * sizeof(T));
  }
  for (std::size_t n = 0; n < 40; n++) a.deallocate(all[n], n);
}

TEST(Allocator, AlignedAsTheType) {
  expect_aligned<char>();
  expect_aligned<short>();
  expect_aligned<float>();
  expect_aligned<double>();
  expect_aligned<long double>();
  expect_aligned<Particle>();
  expect_aligned<Line>();
  expect_aligned<Wide>();
  expect_aligned<void*>();
}

TEST(Allocator, Containers) {
  std::vector<double, allocator<double>> numbers;
  for (int i = 0; i < 100000; i++) numbers.push_back(i);
  EXPECT_EQ(numbers[99999], 99999);
  std::list<int, allocator<int>> list(1000, 7);
  std::map<int, std::string, std::less<>, allocator<std::pair<const int, std::string>>> map;
  std::unordered_map<int, int, std::hash<int>, std::equal_to<>, allocator<std::pair<const int, int>>> hash;
  for (int i = 0; i < 1000; i++) {
    map[i] = std::to_string(i);
    hash[i] = -i;
  }
  EXPECT_EQ(map.at(512), "512");
  EXPECT_EQ(hash.at(512), -512);
  std::basic_string<char, std::char_traits<char>, allocator<char>> text(1000, 'x');
  EXPECT_EQ(text.size(), 1000u);
  auto shared = std::allocate_shared<Wide>(allocator<Wide>());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(shared.get()) % alignof(Wide), 0u);
  auto moved = std::move(numbers);
  EXPECT_EQ(moved.size(), 100000u);
  // The nodes of a list of numbers hold pointers: its allocator is rebound, and its memory is not noscan.
  EXPECT_FALSE(is_noscan_v<std::_List_node<int>>);
}

TEST(Allocator, AllAreEqual) {
  EXPECT_TRUE(allocator<int>() == allocator<double>());
  EXPECT_FALSE(allocator<int>() != allocator<int>());
}

int g_handler_calls = 0;

template <typename T>
void expect_errors() {
  allocator<T> a;
  if constexpr (sizeof(T) > 1) {
    EXPECT_THROW(static_cast<void>(a.allocate(SIZE_MAX / sizeof(T) + 1)), std::bad_array_new_length);
    EXPECT_THROW(static_cast<void>(a.allocate(SIZE_MAX)), std::bad_array_new_length);
  }
  const std::size_t n = SIZE_MAX / sizeof(T);
  try {
    static_cast<void>(a.allocate(n));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::bad_array_new_length&) {
    ADD_FAILURE() << "no overflow: plain std::bad_alloc is due";
  } catch (const std::bad_alloc&) {
  }

  // The handler is asked until it gives up.
  g_handler_calls = 0;
  std::set_new_handler([] {
    if (++g_handler_calls == 3) std::set_new_handler(nullptr);
  });
  EXPECT_THROW(static_cast<void>(a.allocate(n)), std::bad_alloc);
  EXPECT_EQ(g_handler_calls, 3);
  std::set_new_handler([] { throw std::runtime_error("from the handler"); });
  EXPECT_THROW(static_cast<void>(a.allocate(n)), std::runtime_error);
  std::set_new_handler(nullptr);
}

TEST(Allocator, Errors) {
  expect_errors<char>();
  expect_errors<double>();
  expect_errors<void*>();
  expect_errors<Wide>();
  expect_errors<Line>();
}

TEST(MemoryResource, AllocatesAligned) {
  numaheap::memory_resource heap;
  for (std::size_t alignment = 1; alignment <= 65536; alignment *= 2) {
    for (const std::size_t bytes : {0, 1, 24, 5000, 100000}) {
      void* p = heap.allocate(bytes, alignment);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % alignment, 0u) << alignment << " " << bytes;
      EXPECT_GE(malloc_usable_size(p), bytes);
      heap.deallocate(p, bytes, alignment);
    }
  }
  EXPECT_THROW(static_cast<void>(heap.allocate(PTRDIFF_MAX)), std::bad_alloc);
  EXPECT_THROW(static_cast<void>(heap.allocate(PTRDIFF_MAX, 4096)), std::bad_alloc);
}

TEST(MemoryResource, Equality) {
  numaheap::memory_resource one, other;
  EXPECT_TRUE(one.is_equal(other));
  EXPECT_FALSE(one.is_equal(*std::pmr::null_memory_resource()));
  EXPECT_FALSE(one == *std::pmr::new_delete_resource());
}

TEST(MemoryResource, ServesContainers) {
  numaheap::memory_resource heap;
  std::pmr::monotonic_buffer_resource arena(&heap);
  std::pmr::vector<std::pmr::string> words(&arena);
  for (int i = 0; i < 1000; i++) words.emplace_back(std::to_string(i) + " is longer than the small string buffer");
  EXPECT_EQ(words[999].substr(0, 3), "999");
}

}  // namespace
