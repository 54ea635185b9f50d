// A program that replaces the array forms and the aligned forms, but not the plain ones.
#include <stdlib.h>

#include <new>

#include "harness/case.h"

namespace {

constexpr std::align_val_t kAlign{64};
int g_array_news, g_array_deletes, g_aligned_news, g_aligned_deletes;

}  // namespace

void* operator new[](size_t size) {
  g_array_news++;
  return malloc(size);
}
void operator delete[](void* p) noexcept {
  g_array_deletes++;
  free(p);
}
void* operator new(size_t size, std::align_val_t alignment) {
  g_aligned_news++;
  return aligned_alloc(static_cast<size_t>(alignment), size);
}
void operator delete(void* p, std::align_val_t) noexcept {
  g_aligned_deletes++;
  free(p);
}

CASE(plain_forms_are_not_changed) {
  for (int i = 0; i < 3; i++) {
    ::operator delete(opaque(::operator new(100)));
    ::operator delete(opaque(::operator new(100)), 100);
    ::operator delete(opaque(::operator new(100, std::nothrow)), std::nothrow);
  }
  EXPECT(g_array_news == 0 && g_array_deletes == 0 && g_aligned_news == 0 && g_aligned_deletes == 0);
}
CASE(array_forms) {
  for (int i = 1; i < 4; i++) {
    ::operator delete[](opaque(::operator new[](100)));
    ::operator delete[](opaque(::operator new[](100)), 100);
    ::operator delete[](opaque(::operator new[](100, std::nothrow)), std::nothrow);
    EXPECT(g_array_news == 3 * i && g_array_deletes == 3 * i, "%d news, %d deletes", g_array_news, g_array_deletes);
  }
  EXPECT(g_aligned_news == 0 && g_aligned_deletes == 0);
}
CASE(aligned_forms) {
  for (int i = 1; i < 4; i++) {
    ::operator delete(opaque(::operator new(128, kAlign)), kAlign);
    ::operator delete(opaque(::operator new(128, kAlign)), 128, kAlign);
    ::operator delete(opaque(::operator new(128, kAlign, std::nothrow)), kAlign, std::nothrow);
    ::operator delete[](opaque(::operator new[](128, kAlign)), kAlign);
    ::operator delete[](opaque(::operator new[](128, kAlign)), 128, kAlign);
    ::operator delete[](opaque(::operator new[](128, kAlign, std::nothrow)), kAlign, std::nothrow);
    EXPECT(g_aligned_news == 6 * i && g_aligned_deletes == 6 * i, "%d news, %d deletes", g_aligned_news, g_aligned_deletes);
  }
  EXPECT(g_array_news == 0 && g_array_deletes == 0);
}
