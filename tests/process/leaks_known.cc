// Loses what is known, and ends: the report at exit is judged by it (leaks.py).
//
//   leaks_known nothing   all that lives is held
//   leaks_known sizes     objects of 30 sizes
//   leaks_known places    objects of two places, one of which holds others
//   leaks_known threads   ends while eight threads hold what they have on their stacks
//   leaks_known fork      the child loses objects that the parent has not lost
//   leaks_known stderr    stderr is closed by the end
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "forgotten_calls.h"

namespace {

void* zeroed(std::size_t n) { return std::memset(std::malloc(n), 0, n); }

void* volatile g_held[100];

}  // namespace

extern "C" [[gnu::noinline, gnu::noclone]] void place_plain(std::size_t count, std::size_t bytes) {
  for (std::size_t i = 0; i < count; i++) {
    void* volatile p = zeroed(bytes);
    (void)p;
  }
}

extern "C" [[gnu::noinline, gnu::noclone]] void place_chain(std::size_t count, std::size_t bytes) {
  void** last = nullptr;
  for (std::size_t i = 0; i < count; i++) {
    auto** const p = static_cast<void**>(zeroed(bytes));
    p[0] = last;
    last = p;
  }
}

namespace {

std::atomic<int> g_ready{0};
void* hold(void*) {
  void* volatile p = zeroed(100);
  g_ready++;
  for (;;) pause();
  (void)p;
  return nullptr;
}

void threads() {
  for (int i = 0; i < 8; i++) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, hold, nullptr) != 0) std::_Exit(1);
  }
  while (g_ready != 8) usleep(1000);
}

void fork_once() {
  for (void* volatile& p : g_held) p = zeroed(200);
  const pid_t child = fork();
  if (child == 0) {
    for (void* volatile& p : g_held) p = nullptr;
    return;
  }
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) std::_Exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "";
  const auto is = [what](const char* mode) { return std::strcmp(what, mode) == 0; };
  if (is("sizes")) {
    deep([] {
      for (std::size_t i = 1; i <= 30; i++) place_plain(i, 200 + 1000 * i);
      place_plain(3, 5 << 20);
    });
  }
  if (is("places") || is("stderr")) {
    deep([] { place_plain(1000, 100); });
    deep([] { place_chain(500, 48); });
  }
  if (is("threads")) threads();
  if (is("fork")) fork_once();
  if (is("nothing")) g_held[0] = zeroed(100);
  if (is("stderr")) close(2);
  forget_calls();
  return 0;
}
