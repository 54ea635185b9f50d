// numaheap for C++ (17 and later): standard allocators and a std::pmr::memory_resource over the heap of numaheap.h.
//
// A program that is linked to libnumaheap, or runs with it preloaded, has all its containers on that heap already; in a
// library that a program with another malloc may load, those with an allocator from here are on it all the same. What this
// header adds besides is that memory of plain numbers comes from noscan spans without anyone saying so:
//
//   std::vector<double, numaheap::allocator<double>> field(n);
//
// and that memory can be asked for on a certain node, or spread over all of them:
//
//   std::vector<double, numaheap::node_allocator<double>> near(n, numaheap::node_allocator<double>(2));
//   std::vector<double, numaheap::interleaved_allocator<double>> spread(n);
//   std::vector<double, numaheap::placed_allocator<double>> fast(n, numaheap::placement::bandwidth());
//
// Errors, as the standard wants them: std::bad_array_new_length where the number of elements overflows a size,
// otherwise the new_handler until it gives up, then std::bad_alloc; std::abort() in code compiled without exceptions.
// std::bad_alloc at once where the place itself is refused: no such node, or none that this process may use.
// Everything here is thread-safe.
#ifndef NUMAHEAP_HPP
#define NUMAHEAP_HPP

#include <numaheap/numaheap.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory_resource>
#include <new>
#include <type_traits>

namespace numaheap {

// Whether objects of type T hold no pointers, so that their memory can be noscan memory: numbers, characters, bool,
// enumerations (std::byte is one), arrays of them. Specialise it for types of your own:
//
//   template <> struct numaheap::is_noscan<Particle> : std::true_type {};
//
// There is no allocator that is noscan whatever T is: a container allocates nodes with pointers of its own through a
// rebound copy of the allocator it was given, and only the type tells these apart.
template <typename T>
struct is_noscan : std::bool_constant<std::is_arithmetic_v<T> || std::is_enum_v<T>> {};
template <typename T, std::size_t n>
struct is_noscan<T[n]> : is_noscan<T> {};
template <typename T>
inline constexpr bool is_noscan_v = is_noscan<std::remove_cv_t<T>>::value;

namespace detail {

[[noreturn]] inline void throw_bad_alloc() {
#ifdef __cpp_exceptions
  throw std::bad_alloc();
#else
  std::abort();
#endif
}

[[noreturn]] inline void throw_bad_array_new_length() {
#ifdef __cpp_exceptions
  throw std::bad_array_new_length();
#else
  std::abort();
#endif
}

// What malloc aligns to, and numaheap_malloc_noscan() where the size is a multiple of the alignment.
inline constexpr std::size_t kMallocAlignment = 16;
inline constexpr std::size_t kNoscanAlignment = 8;

inline void* try_allocate(std::size_t bytes, std::size_t alignment, bool noscan) noexcept {
  if (noscan) {
    return alignment <= kNoscanAlignment ? numaheap_malloc_noscan(bytes)
                                         : numaheap_aligned_alloc_noscan(alignment, bytes);
  }
  // Not operator new or malloc: the program may have others of its own, and what is allocated here must go back here.
  return alignment <= kMallocAlignment ? numaheap_malloc(bytes) : numaheap_aligned_alloc(alignment, bytes);
}

inline void* try_allocate(std::size_t bytes, std::size_t alignment, bool noscan,
                          const numaheap_placement* placement) noexcept {
  if (placement == nullptr) return try_allocate(bytes, alignment, noscan);
  numaheap_placement here = *placement;
  if (noscan) here.flags |= NUMAHEAP_ALLOC_NOSCAN;
  return numaheap_alloc(bytes, alignment, &here);
}

// placement: nullptr for the ordinary heap.
inline void* allocate(std::size_t bytes, std::size_t alignment, bool noscan,
                      const numaheap_placement* placement = nullptr) {
  for (;;) {
    if (void* p = try_allocate(bytes, alignment, noscan, placement)) return p;
    if (placement != nullptr && errno != ENOMEM) throw_bad_alloc();  // no handler can help
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw_bad_alloc();
    handler();  // frees something, or throws
  }
}

}  // namespace detail

// Meets the Allocator requirements. All allocators are equal; what one allocated any other may free. Aligned as T,
// whatever its alignment. n == 0: a pointer of its own that must be deallocated, too.
template <typename T>
class allocator {
 public:
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using is_always_equal = std::true_type;

