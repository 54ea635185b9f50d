// Says what is wrong with a pointer, in one line, and aborts.
#pragma once

#include <cstddef>

namespace nh {

// p was handed to `call` ("free", "realloc", ...) and is not the start of a live object.
[[noreturn]] void bad_pointer(const void* p, const char* call);
[[noreturn]] void double_free(const void* p, const char* call);
[[noreturn]] void size_mismatch(const void* p, std::size_t claimed, std::size_t actual);

}  // namespace nh
