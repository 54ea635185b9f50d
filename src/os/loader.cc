#include "os/loader.h"

#include <dlfcn.h>

extern "C" {
extern decltype(::dlsym) dlsym [[gnu::weak]];
extern decltype(::dladdr) dladdr [[gnu::weak]];
}

namespace nh {
namespace {

using Open = decltype(&::dlopen);
using Close = decltype(&::dlclose);

}  // namespace

// A static program may have dlsym(), from the rest of libc, but finds nothing by it.
bool has_loader() { return find_symbol(RTLD_DEFAULT, "dlopen") != nullptr; }

void* open_library(const char* name, int flags) {
  const auto open = reinterpret_cast<Open>(find_symbol(RTLD_DEFAULT, "dlopen"));
  return open != nullptr ? open(name, flags) : nullptr;
}

void* find_symbol(void* handle, const char* name) { return &::dlsym != nullptr ? ::dlsym(handle, name) : nullptr; }

bool describe_address(const void* p, Dl_info* info) {
  return &::dladdr != nullptr && ::dladdr(p, info) != 0 && info->dli_fname != nullptr;
}

void close_library(void* handle) {
  if (const auto close = reinterpret_cast<Close>(find_symbol(RTLD_DEFAULT, "dlclose")); close != nullptr) close(handle);
}

}  // namespace nh
