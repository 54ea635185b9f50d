// dlopen without RTLD_DEEPBIND. In the shared library only.
//
// A library that is opened with that flag finds libc before us: what it mallocs comes from libc, and what it is given or
// gives away meets the wrong free(). Nothing else is changed: what the flag is for, a library's own symbols before those of
// the program, is lost with it, which NUMAHEAP_DEEPBIND brings back.
//
// libc looks up a RUNPATH, and the namespace to load into, by the address that dlopen returns to. So the way on must be a
// jump: CMakeLists.txt has this file optimised in every build, and a test reads its machine code.
#include <dlfcn.h>

#include "process/process.h"

extern "C" {
extern decltype(::dlsym) dlsym [[gnu::weak]];  // cxx_runtime.cc says why
}

namespace nh {
namespace {

using Dlopen = void* (*)(const char*, int);

Dlopen g_next;

[[gnu::noinline, gnu::cold]] bool find_next() {
  if (&::dlsym != nullptr) g_next = reinterpret_cast<Dlopen>(dlsym(RTLD_NEXT, "dlopen"));
  return g_next != nullptr;
}

// Early, so that dlopen itself need not; constructors that run before this one still can.
[[gnu::constructor(101)]] void find_early() { find_next(); }

}  // namespace
}  // namespace nh

extern "C" [[gnu::visibility("default")]] void* dlopen(const char* file, int flags) noexcept {
  if (nh::g_next == nullptr && !nh::find_next()) [[unlikely]] return nullptr;
  if (!nh::g_process.options.deep_bind) flags &= ~RTLD_DEEPBIND;
  return nh::g_next(file, flags);
}
