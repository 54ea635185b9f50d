// Where operator new finds the C++ runtime, on which the library must not depend.
#pragma once

namespace nh {

// A function of libstdc++ or libc++: of the global scope, or of whatever runtime is loaded at all (a C program may have
// opened a C++ plugin with RTLD_LOCAL). nullptr: there is none. Weak: the static library does not have this function.
[[gnu::weak]] void* find_in_cxx_runtime(const char* name);

}  // namespace nh
