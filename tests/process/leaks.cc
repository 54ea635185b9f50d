// numaheap_find_leaks() on what is known to be lost, and on what only looks so.
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <numaheap/numaheap.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "harness/case.h"

namespace {

const auto g_find = NH_LIBRARY_FUNCTION(decltype(&numaheap_find_leaks), numaheap_find_leaks);
const auto g_noscan = NH_LIBRARY_FUNCTION(decltype(&numaheap_malloc_noscan), numaheap_malloc_noscan);
const auto g_on_node = NH_LIBRARY_FUNCTION(decltype(&numaheap_malloc_on_node), numaheap_malloc_on_node);

// A pointer that the heap must not take for one.
struct Hidden {
  uintptr_t word = 0;
  void hide(void* p) { word = ~reinterpret_cast<uintptr_t>(p); }
  void* show() const { return reinterpret_cast<void*>(~word); }
};

// What earlier calls have left on the stack and in registers goes.
[[gnu::noinline]] void forget_calls() {
  volatile char stack[64 << 10];
  for (volatile char& c : stack) c = 0;
}

[[gnu::noinline]] numaheap_leaks find() {
  numaheap_leaks leaks;
  forget_calls();
  REQUIRE(g_find != nullptr && g_find(&leaks, sizeof leaks, -1) == 0, "errno %d", errno);
  return leaks;
}

numaheap_leaks g_before;

// What is lost since begin().
void begin() { g_before = find(); }
void expect_lost(uint64_t direct, uint64_t indirect, const char* what) {
  const numaheap_leaks now = find();
  EXPECT(now.direct_objects - g_before.direct_objects == direct && now.indirect_objects - g_before.indirect_objects == indirect,
         "%s: %ld directly, %ld indirectly, not %ld and %ld", what, long(now.direct_objects - g_before.direct_objects),
         long(now.indirect_objects - g_before.indirect_objects), long(direct), long(indirect));
}

using Make = void*(size_t);
// All of it, since a free object holds a pointer to the next.
void* zeroed(void* p) { return memset(p, 0, malloc_usable_size(p)); }
void* make(size_t n) { return zeroed(malloc(n)); }
void* make_placed(size_t n) { return zeroed(g_on_node(n, 0)); }
void* make_noscan(size_t n) { return zeroed(g_noscan(n)); }

// So far down the stack that forget_calls() wipes all of it later.
template <typename Call>
[[gnu::noinline]] void deep(Call&& call) {
  [[maybe_unused]] volatile char distance[8 << 10];
  distance[0] = 0;
  call();
  distance[1] = 0;
}

[[gnu::noinline]] void lose(Make* make_one, size_t count, size_t bytes) {
  deep([=] {
    for (size_t i = 0; i < count; i++) {
      void* volatile p = make_one(bytes);
      (void)p;
    }
  });
}

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

void* volatile g_static;
thread_local void* volatile t_own;

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
  for (int i = 0; i < 100; i++) words[i] = make(64);
  expect_lost(100, 0, "in noscan memory");
  begin();
  auto** const large = static_cast<void**>(make_noscan(1 << 20));
  words[0] = nullptr;
  t_own = large;
  for (int i = 0; i < 100; i++) large[i * 1000] = make(64);
  expect_lost(100, 0, "in large noscan memory");
  begin();
  auto** const mapped = static_cast<void**>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (int i = 0; i < 100; i++) mapped[i * 1000] = make(64);
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

namespace {

// A thread that holds a pointer in one place only, until it is told to end.
enum class Where { kStack, kThreadLocal, kRegister, kVector, kInCall, kSpecific };
struct Holder {
  Where where;
  bool deaf = false;
  Hidden hidden;
  int go[2];
  std::atomic<int> ready{0};
  std::atomic<int> end{0};
  pthread_t thread;
};

pthread_key_t g_key;

[[gnu::noinline]] void hold(Holder& h) {
  char c;
  switch (h.where) {
    case Where::kStack: {
      void* volatile p = h.hidden.show();
      h.ready = 1;
      while (h.end == 0) poll(nullptr, 0, 1);
      (void)p;
      return;
    }
    case Where::kThreadLocal:
      t_own = h.hidden.show();
      h.ready = 1;
      while (h.end == 0) poll(nullptr, 0, 1);
      t_own = nullptr;
      return;
    case Where::kSpecific:
      pthread_setspecific(g_key, h.hidden.show());
      h.ready = 1;
      while (h.end == 0) poll(nullptr, 0, 1);
      return;
    case Where::kRegister:
      asm volatile(
          "mov %0, %%r12\n not %%r12\n movl $1, %1\n"
          "1: pause\n cmpl $0, %2\n je 1b\n xor %%r12, %%r12\n"
          : : "r"(h.hidden.word), "m"(h.ready), "m"(h.end) : "r12", "cc", "memory");
      return;
    case Where::kVector:
      asm volatile(
          "mov %0, %%r12\n not %%r12\n movq %%r12, %%xmm7\n xor %%r12, %%r12\n movl $1, %1\n"
          "1: pause\n cmpl $0, %2\n je 1b\n pxor %%xmm7, %%xmm7\n"
          : : "r"(h.hidden.word), "m"(h.ready), "m"(h.end) : "r12", "xmm7", "cc", "memory");
      return;
    case Where::kInCall: {
      long result = SYS_read;
      asm volatile(
          "mov %5, %%r12\n not %%r12\n movl $1, %4\n syscall\n xor %%r12, %%r12\n"
          : "+a"(result) : "D"(long{h.go[0]}), "S"(&c), "d"(1L), "m"(h.ready), "r"(h.hidden.word) : "r12", "rcx", "r11", "memory");
      EXPECT(result == 1, "read() has returned %ld", result);
      return;
    }
  }
}

void* work(void* argument) {
  Holder& h = *static_cast<Holder*>(argument);
  if (h.deaf) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
  }
  forget_calls();
  hold(h);
  return nullptr;
}

[[gnu::noinline]] void hide_new(Holder& h) {
  deep([&] { h.hidden.hide(make(200)); });
}

void with_holder(Where where, const char* what) {
  static Holder h;
  h.where = where;
  h.ready = h.end = 0;
  pthread_key_create(&g_key, nullptr);
  REQUIRE(pipe(h.go) == 0);
  begin();
  hide_new(h);
  expect_lost(1, 0, "hidden");
  REQUIRE(pthread_create(&h.thread, nullptr, work, &h) == 0);
  while (h.ready == 0) poll(nullptr, 0, 1);
  for (int i = 0; i < 20; i++) expect_lost(0, 0, what);
  h.end = 1;
  REQUIRE(write(h.go[1], "x", 1) == 1);
  pthread_join(h.thread, nullptr);
  free(h.hidden.show());
}

}  // namespace

