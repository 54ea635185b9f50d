// numaheap.hpp, placement: the requirements of the standard library on allocators with state, errors, resources.
#include <numaheap/numaheap.hpp>

#include <malloc.h>

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

using numaheap::interleaved_allocator;
using numaheap::node_allocator;
using numaheap::placed_allocator;
using numaheap::placement;
using numaheap::when_full;

using Traits = std::allocator_traits<node_allocator<int>>;
static_assert(!Traits::is_always_equal::value && !Traits::propagate_on_container_copy_assignment::value);
static_assert(Traits::propagate_on_container_move_assignment::value && Traits::propagate_on_container_swap::value);
static_assert(std::is_same_v<Traits::rebind_alloc<std::string>, node_allocator<std::string>>);
static_assert(!std::is_default_constructible_v<node_allocator<int>>);
static_assert(!std::is_convertible_v<int, node_allocator<int>>, "a number is not a place");
static_assert(std::is_nothrow_constructible_v<node_allocator<int>, const node_allocator<char>&>);
static_assert(std::allocator_traits<interleaved_allocator<int>>::is_always_equal::value);
static_assert(std::is_empty_v<interleaved_allocator<int>>);
static_assert(placement::on_node(1) == placement::on_node(1) && placement::on_node(1) != placement::on_node(2));
static_assert(placement::on_node(1) != placement::on_node(1, when_full::fail));
static_assert(placement() != placement::local() && placement::local() != placement::interleaved());
static_assert(placement().get() == nullptr);
static_assert(placement::bandwidth() != placement::capacity() && placement::latency() != placement::latency(when_full::fail));
static_assert(std::is_convertible_v<placement, placed_allocator<int>>, "a placement is a place");
static_assert(!std::allocator_traits<placed_allocator<int>>::is_always_equal::value);

struct alignas(256) Wide {
  char text[256];
};

int node() { return numaheap_local_node(); }

template <template <typename> class Allocator, typename... Place>
void use_containers(Place... place) {
  const Allocator<int> allocator(place...);
  std::vector<double, Allocator<double>> numbers(allocator);
  for (int i = 0; i < 100000; i++) numbers.push_back(i);
  EXPECT_EQ(numbers[99999], 99999);
  std::list<int, Allocator<int>> list(1000, 7, allocator);
  EXPECT_EQ(list.size(), 1000u);
  using Pair = std::pair<const int, std::string>;
  std::map<int, std::string, std::less<>, Allocator<Pair>> map((Allocator<Pair>(allocator)));
  std::unordered_map<int, std::string, std::hash<int>, std::equal_to<>, Allocator<Pair>> hash(
      (Allocator<Pair>(allocator)));
  for (int i = 0; i < 1000; i++) hash[i] = map[i] = std::to_string(i);
  EXPECT_EQ(map.at(512), "512");
  EXPECT_EQ(hash.at(512), "512");
  std::basic_string<char, std::char_traits<char>, Allocator<char>> text(1000, 'x', allocator);
  EXPECT_EQ(text.size(), 1000u);
  auto shared = std::allocate_shared<Wide>(allocator);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(shared.get()) % alignof(Wide), 0u);
}

TEST(NodeAllocator, Containers) { use_containers<node_allocator>(node()); }
TEST(NodeAllocator, StrictContainers) { use_containers<node_allocator>(node(), when_full::fail); }
TEST(InterleavedAllocator, Containers) { use_containers<interleaved_allocator>(); }
TEST(PlacedAllocator, Containers) {
  for (const placement& where : {placement(), placement::bandwidth(), placement::latency(when_full::fail), placement::capacity(),
                                 placement::weighted(), placement::on_node(node())}) {
    use_containers<placed_allocator>(where);
  }
}

TEST(PlacedAllocator, Equality) {
  const placed_allocator<int> fast(placement::bandwidth()), node(placement::on_node(3));
  const placed_allocator<char> rebound(fast);
  EXPECT_TRUE(fast == rebound);
  EXPECT_TRUE(fast != node);
  EXPECT_TRUE(rebound.where() == placement::bandwidth());
}

TEST(NodeAllocator, ElementTypeChoosesTheMemory) {
  node_allocator<double> numbers(node());
  node_allocator<void*> pointers(node());
  double* three = numbers.allocate(3);
  void** three_pointers = pointers.allocate(3);
  EXPECT_EQ(malloc_usable_size(three), 24u);
  EXPECT_EQ(malloc_usable_size(three_pointers), 32u);
  numbers.deallocate(three, 3);
  pointers.deallocate(three_pointers, 3);
}

