// A program that replaces operator new and delete, as every C++ program may, and is linked with the library too.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

static int calls = 0;

void* operator new(std::size_t size) {
  calls++;
  return std::malloc(size);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

int main() {
  std::string* text = new std::string(1000, 'x');
  delete text;
  std::puts(calls == 2 ? "ok" : "the program's operator new was not called");
}
