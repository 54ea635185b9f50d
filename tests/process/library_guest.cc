// A library that is linked to numaheap, for library_host.c: a program that has another malloc opens it.
#include <numaheap/numaheap.hpp>

#include <cstring>
#include <list>
#include <memory_resource>
#include <string>
#include <vector>

#define GUEST extern "C" [[gnu::visibility("default")]]

namespace {

template <typename Allocator>
bool grows(const Allocator& allocator) {
  std::vector<typename Allocator::value_type, Allocator> v(allocator);
  for (int i = 0; i < 300000; i++) v.emplace_back();
  return v.size() == 300000;
}

struct alignas(128) Wide {
  void* pointer = nullptr;
  char bytes[120] = {};
};

}  // namespace

GUEST void* guest_malloc() { return reinterpret_cast<void*>(&malloc); }

GUEST int guest_functions() {
  for (std::size_t n = 1; n < 30000000; n = n * 3 + 1) {
    char* all[] = {static_cast<char*>(numaheap_malloc(n)),        static_cast<char*>(numaheap_calloc(n, 1)),
                   static_cast<char*>(numaheap_malloc_local(n)),  static_cast<char*>(numaheap_malloc_noscan(n)),
                   static_cast<char*>(numaheap_aligned_alloc(256, n))};
    for (char*& p : all) {
      if (p == nullptr || numaheap_usable_size(p) < n) return 0;
      std::memset(p, 5, n);
      p = static_cast<char*>(numaheap_realloc(p, 2 * n));
      if (p == nullptr || p[0] != 5 || p[n - 1] != 5) return 0;
    }
    for (char* p : all) numaheap_free(p);
  }
  numaheap_free(nullptr);
  return numaheap_usable_size(nullptr) == 0;
}

GUEST int guest_allocators() {
  const int node = numaheap_local_node();
  std::list<std::string, numaheap::allocator<std::string>> list;
  for (int i = 0; i < 1000; i++) list.emplace_back(100, 'x');
  numaheap::memory_resource resource;
  numaheap::memory_resource on_node(numaheap::placement::on_node(node));
  std::pmr::vector<std::pmr::string> texts(&resource), more(&on_node);
  for (int i = 0; i < 1000; i++) texts.emplace_back(100, 'x'), more.emplace_back(100, 'x');
  return grows(numaheap::allocator<double>()) && grows(numaheap::allocator<void*>()) && grows(numaheap::allocator<Wide>()) &&
         grows(numaheap::node_allocator<double>(node)) && grows(numaheap::interleaved_allocator<Wide>()) && list.size() == 1000;
}

GUEST int guest_reports() {
  char text[4096];
  return numaheap_stats_json(text, sizeof text) > 0 && numaheap_heap_count() > 0 && numaheap_trim() + 1 > 0;
}
