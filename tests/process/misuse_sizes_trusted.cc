// What a library that goes by the size of a sized delete (NUMAHEAP_TRUST_SIZES) still notices: at once whatever the size
// alone does not need, and a wrong size when the object goes home on the list of another class.
#include <dlfcn.h>
#include <malloc.h>

#include <new>

#include "misuse.h"
#include "pin.h"

namespace {

alignas(64) char g_static_bytes[4096];

char* made(size_t n) {
  auto* p = static_cast<char*>(opaque(::operator new(n)));
  memset(p, 0x5a, n);
  return p;
}

// Goes onto the list of the size that is named, which has room for it; without restartable sequences (or where it has
// none) the object is looked at.
void deleted_as(size_t n, size_t named) {
  stay_here();
  char* blocks[2000];
  for (char*& p : blocks) p = made(named);
  for (char* p : blocks) ::operator delete(p, named);
  for (int i = 0; i < 1000; i++) blocks[i] = made(named);
  ::operator delete(misuse(made(n)), named);
  malloc_trim(0);
}

}  // namespace

CASE(the_version_tells) {
  const auto version = NH_LIBRARY_FUNCTION(const char* (*)(), numaheap_version);
  REQUIRE(version != nullptr);
  EXPECT(strstr(version(), "+trust-sizes") != nullptr, "%s", version());
}

CASE_FATAL(of_a_foreign_pointer, "not from this heap") { ::operator delete(misuse(g_static_bytes + 64), 64); }
CASE_FATAL(twice, "double free") {
  char* p = made(64);
  ::operator delete(p, 64);
  ::operator delete(misuse(p), 64);
}
CASE_FATAL(free_and_delete, "double free") {
  char* p = made(64);
  free(p);
  ::operator delete(misuse(p), 64);
}
CASE_FATAL(small_as_large, "size mismatch") { ::operator delete(misuse(made(64)), 100000); }
CASE_FATAL(large_with_a_wrong_size, "size mismatch") { ::operator delete(misuse(made(100000)), 300000); }
CASE_FATAL(smaller_than_it_is, "size mismatch|free list of objects of 64 bytes holds .*: object of 1024 bytes") {
  deleted_as(1024, 64);
}
CASE_FATAL(larger_than_it_is, "size mismatch|free list of objects of 1024 bytes holds .*: object of 64 bytes") {
  deleted_as(64, 1024);
}
CASE_FATAL(large_as_small, "size mismatch|free list of objects of 64 bytes holds") { deleted_as(100000, 64); }

// Without a size, or where the call has an alignment, nothing is different.
CASE_FATAL(interior_without_a_size, "interior pointer") { ::operator delete(misuse(made(64) + 16)); }
CASE_FATAL(aligned, "size mismatch") {
  constexpr std::align_val_t kAlign{64};
  ::operator delete(misuse(opaque(::operator new(100, kAlign))), 5000, kAlign);
}
