// The same beside other threads: what only they hold, and what is on its way while they allocate.
#include "leaks.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

// A pointer that the heap must not take for one.
struct Hidden {
  uintptr_t word = 0;
  void hide(void* p) { word = ~reinterpret_cast<uintptr_t>(p); }
  void* show() const { return reinterpret_cast<void*>(~word); }
};

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

// The pointer is in this register and nowhere else while the function is called; the stack pointer waits in the other.
#define CALL_WITH(reg, other)                                                                                        \
  asm volatile("mov %%rsp, %%" other "\n sub $256, %%rsp\n and $-16, %%rsp\n mov %1, %%" reg "\n not %%" reg "\n"      \
               "call *%2\n mov %%" other ", %%rsp\n xor %%" reg ", %%" reg "\n"                                       \
               : "=a"(result) : "r"(hidden.word), "r"(g_find), "D"(&leaks), "S"(sizeof leaks), "d"(-1L)                 \
               : "rcx", "r8", "r9", "r10", "r11", reg, other, "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",    \
                 "xmm5", "xmm6", "xmm7");                                                                             \
  EXPECT(result == 0 && leaks.direct_objects == g_before.direct_objects, reg ": %ld lost", long(leaks.direct_objects))

CASE(held_by_the_registers_of_the_caller) {
  static Hidden hidden;
  static numaheap_leaks leaks;
  static Holder h;
  begin();
  hide_new(h);
  hidden = h.hidden;
  expect_lost(1, 0, "hidden");
  forget_calls();
  long result;
  CALL_WITH("rbx", "r12");
  CALL_WITH("r12", "rbx");
  CALL_WITH("r13", "rbx");
  CALL_WITH("r14", "rbx");
  CALL_WITH("r15", "rbx");
}

CASE(below_stack_pointers) {
  numaheap_leaks leaks;
  begin();
  lose(make, 10, 100);
  REQUIRE(g_find(&leaks, sizeof leaks, -1) == 0);
  EXPECT(leaks.direct_objects == g_before.direct_objects + 10, "%ld lost", long(leaks.direct_objects));
  begin();
  static Holder h;
  h.where = Where::kStack;
  h.hidden.hide(nullptr);
  const auto lose_first = [](void* argument) -> void* {
    lose(make, 10, 100);
    hold(*static_cast<Holder*>(argument));
    return nullptr;
  };
  REQUIRE(pthread_create(&h.thread, nullptr, lose_first, &h) == 0);
  while (h.ready == 0) poll(nullptr, 0, 1);
  expect_lost(10, 0, "by another thread");
  h.end = 1;
  pthread_join(h.thread, nullptr);
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

CASE(large_objects_on_their_way) {
  static Worker workers[4];
  const auto large = [](void* argument) -> void* {
    auto& w = *static_cast<Worker*>(argument);
    for (size_t i = 0; !g_end; i++) {
      void*& p = w.objects[i % w.objects.size()];
      free(p);
      p = nullptr;
      p = malloc(40000 + i % 7 * 300000 + (i % 50 == 0 ? 9 << 20 : 0));
    }
    return nullptr;
  };
  for (Worker& w : workers) w.objects.resize(10);
  begin();
  for (Worker& w : workers) REQUIRE(pthread_create(&w.thread, nullptr, large, &w) == 0);
  for (long i = scaled(100, 30); i > 0; i--) {
    expect_lost(0, 0, "large objects");
    // The scavenger's blocks all signals, too, and is paused.
    EXPECT(i > 1 || find().running_threads == 0, "a thread was not stopped");
  }
  g_end = true;
  for (Worker& w : workers) pthread_join(w.thread, nullptr);
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