TEST(NodeAllocator, Equality) {
  EXPECT_TRUE(node_allocator<int>(3) == node_allocator<double>(3));
  EXPECT_TRUE(node_allocator<int>(3) != node_allocator<int>(4));
  EXPECT_TRUE(node_allocator<int>(3) != node_allocator<int>(3, when_full::fail));
  const node_allocator<int> strict(3, when_full::fail);
  const node_allocator<char> rebound(strict);
  EXPECT_EQ(rebound.node(), 3);
  EXPECT_EQ(rebound.full(), when_full::fail);
  EXPECT_TRUE(strict == rebound);
}

using Vector = std::vector<int, node_allocator<int>>;

// Node 99 does not exist: whatever would allocate there throws, so that what does not throw has allocated nothing there.
TEST(NodeAllocator, MovesTakeTheAllocatorAlongAndCopiesDoNot) {
  const node_allocator<int> here(node()), nowhere(99);
  Vector filled(100, 5, here);
  Vector target(nowhere);
  EXPECT_THROW(target = filled, std::bad_alloc) << "the target stays on its node";
  EXPECT_EQ(target.get_allocator().node(), 99);
  const int* data = filled.data();
  target = std::move(filled);
  EXPECT_EQ(target.data(), data) << "nothing is copied";
  EXPECT_EQ(target.get_allocator().node(), node());
  Vector other(nowhere);
  swap(target, other);
  EXPECT_EQ(other.data(), data);
  EXPECT_EQ(other.get_allocator().node(), node());
  EXPECT_EQ(target.get_allocator().node(), 99);
  const Vector copy(other);
  EXPECT_EQ(copy.get_allocator().node(), node()) << "a copy lies where the original does";
}

int g_handler_calls = 0;

TEST(NodeAllocator, Errors) {
  node_allocator<int> here(node());
  EXPECT_THROW(static_cast<void>(here.allocate(SIZE_MAX / 2)), std::bad_array_new_length);
  g_handler_calls = 0;
  std::set_new_handler([] {
    if (++g_handler_calls == 3) std::set_new_handler(nullptr);
  });
  EXPECT_THROW(static_cast<void>(here.allocate(SIZE_MAX / 8)), std::bad_alloc);
  EXPECT_EQ(g_handler_calls, 3);
  // Nothing that a handler could free makes a node of its own: it is not asked.
  std::set_new_handler([] { throw std::runtime_error("asked"); });
  EXPECT_THROW(static_cast<void>(node_allocator<int>(99).allocate(1)), std::bad_alloc);
  std::set_new_handler(nullptr);
}

TEST(PlacedResource, AllocatesAligned) {
  for (const placement& where : {placement(), placement::on_node(node()), placement::on_node(node(), when_full::fail),
                                 placement::local(), placement::interleaved(), placement::first_touch(),
                                 placement::bandwidth(), placement::capacity(when_full::fail), placement::weighted()}) {
    numaheap::memory_resource heap(where);
    EXPECT_TRUE(heap.where() == where);
    for (std::size_t alignment = 1; alignment <= 65536; alignment *= 2) {
      for (const std::size_t bytes : {0, 1, 24, 5000, 100000}) {
        void* p = heap.allocate(bytes, alignment);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % alignment, 0u) << alignment << " " << bytes;
        EXPECT_GE(malloc_usable_size(p), bytes);
        heap.deallocate(p, bytes, alignment);
      }
    }
    EXPECT_THROW(static_cast<void>(heap.allocate(PTRDIFF_MAX)), std::bad_alloc);
  }
}

TEST(PlacedResource, Equality) {
  numaheap::memory_resource plain, one(placement::on_node(1)), same(placement::on_node(1)), two(placement::on_node(2)),
      spread(placement::interleaved());
  EXPECT_TRUE(one.is_equal(same));
  EXPECT_FALSE(one.is_equal(two));
  EXPECT_FALSE(one.is_equal(plain));
  EXPECT_FALSE(plain.is_equal(one));
  EXPECT_FALSE(spread.is_equal(one));
  EXPECT_FALSE(one.is_equal(*std::pmr::new_delete_resource()));
}

TEST(PlacedResource, ServesContainers) {
  numaheap::memory_resource heap(placement::on_node(node()));
  std::pmr::monotonic_buffer_resource arena(&heap);
  std::pmr::unsynchronized_pool_resource pool(&heap);
  std::pmr::vector<std::pmr::string> words(&arena);
  std::pmr::map<int, std::pmr::string> map(&pool);
  for (int i = 0; i < 1000; i++) map[i] = words.emplace_back(std::to_string(i) + " is longer than the string's buffer");
  EXPECT_EQ(words[999], map[999]);
  numaheap::memory_resource nowhere(placement::on_node(99));
  EXPECT_THROW(static_cast<void>(nowhere.allocate(100)), std::bad_alloc);
}

}  // namespace
