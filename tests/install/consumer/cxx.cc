// A C++ program with containers, exceptions and threads. It defines names that the library also has inside: in a static
// link they must not meet.
#include <numaheap/numaheap.hpp>

#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace nh {
int calls = 0;
void warn_line(const char*) { calls++; }
[[noreturn]] void fatal(const char*) { throw 1; }
}  // namespace nh

struct alignas(128) Aligned {
  char bytes[128];
};

int main() {
  std::vector<std::thread> threads;
  std::vector<std::map<int, std::string>> maps(4);
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&maps, t] {
      for (int i = 0; i < 10000; i++) maps[t][i * 7919 % 10007] = std::string(i % 100, 'x');
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& map : maps) {
    if (map.size() != 10000) return 2;
  }
  auto aligned = std::make_unique<Aligned>();
  if (reinterpret_cast<std::uintptr_t>(aligned.get()) % 128 != 0) return 3;
  const numaheap::node_allocator<double> on_node(numaheap_local_node());
  std::vector<double, numaheap::node_allocator<double>> field(1000, 1.0, on_node);
  const std::vector<double, numaheap::interleaved_allocator<double>> spread(field.begin(), field.end());
  if (spread.size() != 1000 || spread[999] != 1.0) return 6;
  volatile std::size_t huge = PTRDIFF_MAX;
  try {
    delete[] new char[huge];
    return 4;
  } catch (const std::bad_alloc&) {
  }
  nh::warn_line("mine");
  try {
    nh::fatal("mine");
  } catch (int) {
    nh::calls++;
  }
  if (nh::calls != 2) return 5;
  std::puts("ok");
}
