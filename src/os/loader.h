// The dynamic loader, if the program has one.
//
// The functions are asked of the loader by name: a static program that names dlopen(), even by a weak reference, makes the
// linker warn of it, and must not be given the loader for our sake. dlsym() itself is a weak reference.
//
// Those that say nothing else allocate, so they are not for the first allocation of a process.
#pragma once

#include <dlfcn.h>

namespace nh {

// False in a static program: the other functions return nullptr there.
bool has_loader();
// What lies at an address, as dladdr() tells it. Allocates nothing. False: nothing is known, or there is no loader.
bool describe_address(const void* p, Dl_info* info);
// As dlopen() and dlsym(); handle nullptr is RTLD_DEFAULT.
void* open_library(const char* name, int flags);
void* find_symbol(void* handle, const char* name);
void close_library(void* handle);

}  // namespace nh
