// Objects that are freed with a wrong size, as every library notices it.
#include <dlfcn.h>

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
