// Says in one line what is wrong with a pointer or a size.
#pragma once

#include <cstddef>

#include "api/classify.h"

namespace nh {

// p was handed to `call` ("free", "realloc", ...) and is not the start of a live object. Aborts.
[[noreturn]] void bad_pointer(const void* p, const char* call, const Found& found);
// Another thread has freed the object since it was found.
[[noreturn]] void double_free(const void* p, const char* call, const Found& found);
// The caller gives the object at p back as one of `claimed` bytes. Aborts under NUMAHEAP_CHECK=strict; otherwise the first
// time in a process it is said, and the object can be freed by what it is.
void size_mismatch(const void* p, std::size_t claimed, std::size_t actual);

}  // namespace nh
