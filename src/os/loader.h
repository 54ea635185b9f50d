// The dynamic loader, if the program has one.
//
// The functions are asked of the loader by name: a static program that names dlopen(), even by a weak reference, makes the
// linker warn of it, and must not be given the loader for our sake. dlsym() itself is a weak reference.
//
// They allocate, so they are not for the first allocation of a process.
#pragma once

namespace nh {

// False in a static program: the other functions return nullptr there.
bool has_loader();
// As dlopen() and dlsym(); handle nullptr is RTLD_DEFAULT.
void* open_library(const char* name, int flags);
void* find_symbol(void* handle, const char* name);
void close_library(void* handle);

}  // namespace nh
