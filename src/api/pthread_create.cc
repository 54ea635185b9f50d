// pthread_create for NUMAHEAP_STACKS=thp: the new thread advises its own stack, which nobody else can do in time. In the
// shared library only. Without that option it is a jump to libc's.
//
// And for the scavenger: a program that allocates its arrays, makes threads that fill them and then only computes would never
// call anything else that may start a thread of ours (process/background.h).
//
// Threads that libc makes for itself (thrd_create, timers) do not come by here.
#include <cerrno>
#include <cstdlib>

#include <dlfcn.h>
#include <pthread.h>

#include "process/background.h"
#include "process/process.h"
#include "process/program_memory.h"

extern "C" {
extern decltype(::dlsym) dlsym [[gnu::weak]];  // cxx_runtime.cc says why
}

namespace nh {
namespace {

using Function = void* (*)(void*);
using Create = int (*)(pthread_t*, const pthread_attr_t*, Function, void*);

Create g_next;

[[gnu::noinline, gnu::cold]] bool find_next() {
  if (&::dlsym != nullptr) g_next = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return g_next != nullptr;
}

[[gnu::constructor(101)]] void find_early() { find_next(); }

struct Start {
  Function function;
  void* argument;
};

void* start_thread(void* p) {
  const Start start = *static_cast<Start*>(p);
  std::free(p);
  advise_own_stack();
  return start.function(start.argument);
}

[[gnu::noinline, gnu::cold]] int create(pthread_t* thread, const pthread_attr_t* attributes, Function function, void* argument) {
  Start* const start = static_cast<Start*>(std::malloc(sizeof(Start)));
  if (start == nullptr) return EAGAIN;
  *start = {function, argument};
  const int error = g_next(thread, attributes, start_thread, start);
  if (error != 0) std::free(start);
  return error;
}

}  // namespace
}  // namespace nh

extern "C" [[gnu::visibility("default")]] int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                                             nh::Function function, void* argument) noexcept {
  if (nh::g_next == nullptr && !nh::find_next()) [[unlikely]] return EAGAIN;
  nh::a_thread_is_wanted();
  if (nh::g_process.options.stacks == nh::ThpOption::kOff) [[likely]] return nh::g_next(thread, attributes, function, argument);
  return nh::create(thread, attributes, function, argument);
}
