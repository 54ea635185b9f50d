// Every form of operator new and delete, the new_handler loop and bad_alloc.
#include <stdlib.h>

#include <initializer_list>
#include <new>

#include "harness/case.h"

namespace {

constexpr std::align_val_t kAlign64{64};
constexpr std::align_val_t kAlign8K{8192};

bool aligned(const void* p, size_t alignment) { return reinterpret_cast<uintptr_t>(p) % alignment == 0; }

size_t huge() { return opaque_size(SIZE_MAX / 2); }

int g_handler_calls;

template <typename Call>
bool throws_bad_alloc(Call call) {
  try {
    opaque(call());
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

}  // namespace

CASE(plain_forms) {
  for (size_t n = 0; n < 3000000; n += n / 7 + 1) {
    void* p = opaque(::operator new(n));
    void* q = opaque(::operator new[](n));
    REQUIRE(p != nullptr && q != nullptr && p != q);
    EXPECT(aligned(p, 16) && aligned(q, 16), "%zu bytes", n);
    fill_pattern(p, n, 1);
    fill_pattern(q, n, 2);
    EXPECT(verify_pattern(p, n, 1) == n && verify_pattern(q, n, 2) == n);
    ::operator delete(p);
    ::operator delete[](q);
  }
}

CASE(sized_forms) {
  for (size_t n = 0; n < 3000000; n += n / 7 + 1) {
    ::operator delete(opaque(::operator new(n)), n);
    ::operator delete[](opaque(::operator new[](n)), n);
    // Blocks of malloc meet sized delete in code that mixes the two.
    ::operator delete(opaque(malloc(n)), n);
  }
}

CASE(nothrow_forms) {
  for (size_t n = 0; n < 300000; n += n / 7 + 1) {
    void* p = opaque(::operator new(n, std::nothrow));
    void* q = opaque(::operator new[](n, std::nothrow));
    REQUIRE(p != nullptr && q != nullptr);
    ::operator delete(p, std::nothrow);
    ::operator delete[](q, std::nothrow);
  }
  EXPECT(::operator new(huge(), std::nothrow) == nullptr);
  EXPECT(::operator new[](huge(), std::nothrow) == nullptr);
  EXPECT(::operator new(huge(), kAlign64, std::nothrow) == nullptr);
  EXPECT(::operator new[](huge(), kAlign64, std::nothrow) == nullptr);
}

CASE(aligned_forms) {
  for (size_t n = 0; n < 300000; n += n / 7 + 1) {
    for (const std::align_val_t alignment : {std::align_val_t{8}, std::align_val_t{32}, kAlign64, std::align_val_t{256},
                                             std::align_val_t{2048}, kAlign8K, std::align_val_t{16384}}) {
      const size_t a = static_cast<size_t>(alignment);
      void* p[8] = {::operator new(n, alignment),   ::operator new[](n, alignment), ::operator new(n, alignment, std::nothrow),
                    ::operator new[](n, alignment, std::nothrow), ::operator new(n, alignment), ::operator new[](n, alignment),
                    ::operator new(n, alignment), ::operator new[](n, alignment)};
      for (void* block : p) {
        REQUIRE(opaque(block) != nullptr);
        EXPECT(aligned(block, a), "%zu bytes at %zu: %p", n, a, block);
        fill_pattern(block, n, 3);
      }
      ::operator delete(p[0], alignment);
      ::operator delete[](p[1], alignment);
      ::operator delete(p[2], alignment, std::nothrow);
      ::operator delete[](p[3], alignment, std::nothrow);
      ::operator delete(p[4], n, alignment);
      ::operator delete[](p[5], n, alignment);
      ::operator delete(p[6], alignment);
      ::operator delete[](p[7], n, alignment);
    }
  }
}

CASE(delete_of_null) {
  void* null = opaque(nullptr);
  ::operator delete(null);
  ::operator delete[](null);
  ::operator delete(null, 10);
  ::operator delete[](null, 10);
  ::operator delete(null, std::nothrow);
  ::operator delete[](null, std::nothrow);
  ::operator delete(null, kAlign64);
  ::operator delete[](null, kAlign64);
  ::operator delete(null, 10, kAlign64);
  ::operator delete[](null, 10, kAlign64);
  ::operator delete(null, kAlign64, std::nothrow);
  ::operator delete[](null, kAlign64, std::nothrow);
}

CASE(bad_alloc_is_thrown) {
  EXPECT(throws_bad_alloc([] { return ::operator new(huge()); }));
  EXPECT(throws_bad_alloc([] { return ::operator new[](huge()); }));
  EXPECT(throws_bad_alloc([] { return ::operator new(huge(), kAlign64); }));
  EXPECT(throws_bad_alloc([] { return ::operator new[](huge(), kAlign64); }));
  EXPECT(throws_bad_alloc([] { return ::operator new(opaque_size(SIZE_MAX)); }));
  EXPECT(throws_bad_alloc([] { return ::operator new(opaque_size(SIZE_MAX), kAlign64); }));
  // What the compiler makes of an overflowing array is bad_array_new_length; it is a bad_alloc.
  EXPECT(throws_bad_alloc([] { return new long[opaque_size(SIZE_MAX / 4)]; }));
  // The heap works on afterwards.
  int* p = new int(7);
  EXPECT(*p == 7);
  delete p;
}

CASE(new_handler_is_called_until_it_gives_up) {
  g_handler_calls = 0;
  std::set_new_handler([] {
    if (++g_handler_calls == 5) std::set_new_handler(nullptr);
  });
  EXPECT(throws_bad_alloc([] { return ::operator new(huge()); }));
  EXPECT(g_handler_calls == 5, "%d calls", g_handler_calls);
  // The nothrow forms call it, too.
  for (const bool aligned_form : {false, true}) {
    g_handler_calls = 0;
    std::set_new_handler([] {
      if (++g_handler_calls == 3) std::set_new_handler(nullptr);
    });
    EXPECT((aligned_form ? ::operator new[](huge(), kAlign64, std::nothrow) : ::operator new(huge(), std::nothrow)) == nullptr);
    EXPECT(g_handler_calls == 3, "%d calls", g_handler_calls);
  }
}

CASE(new_handler_may_throw_its_own) {
  struct Mine : std::bad_alloc {};
  std::set_new_handler([] { throw Mine(); });
  bool caught = false;
  try {
    opaque(::operator new(huge()));
  } catch (const Mine&) {
    caught = true;
  }
  EXPECT(caught);
}

CASE(nothrow_forms_catch_what_a_handler_throws) {
  std::set_new_handler([] { throw std::bad_alloc(); });
  EXPECT(::operator new(huge(), std::nothrow) == nullptr);
  EXPECT(::operator new[](huge(), std::nothrow) == nullptr);
  EXPECT(::operator new(huge(), kAlign64, std::nothrow) == nullptr);
  EXPECT(::operator new[](huge(), kAlign64, std::nothrow) == nullptr);
}

// malloc has nothing to do with the handler.
CASE(malloc_does_not_call_the_handler) {
  g_handler_calls = 0;
  std::set_new_handler([] { g_handler_calls++; std::set_new_handler(nullptr); });
  EXPECT(malloc(huge()) == nullptr);
  EXPECT(g_handler_calls == 0);
}

CASE(objects_and_arrays_of_the_language) {
  struct alignas(128) Wide {
    char bytes[200];
    ~Wide() { bytes[0] = 1; }
  };
  for (int i = 0; i < 1000; i++) {
    Wide* one = static_cast<Wide*>(opaque(new Wide));
    Wide* many = static_cast<Wide*>(opaque(new Wide[7]));
    EXPECT(aligned(one, 128) && aligned(many, 128));
    delete one;
    delete[] many;
  }
}
