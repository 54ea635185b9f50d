// Objects that operator delete is told a wrong size of: noticed at once unless sizes are trusted (NUMAHEAP_TRUST_SIZES).
#include <new>

#include "misuse.h"

CASE_FATAL(sized_delete_too_large, "size mismatch") { ::operator delete(misuse(opaque(::operator new(64))), 1024); }
CASE_FATAL(sized_delete_too_small, "size mismatch") { ::operator delete(misuse(opaque(::operator new(1024))), 64); }
CASE_FATAL(sized_array_delete, "size mismatch") { ::operator delete[](misuse(opaque(::operator new[](1000))), 100); }
CASE_FATAL(sized_delete_large_as_small, "size mismatch") { ::operator delete(misuse(opaque(::operator new(100000))), 64); }
