// Whether the loader is found: in the dynamic form of this program, and not in the static ones, whether or not these have
// dlsym() from elsewhere. See CMakeLists.txt.
#include "os/loader.h"

#include <cstdio>
#include <cstring>

#include <dlfcn.h>

int main(int argc, char**) {
#ifdef NH_HAS_DLSYM
  void* (*volatile strong)(void*, const char*) = &::dlsym;
  if (strong == nullptr) return 9;
#endif
  (void)argc;
#ifdef NH_STATIC
  if (nh::has_loader() || nh::open_library("libm.so.6", RTLD_NOW) != nullptr) return 1;
  nh::close_library(nullptr);
  return 0;
#else
  if (!nh::has_loader() || nh::open_library("no-such-library.so", RTLD_NOW) != nullptr) return 2;
  void* const library = nh::open_library("libm.so.6", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return 3;
  using Function = double (*)(double);
  const auto square_root = reinterpret_cast<Function>(nh::find_symbol(library, "sqrt"));
  if (square_root == nullptr || square_root(81) != 9) return 4;
  if (nh::find_symbol(library, "no_such_symbol") != nullptr) return 5;
  nh::close_library(library);
  return 0;
#endif
}
