// Pointers that free() must not accept: from elsewhere, or into the middle of objects.
#include <sys/mman.h>

#include <new>

#include "misuse.h"

namespace {

alignas(64) char g_static_bytes[4096];

void* number(uintptr_t value) { return reinterpret_cast<void*>(value); }

// The heap is in use: an untouched heap may refuse everything for the wrong reason.
void free_foreign(void* p) {
  free(block(64));
  free(block(8 * kMiB));
  free(misuse(p));
}

void free_interior(size_t n, size_t offset) {
  char* p = block(n);
  free(misuse(p + offset));
}

}  // namespace

CASE_FATAL(stack, "not from this heap") {
  alignas(64) char bytes[256] = {1};
  free_foreign(bytes + 64);
}
CASE_FATAL(static_data, "not from this heap") { free_foreign(g_static_bytes + 128); }
CASE_FATAL(code, "not from this heap") { free_foreign(reinterpret_cast<void*>(&number)); }
CASE_FATAL(mapped_memory, "not from this heap") {
  free_foreign(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
CASE_FATAL(small_integer_1, "not from this heap") { free_foreign(number(1)); }
CASE_FATAL(small_integer_16, "not from this heap") { free_foreign(number(16)); }
CASE_FATAL(small_integer_4096, "not from this heap") { free_foreign(number(4096)); }
CASE_FATAL(minus_one, "not from this heap") { free_foreign(number(UINTPTR_MAX)); }
CASE_FATAL(minus_sixteen, "not from this heap") { free_foreign(number(UINTPTR_MAX - 15)); }
CASE_FATAL(non_canonical, "not from this heap") { free_foreign(number(0x8000000000000010u)); }
CASE_FATAL(non_canonical_pattern, "not from this heap") { free_foreign(number(0xdeadbeefdeadbee0u)); }
CASE_FATAL(just_below_the_hole, "not from this heap") { free_foreign(number(0x00007ffffffff000u)); }

// One bit of a good pointer flipped in the upper half, as a stray write would.
CASE_FATAL(flipped_high_bit, "not from this heap") {
  char* p = block(64);
  free(misuse(number(reinterpret_cast<uintptr_t>(p) ^ (uintptr_t{1} << 50))));
}

CASE_FATAL(realloc_of_a_foreign_pointer, "not from this heap") {
  free(opaque(realloc(misuse(g_static_bytes), 100)));
}
CASE_FATAL(delete_of_a_foreign_pointer, "not from this heap") { ::operator delete(misuse(g_static_bytes)); }
CASE_FATAL(sized_delete_of_a_foreign_pointer, "not from this heap") { ::operator delete(misuse(g_static_bytes), 64); }
CASE_FATAL(first_operation_is_a_foreign_free, "not from this heap") { free(misuse(g_static_bytes)); }

// Pages of the library's own regions that hold no object. What the line says depends on what is there; that it comes,
// and names the pointer, does not.
CASE_FATAL(never_allocated_part_of_the_heap, "") {
  char* p = block(64);
  free(misuse(number((reinterpret_cast<uintptr_t>(p) | 0x3ffffff) + 1 + (uintptr_t{1} << 30))));
}

CASE_FATAL(interior_1, "interior pointer") { free_interior(64, 1); }
CASE_FATAL(interior_8, "interior pointer") { free_interior(64, 8); }
CASE_FATAL(interior_16, "interior pointer") { free_interior(64, 16); }
CASE_FATAL(interior_last_byte, "interior pointer") { free_interior(64, 63); }
CASE_FATAL(interior_of_16, "interior pointer") { free_interior(16, 8); }
CASE_FATAL(interior_of_16_misaligned, "interior pointer") { free_interior(16, 3); }
CASE_FATAL(interior_of_48, "interior pointer") { free_interior(48, 16); }
CASE_FATAL(interior_of_1024, "interior pointer") { free_interior(1024, 512); }
CASE_FATAL(interior_of_1024_tail, "interior pointer") { free_interior(1024, 1023); }
CASE_FATAL(interior_of_32768, "interior pointer") { free_interior(32768, 8192); }
CASE_FATAL(interior_of_40000, "interior pointer") { free_interior(40000, 16); }
CASE_FATAL(interior_of_40000_page, "interior pointer") { free_interior(40000, 8192); }
CASE_FATAL(interior_of_40000_tail, "interior pointer") { free_interior(40000, 39999); }
CASE_FATAL(interior_of_8_mib, "interior pointer") { free_interior(8 * kMiB, 2 * kMiB); }
CASE_FATAL(interior_of_8_mib_misaligned, "interior pointer") { free_interior(8 * kMiB, 5 * kMiB + 1); }
CASE_FATAL(interior_of_200_mib, "interior pointer") {
  // Another arena than the one where the object starts.
  auto* p = static_cast<char*>(opaque(malloc(200 * kMiB)));
  free(misuse(p + 150 * kMiB));
}
CASE_FATAL(interior_realloc, "interior pointer") {
  char* p = block(64);
  free(opaque(realloc(misuse(p + 16), 500)));
}
CASE_FATAL(interior_delete, "interior pointer") { ::operator delete(misuse(static_cast<char*>(opaque(::operator new(100))) + 8)); }
CASE_FATAL(interior_of_an_aligned_block, "interior pointer") {
  auto* p = static_cast<char*>(opaque(aligned_alloc(4096, 5000)));
  free(misuse(p + 4096));
}
