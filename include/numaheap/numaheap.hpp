// numaheap for C++ (17 and later): a standard allocator and a std::pmr::memory_resource over the heap of numaheap.h.
//
// A program that is linked to libnumaheap, or runs with it preloaded, has all its containers on that heap already. What
// this header adds is that memory of plain numbers comes from noscan spans without anyone saying so:
//
//   std::vector<double, numaheap::allocator<double>> field(n);
//
// Errors, as the standard wants them: std::bad_array_new_length where the number of elements overflows a size,
// otherwise the new_handler until it gives up, then std::bad_alloc; std::abort() in code compiled without exceptions.
// Everything here is thread-safe and keeps no state.
#ifndef NUMAHEAP_HPP
#define NUMAHEAP_HPP

#include <numaheap/numaheap.h>

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
  // Not operator new: the program may have one of its own, and what is allocated here goes back with free().
  return alignment <= kMallocAlignment ? std::malloc(bytes) : ::aligned_alloc(alignment, bytes);
}

inline void* allocate(std::size_t bytes, std::size_t alignment, bool noscan) {
  for (;;) {
    if (void* p = try_allocate(bytes, alignment, noscan)) return p;
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
  void deallocate(T* p, std::size_t) noexcept { std::free(p); }
};

template <typename T, typename U>
constexpr bool operator==(const allocator<T>&, const allocator<U>&) noexcept {
  return true;
}
template <typename T, typename U>
constexpr bool operator!=(const allocator<T>&, const allocator<U>&) noexcept {
  return false;
}

// The heap as a std::pmr::memory_resource. All instances are equal (where RTTI is off only an instance and itself,
// since the type of the other one cannot be asked).
class memory_resource : public std::pmr::memory_resource {
 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    return detail::allocate(bytes, alignment, false);
  }
  void do_deallocate(void* p, std::size_t, std::size_t) override { std::free(p); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
#ifdef __cpp_rtti
    return dynamic_cast<const memory_resource*>(&other) != nullptr;
#else
    return this == &other;
#endif
  }
};

}  // namespace numaheap

#endif  // NUMAHEAP_HPP
