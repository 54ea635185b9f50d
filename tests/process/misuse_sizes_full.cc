// Where sizes are trusted and the list has no room, an object is looked at after all. Without restartable sequences no list
// that operator delete finds has room.
#include <new>

#include "misuse.h"

namespace {

char* made(size_t n) { return static_cast<char*>(opaque(::operator new(n))); }

}  // namespace

CASE(right_sizes) {
  for (size_t n = 1; n < 100000; n += n / 5 + 1) ::operator delete(made(n), n);
}
CASE_FATAL(smaller_than_it_is, "size mismatch") { ::operator delete(misuse(made(1024)), 64); }
CASE_FATAL(larger_than_it_is, "size mismatch") { ::operator delete(misuse(made(64)), 1024); }
CASE_FATAL(large_as_small, "size mismatch") { ::operator delete(misuse(made(100000)), 64); }
CASE_FATAL(interior, "interior pointer") { ::operator delete(misuse(made(1024) + 512), 512); }
CASE_FATAL(twice, "double free") {
  char* p = made(64);
  ::operator delete(p, 64);
  ::operator delete(misuse(p), 64);
}
