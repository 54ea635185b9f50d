// Objects that are freed with a wrong size, as every library notices it.
#include <dlfcn.h>
#include <malloc.h>

#include <new>

#include "misuse.h"

#ifdef NH_TEST_LINKED
extern "C" void free_sized(void*, size_t);
extern "C" void free_aligned_sized(void*, size_t, size_t);
#endif

CASE_FATAL(sized_delete_small_as_large, "size mismatch") { ::operator delete(misuse(opaque(::operator new(64))), 100000); }
CASE_FATAL(sized_delete_of_large, "size mismatch") { ::operator delete(misuse(opaque(::operator new(100000))), 300000); }
CASE_FATAL(sized_aligned_delete, "size mismatch") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(opaque(::operator new(100, kAlign))), 5000, kAlign);
}
CASE_FATAL(sized_aligned_delete_too_small, "size mismatch") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(opaque(::operator new(1000, kAlign))), 100, kAlign);
}
CASE_FATAL(sized_aligned_delete_of_a_size_that_wraps_around, "size mismatch") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(opaque(::operator new(100, kAlign))), opaque_size(SIZE_MAX - 10), kAlign);
}
CASE_FATAL(sized_aligned_delete_large_as_small, "size mismatch") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(opaque(::operator new(100000, kAlign))), 100, kAlign);
}
CASE_FATAL(sized_aligned_delete_twice, "double free") {
  constexpr std::align_val_t kAlign{64};
  void* p = opaque(::operator new(1000, kAlign));
  ::operator delete(p, 1000, kAlign);
  ::operator delete(misuse(p), 1000, kAlign);
}
CASE_FATAL(sized_aligned_delete_of_the_middle, "interior pointer") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(static_cast<char*>(opaque(::operator new(1000, kAlign))) + 64), 1000, kAlign);
}
CASE_FATAL(free_sized_too_large, "size mismatch") {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t), free_sized);
  REQUIRE(sized != nullptr);
  sized(misuse(block(64)), 1000);
}
CASE_FATAL(free_aligned_sized_too_large, "size mismatch") {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t, size_t), free_aligned_sized);
  REQUIRE(sized != nullptr);
  sized(misuse(aligned_alloc(64, 100)), 64, 50000);
}
CASE_FATAL(free_sized_too_small, "size mismatch") {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t), free_sized);
  REQUIRE(sized != nullptr);
  sized(misuse(block(1000)), 100);
}
CASE_FATAL(free_aligned_sized_too_small, "size mismatch") {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t, size_t), free_aligned_sized);
  REQUIRE(sized != nullptr);
  sized(misuse(aligned_alloc(64, 1000)), 64, 100);
}
CASE_FATAL(free_aligned_sized_of_a_size_that_wraps_around, "size mismatch") {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t, size_t), free_aligned_sized);
  REQUIRE(sized != nullptr);
  sized(misuse(aligned_alloc(4096, 1000)), 4096, opaque_size(SIZE_MAX));
}

// What malloc_usable_size() looks up on its own.
CASE_FATAL(size_of_a_freed_object, "double free|freed|free") {
  char* p = block(64);
  free(p);
  opaque_size(malloc_usable_size(misuse(p)));
}
CASE_FATAL(size_of_the_middle, "interior pointer") { opaque_size(malloc_usable_size(misuse(block(1000) + 16))); }
CASE_FATAL(size_of_a_foreign_pointer, "not from this heap") {
  alignas(16) char bytes[64] = {1};
  opaque_size(malloc_usable_size(misuse(bytes)));
}
