// The plugin that lifecycle_plugin.c loads.
#include <stdlib.h>
#include <string.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// The pattern of harness/case.c, since a plugin is not linked to it.
void fill(void* p, size_t n, uint64_t seed) {
  auto* out = static_cast<unsigned char*>(p);
  for (size_t i = 0; i < n; i += 8) {
    const uint64_t word = (seed ^ (i * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
    memcpy(out + i, &word, n - i < 8 ? n - i : 8);
  }
}

struct Constructed {
  void* block = malloc(12345);
  std::vector<std::string> strings;
  Constructed() {
    fill(block, 12345, 77);
    for (int i = 0; i < 200; i++) strings.emplace_back(static_cast<size_t>(i), 'p');
  }
};
Constructed g_constructed;

int g_handler_calls;

// Larger than what fits beside the stack: allocated by the dynamic linker at the first access of each thread.
thread_local char t_block[20000];
thread_local std::string t_text = "constructed at the first use by a thread, too long for the small buffer";

size_t huge() {
  volatile size_t n = SIZE_MAX / 2;
  return n;
}

bool throws() {
  try {
    void* p = ::operator new(huge());
    ::operator delete(p);
    return false;
  } catch (const std::bad_alloc&) {
    return true;
  }
}

}  // namespace

EXPORT int plugin_catches_bad_alloc() {
  if (!throws()) return 0;
  try {
    std::vector<int> v;
    v.reserve(huge() / 8);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

EXPORT int plugin_new_handler_calls() {
  g_handler_calls = 0;
  std::set_new_handler([] {
    if (++g_handler_calls == 3) std::set_new_handler(nullptr);
  });
  return throws() ? g_handler_calls : -1;
}

EXPORT void* plugin_block_of_constructor(size_t* n) {
  *n = 12345;
  return g_constructed.block;
}

EXPORT void* plugin_make(size_t n) { return malloc(n); }

EXPORT int plugin_round_trip() {
  std::vector<std::string> strings;
  for (int i = 0; i < 1000; i++) strings.push_back(std::string(static_cast<size_t>(i), 'r'));
  void* p = realloc(malloc(100), 100000);
  free(p);
  return strings[999].size() == 999 ? 1 : 0;
}

EXPORT int plugin_thread_locals(int threads) {
  std::vector<std::thread> running;
  int good[64] = {};
  for (int t = 0; t < threads; t++) {
    running.emplace_back([&good, t] {
      memset(t_block, t, sizeof t_block);
      t_text += std::to_string(t);
      good[t] = t_block[19999] == t && t_text.size() > 60;
    });
  }
  for (std::thread& thread : running) thread.join();
  int sum = 0;
  for (const int g : good) sum += g;
  return sum;
}
