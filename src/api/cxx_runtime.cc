// Functions of the C++ runtime, looked up among the libraries that are loaded. In the shared library only: a reference to
// dlopen would make every static link warn, and there static_operators.S sees to what is needed.
#include "api/cxx_runtime.h"

#include <dlfcn.h>

// Weak: a libc that has these in a library of their own need not bring it.
extern "C" {
extern decltype(::dlopen) dlopen [[gnu::weak]];
extern decltype(::dlsym) dlsym [[gnu::weak]];
}

namespace nh {
namespace {

constexpr const char* kRuntimes[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};

}  // namespace

void* find_in_cxx_runtime(const char* name) {
  if (&::dlopen == nullptr || &::dlsym == nullptr) return nullptr;
  if (void* symbol = dlsym(RTLD_DEFAULT, name); symbol != nullptr) return symbol;
  for (const char* runtime : kRuntimes) {
    void* handle = dlopen(runtime, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == nullptr) continue;
    // NOLOAD counted a reference: it stays, since an exception from there may be in flight.
    if (void* symbol = dlsym(handle, name); symbol != nullptr) return symbol;
  }
  return nullptr;
}

}  // namespace nh