CASE(held_by_the_stack_of_another_thread) { with_holder(Where::kStack, "a stack"); }
CASE(held_by_thread_local_storage) { with_holder(Where::kThreadLocal, "thread-local storage"); }
CASE(held_by_a_key_of_another_thread) { with_holder(Where::kSpecific, "a thread's key"); }
CASE(held_by_a_register) { with_holder(Where::kRegister, "a register"); }
CASE(held_by_a_vector_register) { with_holder(Where::kVector, "a vector register"); }
CASE(held_by_a_register_in_a_system_call) { with_holder(Where::kInCall, "a register during read()"); }

CASE(held_by_the_registers_of_the_caller) {
  static Hidden hidden;
  static numaheap_leaks leaks;
  begin();
  static Holder h;
  hide_new(h);
  hidden = h.hidden;
  expect_lost(1, 0, "hidden");
  forget_calls();
  long result;
  asm volatile(
      "mov %%rsp, %%r13\n sub $256, %%rsp\n and $-16, %%rsp\n mov %1, %%r12\n not %%r12\n"
      "call *%2\n mov %%r13, %%rsp\n xor %%r12, %%r12\n"
      : "=a"(result) : "r"(hidden.word), "r"(g_find), "D"(&leaks), "S"(sizeof leaks), "d"(-1L)
      : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
        "xmm7");
  EXPECT(result == 0 && leaks.direct_objects == g_before.direct_objects, "%ld lost", long(leaks.direct_objects));
}

