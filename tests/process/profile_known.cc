// Allocates what is known: the profile is judged by it (profile.py).
//
//   profile_known kinds     one function per kind of allocation
//   profile_known threads   eight threads, each allocates for itself and frees what another one has allocated
//   profile_known fork      the child allocates at a place of its own, and both end
//   profile_known calls     numaheap_profile_start(), _stop(), _dump() around places of their own
//   profile_known signal    raises SIGUSR2, and then allocates at a place that the file must not have
//   profile_known double    frees a sampled object twice
//
// Prints a line per place: name, objects that live, their bytes, objects in all, their bytes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

#define PLACE extern "C" [[gnu::noinline, gnu::noclone]] void*

void keep(void* p) { asm volatile("" : : "r"(p) : "memory"); }

void truth(const char* place, std::size_t live, std::size_t all, std::size_t bytes) {
  std::printf("%s %zu %zu %zu %zu\n", place, live, live * bytes, all, all * bytes);
}

}  // namespace

#define ALLOCATES(name, expression) \
  PLACE name(std::size_t n) {       \
    void* p = expression;           \
    keep(p);                        \
    return p;                       \
  }
ALLOCATES(place_small, std::malloc(n))
ALLOCATES(place_brief, std::malloc(n))
ALLOCATES(place_zeroed, std::calloc(1, n))
ALLOCATES(place_middle, std::malloc(n))
ALLOCATES(place_large, std::malloc(n))
ALLOCATES(place_aligned, std::aligned_alloc(4096, n))
ALLOCATES(place_new, ::operator new(n))
ALLOCATES(place_seed, std::malloc(n))
PLACE place_grown(std::size_t n) {
  void* p = std::realloc(place_seed(16), n);
  keep(p);
  return p;
}
ALLOCATES(place_before, std::malloc(n))
ALLOCATES(place_during, std::malloc(n))
ALLOCATES(place_after, std::malloc(n))
ALLOCATES(place_child, std::malloc(n))

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "profile_known: %s\n", what);
  std::_Exit(1);
}

using Place = void*(std::size_t);

std::vector<void*> many(Place* place, std::size_t count, std::size_t bytes) {
  std::vector<void*> objects(count);
  for (void*& p : objects) {
    p = place(bytes);
    std::memset(p, 1, bytes < 64 ? bytes : 64);
  }
  return objects;
}

void release(const std::vector<void*>& objects, std::size_t count) {
  for (std::size_t i = 0; i < count; i++) std::free(objects[i]);
}

void kinds() {
  const auto small = many(place_small, 600'000, 48);
  release(small, 300'000);
  truth("place_small", 300'000, 600'000, 48);
  for (int i = 0; i < 400'000; i++) std::free(place_brief(100));
  truth("place_brief", 0, 400'000, 100);
  for (int i = 0; i < 20'000; i++) {
    auto* p = static_cast<char*>(place_zeroed(1000));
    for (int k = 0; k < 1000; k++) require(p[k] == 0, "calloc gave what is not zero");
    std::memset(p, 1, 1000);
    std::free(p);
  }
  truth("place_zeroed", 0, 20'000, 1000);
  many(place_middle, 2000, 20'000);
  truth("place_middle", 2000, 2000, 20'000);
  release(many(place_large, 8, 9 << 20), 4);
  truth("place_large", 4, 8, 9 << 20);
  const auto aligned = many(place_aligned, 5000, 8192);
  for (void* p : aligned) require(reinterpret_cast<std::uintptr_t>(p) % 4096 == 0, "not aligned");
  truth("place_aligned", 5000, 5000, 8192);
  const auto made = many(place_new, 100'000, 200);
  for (std::size_t i = 0; i < 50'000; i++) ::operator delete(made[i], std::size_t{200});
  truth("place_new", 50'000, 100'000, 200);
  const auto grown = many(place_grown, 50'000, 600);
  for (void* p : grown) require(malloc_usable_size(p) >= 600, "too small");
  truth("place_grown", 50'000, 50'000, 600);
}

void threads() {
  constexpr int kThreads = 8;
  constexpr std::size_t kEach = 100'000;
  std::vector<void*> objects[kThreads];
  std::vector<std::thread> all;
  for (auto& mine : objects) all.emplace_back([&mine] { mine = many(place_small, kEach, 80); });
  for (std::thread& t : all) t.join();
  all.clear();
  for (int i = 0; i < kThreads; i++) {
    all.emplace_back([&, i] { release(objects[(i + 1) % kThreads], kEach / 2); });
  }
  for (std::thread& t : all) t.join();
  truth("place_small", kThreads * kEach / 2, kThreads * kEach, 80);
}

void fork_once() {
  many(place_small, 100'000, 100);
  truth("place_small", 100'000, 100'000, 100);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    many(place_child, 100'000, 100);
    std::exit(0);
  }
  int status;
  require(waitpid(child, &status, 0) == child && status == 0, "the child did not end well");
}

void calls(const char* file) {
  const auto start = reinterpret_cast<int (*)(std::size_t)>(dlsym(RTLD_DEFAULT, "numaheap_profile_start"));
  const auto stop = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "numaheap_profile_stop"));
  const auto dump = reinterpret_cast<int (*)(const char*)>(dlsym(RTLD_DEFAULT, "numaheap_profile_dump"));
  require(start != nullptr && stop != nullptr && dump != nullptr, "a function is missing");
  require(dump(file) == -1, "there was something to write before the start");
  many(place_before, 100'000, 100);
  require(start(4096) == 0, "sampling did not start");
  const auto during = many(place_during, 400'000, 100);
  stop();
  many(place_after, 100'000, 100);
  release(during, 200'000);
  truth("place_during", 200'000, 400'000, 100);
  require(dump(file) == 0, "the profile was not written");
}

void on_signal() {
  many(place_small, 400'000, 100);
  truth("place_small", 400'000, 400'000, 100);
  std::fflush(stdout);
  raise(SIGUSR2);
  many(place_after, 100'000, 100);
  std::_Exit(0);  // nothing is written at the end
}

}  // namespace

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "";
  if (std::strcmp(what, "kinds") == 0) kinds();
  if (std::strcmp(what, "threads") == 0) threads();
  if (std::strcmp(what, "fork") == 0) fork_once();
  if (std::strcmp(what, "calls") == 0) calls(argv[2]);
  if (std::strcmp(what, "signal") == 0) on_signal();
  if (std::strcmp(what, "double") == 0) {
    void* const p = std::malloc(100);
    std::free(p);
    std::free(p);
  }
  return 0;
}
