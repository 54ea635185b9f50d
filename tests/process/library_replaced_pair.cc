// A program that replaces operator new(size_t) and operator delete(void*) and nothing else: all default forms without an
// alignment must go through these two. Its objects begin behind a header, or come from memory that is none of ours.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <new>

#include "harness/case.h"

namespace {

constexpr size_t kHeader = 32;
constexpr char kMagic[kHeader] = "an object of this program's own";

bool g_from_pool, g_without_header;
int g_news, g_deletes, g_strange;

char* pool() {
  static char* next;
  if (next == nullptr) {
    next = static_cast<char*>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  return next += 256;
}

struct Block {
  ~Block() { asm volatile("" : : "r"(this) : "memory"); }  // makes delete[] name a size
  long words[6];
};

// One of each, whatever the form.
void expect_one_of_each(const char* what) {
  EXPECT(g_news == 1 && g_deletes == 1 && g_strange == 0, "%s: %d news, %d deletes, %d of them strange", what, g_news,
         g_deletes, g_strange);
  g_news = g_deletes = 0;
}

void every_form() {
  // Twice: the fast path of delete may open with the first.
  for (int i = 0; i < 2; i++) {
    ::operator delete(opaque(::operator new(64)));
    expect_one_of_each("plain");
    ::operator delete(opaque(::operator new(64)), 64);
    expect_one_of_each("sized");
    ::operator delete(opaque(::operator new(64, std::nothrow)), std::nothrow);
    expect_one_of_each("nothrow");
    ::operator delete[](opaque(::operator new[](64)));
    expect_one_of_each("array");
    ::operator delete[](opaque(::operator new[](64)), 64);
    expect_one_of_each("sized array");
    ::operator delete[](opaque(::operator new[](64, std::nothrow)), std::nothrow);
    expect_one_of_each("nothrow array");
    delete static_cast<Block*>(opaque(new Block));
    expect_one_of_each("object");
    delete[] static_cast<Block*>(opaque(new Block[3]));
    expect_one_of_each("array of objects");
  }
}

}  // namespace

void* operator new(size_t size) {
  g_news++;
  if (g_from_pool) return pool();
  char* p = static_cast<char*>(malloc(size + kHeader));
  if (p == nullptr) throw std::bad_alloc();
  if (g_without_header) return p;
  memcpy(p, kMagic, kHeader);
  return p + kHeader;
}

void operator delete(void* p) noexcept {
  g_deletes++;
  if (g_from_pool) return;
  if (g_without_header) return free(p);
  char* block = static_cast<char*>(p) - kHeader;
  if (memcmp(block, kMagic, kHeader) != 0) {
    g_strange++;
    return;
  }
  free(block);
}

CASE(objects_behind_a_header) { every_form(); }
CASE(objects_of_a_pool) {
  g_from_pool = true;
  every_form();
}
// Nothing in the pointer tells that it has to go through the program's operator delete.
CASE(objects_just_as_malloc_gave_them) {
  g_without_header = true;
  every_form();
}
CASE(aligned_forms_are_still_ours) {
  constexpr std::align_val_t kAlign{64};
  for (int i = 0; i < 3; i++) {
    ::operator delete(opaque(::operator new(100, kAlign)), kAlign);
    ::operator delete(opaque(::operator new(100, kAlign)), 100, kAlign);
    ::operator delete[](opaque(::operator new[](100, kAlign)), 100, kAlign);
    ::operator delete[](opaque(::operator new[](100, kAlign, std::nothrow)), kAlign, std::nothrow);
  }
  EXPECT(g_news == 0 && g_deletes == 0, "%d news, %d deletes", g_news, g_deletes);
}
CASE(free_sized_is_still_ours) {
  for (int i = 0; i < 3; i++) free(opaque(malloc(100)));
  EXPECT(g_news == 0 && g_deletes == 0, "%d news, %d deletes", g_news, g_deletes);
}
CASE(nothrow_form_catches_what_the_program_throws) {
  EXPECT(::operator new(opaque_size(SIZE_MAX / 2), std::nothrow) == nullptr);
  EXPECT(::operator new[](opaque_size(SIZE_MAX / 2), std::nothrow) == nullptr);
  EXPECT(g_news == 2, "%d news", g_news);
}
