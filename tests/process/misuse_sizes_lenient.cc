// Without NUMAHEAP_CHECK=strict an object that is freed with a wrong size is freed as what it is, and that is said once.
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>

#include <new>

#include "misuse.h"
#include "pin.h"

#ifdef NH_TEST_LINKED
extern "C" void free_sized(void*, size_t);
#endif

namespace {

// What is written to stderr from here on.
int g_captured;
void capture_stderr() {
  g_captured = memfd_create("stderr", MFD_CLOEXEC);
  REQUIRE(g_captured >= 0 && dup2(g_captured, 2) == 2);
}
const char* captured() {
  static char text[4096];
  const ssize_t n = pread(g_captured, text, sizeof text - 1, 0);
  text[n < 0 ? 0 : n] = '\0';
  return text;
}
int lines(const char* text) {
  int count = 0;
  for (; *text != '\0'; text++) count += *text == '\n';
  return count;
}

char* made(size_t n) { return static_cast<char*>(opaque(::operator new(n))); }
void deleted(void* p, size_t n) { ::operator delete(opaque(p), n); }

// Whoever reads stderr by now wants to know what failed.
void expect_one_line(int out, const void* p) {
  const char* text = captured();
  char pointer[32];
  snprintf(pointer, sizeof pointer, "%p", p);
  const bool right = lines(text) == 1 && strstr(text, "numaheap: size mismatch: ") == text && strstr(text, pointer) != nullptr &&
                     strstr(text, "NUMAHEAP_CHECK=strict") != nullptr;
  dup2(out, 2);
  EXPECT(right, "stderr: %s", text);
}

}  // namespace

CASE(freed_as_what_it_is_and_said_once) {
  stay_here();
  const int out = dup(2);
  capture_stderr();
  char* first = made(1024);
  errno = 4711;
  deleted(first, 64);
  EXPECT(errno == 4711);
  // It is on the list of its own size.
  EXPECT(made(1024) == first);
  EXPECT(made(64) != first);
  for (int i = 0; i < 1000; i++) {
    deleted(made(64), 1024);
    deleted(made(64), 100000);
    deleted(made(100000), 300000);
    deleted(made(100000), 64);
    ::operator delete[](opaque(::operator new[](1000)), 100);
    ::operator delete(opaque(::operator new(1000, std::align_val_t{64})), 100, std::align_val_t{64});
    ::operator delete(opaque(::operator new(100, std::align_val_t{64})), SIZE_MAX - 10, std::align_val_t{64});
    deleted(made(100), 100);
  }
  expect_one_line(out, first);
}

CASE(free_sized_too) {
  const auto sized = NH_LIBRARY_FUNCTION(void (*)(void*, size_t), free_sized);
  REQUIRE(sized != nullptr);
  const int out = dup(2);
  capture_stderr();
  char* first = block(64);
  sized(opaque(first), 1000);
  for (int i = 0; i < 100; i++) sized(block(1000), 100);
  expect_one_line(out, first);
}

// Memory does not grow by what is freed with a wrong size.
CASE(nothing_is_lost) {
  const int out = dup(2);
  capture_stderr();
  char* first = made(200000);
  deleted(first, 100);
  const long before = resident_kib();
  for (int i = 0; i < 2000; i++) {
    char* p = made(200000);
    memset(p, 1, 200000);
    deleted(p, 100);
  }
  expect_one_line(out, first);
  EXPECT(resident_kib() - before < 64 * 1024, "%ld KiB more", resident_kib() - before);
}

// Not a mistake of the size: what was freed already, or is no object.
CASE_FATAL(twice, "double free") {
  char* p = made(1024);
  deleted(p, 1024);
  deleted(misuse(p), 64);
}
CASE_FATAL(interior, "interior pointer") { deleted(misuse(made(1024) + 64), 64); }
CASE_FATAL(foreign, "not from this heap") {
  alignas(16) static char bytes[256];
  deleted(misuse(bytes + 64), 64);
}