CASE(a_thread_that_blocks_signals_is_named) {
  static Holder h;
  h.where = Where::kStack;
  h.deaf = true;
  begin();
  EXPECT(g_before.running_threads == 0);
  hide_new(h);
  REQUIRE(pthread_create(&h.thread, nullptr, work, &h) == 0);
  while (h.ready == 0) poll(nullptr, 0, 1);
  const numaheap_leaks leaks = find();
  EXPECT(leaks.running_threads == 1, "%ld threads", long(leaks.running_threads));
  EXPECT(leaks.direct_objects == g_before.direct_objects, "its stack was not looked at");
  h.end = 1;
  pthread_join(h.thread, nullptr);
}

CASE(signals_are_as_before) {
  static Holder h;
  h.where = Where::kStack;
  REQUIRE(pthread_create(&h.thread, nullptr, work, &h) == 0);
  while (h.ready == 0) poll(nullptr, 0, 1);
  // The highest is taken, so the next one serves.
  signal(SIGRTMAX, [](int) {});
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  begin();
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT(memcmp(&before, &after, sizeof(long)) == 0, "blocked signals have changed");
  for (int s = SIGRTMIN; s < SIGRTMAX; s++) {
    struct sigaction now;
    sigaction(s, nullptr, &now);
    EXPECT(now.sa_handler == SIG_DFL, "signal %d", s);
  }
  h.end = 1;
  pthread_join(h.thread, nullptr);
}

namespace {

struct Worker {
  std::vector<void*> objects;
  uint64_t random = 1;
  pthread_t thread;
};
std::atomic<bool> g_end{false};

// Allocates and frees objects of all sizes, each known to its vector from malloc's return on.
void* exchange(void* argument) {
  auto& w = *static_cast<Worker*>(argument);
  while (!g_end) {
    w.random = w.random * 6364136223846793005u + 1442695040888963407u;
    void*& p = w.objects[(w.random >> 33) % w.objects.size()];
    const size_t r = w.random >> 40;
    void* const old = p;
    p = nullptr;
    free(old);
    p = r % 64 == 0 ? malloc(r % 200000) : r % 3 == 0 ? make_noscan(1 + r % 40) : malloc(r % 500);
  }
  return nullptr;
}

}  // namespace

CASE(eight_threads_allocate) {
  static Worker workers[8];
  for (Worker& w : workers) {
    w.objects.resize(3000);
    w.random = reinterpret_cast<uintptr_t>(&w);
  }
  begin();
  for (Worker& w : workers) REQUIRE(pthread_create(&w.thread, nullptr, exchange, &w) == 0);
  for (long i = scaled(60, 20); i > 0; i--) {
    expect_lost(0, 0, "eight threads");
  }
  g_end = true;
  for (Worker& w : workers) pthread_join(w.thread, nullptr);
  expect_lost(0, 0, "afterwards");
  for (Worker& w : workers) std::vector<void*>().swap(w.objects);
}

CASE(two_threads_look_at_once) {
  std::thread threads[4];
  for (std::thread& t : threads) t = std::thread([] {
    for (int i = 0; i < 20; i++) find();
  });
  for (std::thread& t : threads) t.join();
}

CASE(in_a_fork_child) {
  begin();
  static Worker workers[4];
  for (Worker& w : workers) {
    w.objects.resize(1000);
    REQUIRE(pthread_create(&w.thread, nullptr, exchange, &w) == 0);
  }
  for (int i = 0; i < 10; i++) {
    const pid_t child = fork();
    if (child == 0) {
      // What the other threads were about to note may be lost here, one object each.
      const numaheap_leaks first = find();
      EXPECT(first.direct_objects - g_before.direct_objects <= 8, "%ld lost", long(first.direct_objects));
      begin();
      lose(make, 100, 100);
      // The stacks of threads that are not here are looked at, too, and may point to what was freed before.
      const uint64_t lost = find().direct_objects - g_before.direct_objects;
      EXPECT(lost > 50 && lost <= 100, "%ld lost in the child", long(lost));
      _exit(failures() != 0);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
  }
  g_end = true;
  for (Worker& w : workers) pthread_join(w.thread, nullptr);
}
