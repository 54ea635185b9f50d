// Catches std::bad_alloc and uses nothing else of libstdc++: a static link takes only what somebody refers to, so the
// library itself must see to it that the exception can be thrown.
#include <cstdio>
#include <new>

int main() {
  volatile std::size_t size = static_cast<std::size_t>(-1) / 4;
  try {
    delete[] new char[size];
  } catch (const std::bad_alloc&) {
    std::puts("ok");
  }
}