  constexpr allocator() noexcept = default;
  template <typename U>
  constexpr allocator(const allocator<U>&) noexcept {}

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) detail::throw_bad_array_new_length();
    return static_cast<T*>(detail::allocate(n * sizeof(T), alignof(T), is_noscan_v<T>));
  }
  void deallocate(T* p, std::size_t) noexcept { numaheap_free(p); }
};

template <typename T, typename U>
constexpr bool operator==(const allocator<T>&, const allocator<U>&) noexcept {
  return true;
}
template <typename T, typename U>
constexpr bool operator!=(const allocator<T>&, const allocator<U>&) noexcept {
  return false;
}

// What happens where a node has no memory left: the next one in the fallback order, or the next best, helps out, or
// std::bad_alloc.
enum class when_full { next_nearest, fail };

// Where memory shall lie. The default is malloc's choice: the policy of the process. numaheap.h explains the others.
class placement {
 public:
  constexpr placement() noexcept = default;
  static constexpr placement on_node(int node, when_full full = when_full::next_nearest) noexcept {
    return placement(NUMAHEAP_ON_NODE, node, flags_of(full));
  }
  static constexpr placement local() noexcept { return placement(NUMAHEAP_LOCAL, -1, 0); }
  static constexpr placement interleaved() noexcept { return placement(NUMAHEAP_INTERLEAVED, -1, 0); }
  static constexpr placement weighted() noexcept { return placement(NUMAHEAP_WEIGHTED, -1, 0); }
  static constexpr placement first_touch() noexcept { return placement(NUMAHEAP_FIRST_TOUCH, -1, 0); }
  // Where the memory is that is best for it.
  static constexpr placement bandwidth(when_full full = when_full::next_nearest) noexcept {
    return placement(NUMAHEAP_BANDWIDTH, -1, flags_of(full));
  }
  static constexpr placement latency(when_full full = when_full::next_nearest) noexcept {
    return placement(NUMAHEAP_LATENCY, -1, flags_of(full));
  }
  static constexpr placement capacity(when_full full = when_full::next_nearest) noexcept {
    return placement(NUMAHEAP_CAPACITY, -1, flags_of(full));
  }

  // As numaheap_alloc() takes it; nullptr for the default.
  constexpr const numaheap_placement* get() const noexcept { return value_.where < 0 ? nullptr : &value_; }

  friend constexpr bool operator==(const placement& a, const placement& b) noexcept {
    return a.value_.where == b.value_.where && a.value_.node == b.value_.node && a.value_.flags == b.value_.flags;
  }
  friend constexpr bool operator!=(const placement& a, const placement& b) noexcept { return !(a == b); }

 private:
  constexpr placement(int where, int node, unsigned flags) noexcept : value_{where, node, flags} {}
  static constexpr unsigned flags_of(when_full full) noexcept {
    return full == when_full::fail ? unsigned{NUMAHEAP_ALLOC_STRICT} : 0u;
  }

  numaheap_placement value_ = {-1, -1, 0};
};

// At a place of any kind. Two allocators are equal where their placements are, although either may free what the other
// allocated: a container takes over another's memory only if that lies where its own would.
//
// The allocator travels with the memory: move assignment and swap hand both over, in constant time. Copy assignment
// leaves the target at its place; a copy that is constructed lies at the place of the original.
template <typename T>
class placed_allocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::false_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using is_always_equal = std::false_type;

  constexpr placed_allocator(const placement& where) noexcept : where_(where) {}
  template <typename U>
  constexpr placed_allocator(const placed_allocator<U>& other) noexcept : where_(other.where()) {}

  constexpr const placement& where() const noexcept { return where_; }

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) detail::throw_bad_array_new_length();
    return static_cast<T*>(detail::allocate(n * sizeof(T), alignof(T), is_noscan_v<T>, where_.get()));
  }
  void deallocate(T* p, std::size_t) noexcept { numaheap_free(p); }

 private:
  placement where_;
};

