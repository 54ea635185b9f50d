// numaheap_find_leaks() on what is known to be lost, and on what only looks so.
#include "leaks.h"

#include <sys/mman.h>

#include <string>

namespace {

const auto g_on_node = NH_LIBRARY_FUNCTION(decltype(&numaheap_malloc_on_node), numaheap_malloc_on_node);
void* make_placed(size_t n) { return zeroed(g_on_node(n, 0)); }

// `count` objects, each the only one that points to the next.
[[gnu::noinline]] void chain(Make* make_one, size_t count, size_t bytes, void** first, bool ring) {
  deep([=] {
    void** at = first;
    for (size_t i = 0; i < count; i++) {
      *at = make_one(bytes);
      at = static_cast<void**>(*at) + bytes / sizeof(void*) - 1;
    }
    if (ring) *at = *first;
  });
}

// A hundred objects, to which these words point.
[[gnu::noinline]] void fill(void** words, size_t step) {
  deep([=] {
    for (size_t i = 0; i < 100; i++) words[i * step] = make(64);
  });
}

void* volatile g_static;

struct Counted {
  std::string text;
  ~Counted() {}
};

}  // namespace

CASE(what_nothing_points_to) {
  begin();
  for (size_t bytes : {1ul, 16ul, 100ul, 5000ul, 32768ul, 40000ul, 300000ul, 9ul << 20}) {
    lose(make, 50, bytes);
    expect_lost(50, 0, "malloc");
    begin();
  }
  lose(make_placed, 50, 100);
  lose(make_placed, 5, 100000);
  expect_lost(55, 0, "placed");
  begin();
  lose(make_noscan, 512, 8);
  lose(make_noscan, 512, 500);
  expect_lost(1024, 0, "noscan");
}

CASE(what_was_freed) {
  begin();
  for (size_t bytes : {1ul, 100ul, 5000ul, 40000ul, 3ul << 20, 9ul << 20}) {
    void* objects[30];
    for (void*& p : objects) p = make(bytes);
    for (void* p : objects) free(p);
    memset(objects, 0, sizeof objects);
  }
  expect_lost(0, 0, "freed");
}

CASE(inner_pointers) {
  begin();
  auto* const words = static_cast<char**>(malloc(8 * sizeof(char*)));
  g_static = words;
  deep([=] {
    words[0] = static_cast<char*>(make(100)) + 50;
    words[1] = static_cast<char*>(make(100)) + 99;
    words[2] = static_cast<char*>(make(60000)) + 59999;
    words[3] = static_cast<char*>(make(20 << 20)) + (19 << 20);
    // With a cookie in front.
    words[4] = reinterpret_cast<char*>(new Counted[10]);
    words[5] = reinterpret_cast<char*>(new Counted[10000]);
    words[6] = static_cast<char*>(make_noscan(15)) + 7;
    t_own = make_noscan(15);  // the block of the last tiny object is never lost
    words[7] = static_cast<char*>(make_noscan(8)) + 3;
  });
  expect_lost(0, 0, "held");
  memset(words, 0, 8 * sizeof(char*));
  expect_lost(8, 0, "let go");
}

CASE(only_through_memory_that_may_hold_pointers) {
  begin();
  auto** const words = static_cast<void**>(make_noscan(800));
  g_static = words;
  fill(words, 1);
  expect_lost(100, 0, "in noscan memory");
  begin();
  auto** const large = static_cast<void**>(make_noscan(1 << 20));
  words[0] = nullptr;
  t_own = large;
  fill(large, 1000);
  expect_lost(100, 0, "in large noscan memory");
  begin();
  auto** const mapped = static_cast<void**>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  fill(mapped, 1000);
  expect_lost(0, 0, "in a mapping of the program's");
  munmap(mapped, 1 << 20);
  expect_lost(100, 0, "unmapped");
}

CASE(what_hangs_on_lost_objects) {
  void* first = nullptr;
  begin();
  chain(make, 1000, 48, &first, false);
  expect_lost(0, 0, "a chain");
  first = nullptr;
  expect_lost(1, 999, "a chain");
  begin();
  chain(make, 1000, 48, &first, true);
  first = nullptr;
  expect_lost(1, 999, "a ring");
  begin();
  chain(make, 20, 100000, &first, true);
  first = nullptr;
  expect_lost(1, 19, "a ring of large ones");
  begin();
  chain(make, 1, 48, &first, true);
  first = nullptr;
  expect_lost(1, 0, "one that points to itself");
  begin();
  chain(make_noscan, 2, 48, &first, false);
  first = nullptr;
  expect_lost(2, 0, "noscan");
}