template <typename T, typename U>
constexpr bool operator==(const placed_allocator<T>& a, const placed_allocator<U>& b) noexcept {
  return a.where() == b.where();
}
template <typename T, typename U>
constexpr bool operator!=(const placed_allocator<T>& a, const placed_allocator<U>& b) noexcept {
  return !(a == b);
}

// The same on one node.
template <typename T>
class node_allocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::false_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using is_always_equal = std::false_type;

  explicit constexpr node_allocator(int node, when_full full = when_full::next_nearest) noexcept
      : node_(node), full_(full) {}
  template <typename U>
  constexpr node_allocator(const node_allocator<U>& other) noexcept : node_(other.node()), full_(other.full()) {}

  constexpr int node() const noexcept { return node_; }
  constexpr when_full full() const noexcept { return full_; }

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) detail::throw_bad_array_new_length();
    const placement here = placement::on_node(node_, full_);
    return static_cast<T*>(detail::allocate(n * sizeof(T), alignof(T), is_noscan_v<T>, here.get()));
  }
  void deallocate(T* p, std::size_t) noexcept { numaheap_free(p); }

 private:
  int node_;
  when_full full_;
};

template <typename T, typename U>
constexpr bool operator==(const node_allocator<T>& a, const node_allocator<U>& b) noexcept {
  return a.node() == b.node() && a.full() == b.full();
}
template <typename T, typename U>
constexpr bool operator!=(const node_allocator<T>& a, const node_allocator<U>& b) noexcept {
  return !(a == b);
}

// Spread over the nodes page by page, for arrays that the threads of all nodes read. All are equal.
template <typename T>
class interleaved_allocator {
 public:
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using is_always_equal = std::true_type;

  constexpr interleaved_allocator() noexcept = default;
  template <typename U>
  constexpr interleaved_allocator(const interleaved_allocator<U>&) noexcept {}

  [[nodiscard]] T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) detail::throw_bad_array_new_length();
    const placement here = placement::interleaved();
    return static_cast<T*>(detail::allocate(n * sizeof(T), alignof(T), is_noscan_v<T>, here.get()));
  }
  void deallocate(T* p, std::size_t) noexcept { numaheap_free(p); }
};

template <typename T, typename U>
constexpr bool operator==(const interleaved_allocator<T>&, const interleaved_allocator<U>&) noexcept {
  return true;
}
template <typename T, typename U>
constexpr bool operator!=(const interleaved_allocator<T>&, const interleaved_allocator<U>&) noexcept {
  return false;
}

// The heap as a std::pmr::memory_resource: where malloc would place memory, or at a place of its own.
//
//   numaheap::memory_resource node(numaheap::placement::on_node(2));
//   std::pmr::vector<int> on_node_2(&node);
//
// Instances of the same placement are equal (where RTTI is off only an instance and itself, since the type of the other
// one cannot be asked).
class memory_resource : public std::pmr::memory_resource {
 public:
  memory_resource() noexcept = default;
  explicit memory_resource(const numaheap::placement& where) noexcept : where_(where) {}

  const numaheap::placement& where() const noexcept { return where_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    return detail::allocate(bytes, alignment, false, where_.get());
  }
  void do_deallocate(void* p, std::size_t, std::size_t) override { numaheap_free(p); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
#ifdef __cpp_rtti
    const auto* same = dynamic_cast<const memory_resource*>(&other);
    return same != nullptr && same->where_ == where_;
#else
    return this == &other;
#endif
  }

  numaheap::placement where_;
};

}  // namespace numaheap

#endif  // NUMAHEAP_HPP
