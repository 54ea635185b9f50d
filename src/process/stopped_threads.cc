#include "process/stopped_threads.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/format.h"
#include "base/scan.h"
#include "os/procfs.h"
#include "os/room.h"
#include "process/background.h"

namespace nh {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kPatience = 1000 * kMillisecond;

// What the handler knows. g_stop: 1 while threads are to stop. g_inside: those that are in the handler. A handler adds itself
// before it looks at g_stop, and resume() clears that before it looks at g_inside, all sequentially consistent: so it waits for
// each that has seen a 1, and one that begins later touches nothing.
std::atomic<std::uint32_t> g_stop{0};
std::atomic<std::uint32_t> g_inside{0};
std::atomic<std::uint32_t> g_answers{0};
std::atomic<StoppedThreads::Thread*> g_threads{nullptr};
std::atomic<std::size_t> g_count{0};

int own_id() { return static_cast<int>(::syscall(SYS_gettid)); }

void on_stop(int, siginfo_t*, void* context) {
  const int saved = errno;
  g_inside.fetch_add(1);
  // One that comes too late finds that nobody waits for it.
  if (g_stop.load() != 0) {
    const int id = own_id();
    StoppedThreads::Thread* const threads = g_threads.load(std::memory_order_acquire);
    for (std::size_t i = 0, n = g_count.load(std::memory_order_acquire); i < n; i++) {
      if (threads[i].id.load(std::memory_order_relaxed) == id) threads[i].context.store(context, std::memory_order_release);
    }
    g_answers.fetch_add(1);
    linux_os().futex_wake(&g_answers, 1);
    while (g_stop.load() != 0) linux_os().futex_wait(&g_stop, 1, 0);
  }
  g_inside.fetch_sub(1);
  errno = saved;
}

int free_signal() {
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; signal--) {
    struct sigaction now;
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) return signal;
  }
  return 0;
}

// Whether a thread blocks a signal. may_change: it is on a CPU or waits for one. Threads block all signals for a moment when
// they begin and when they end.
struct Deafness {
  bool is_deaf = true;
  bool may_change = false;
};
Deafness deafness_of(int id, int signal) {
  Deafness result;
  Text<64> path;
  path.text("/proc/self/task/").sdec(id).text("/status");
  LineReader lines(path.c_str());
  for (std::string_view line; lines.next(&line);) {
    std::uintptr_t mask = 0;
    if (take(&line, "State:")) result.may_change = trimmed(line)[0] == 'R';
    if (!take(&line, "SigBlk:")) continue;
    line = trimmed(line);
    result.is_deaf = !take_hex(&line, &mask) || (mask >> (signal - 1) & 1) != 0;
    break;
  }
  return result;
}

bool is_ours(int id) {
  Text<64> path;
  path.text("/proc/self/task/").sdec(id).text("/comm");
  char name[32];
  const long n = read_file(path.c_str(), name, sizeof name);
  return n > 0 && trimmed({name, static_cast<std::size_t>(n)}) == kScavengerName;
}

bool exists(int id) { return ::syscall(SYS_tgkill, ::getpid(), id, 0) == 0; }

std::uint64_t set_blocked(std::uint64_t mask) {
  std::uint64_t before = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof mask);
  return before;
}

}  // namespace

bool StoppedThreads::prepare() {
  constexpr std::size_t kMore = 1024;
  return threads_.make(process_facts().threads * 2 + kMore);
}

bool StoppedThreads::is_known(int id) const {
  for (const Thread& t : threads_) {
    if (t.id.load(std::memory_order_relaxed) == id) return true;
  }
  return false;
}

// Sends it the signal. One that is deaf for the moment is asked again.
void StoppedThreads::ask(Thread& thread, bool again) {
  const int id = thread.id.load(std::memory_order_relaxed);
  const Deafness deafness = signal_ == 0 ? Deafness() : deafness_of(id, signal_);
  thread.asked = !deafness.is_deaf && ::syscall(SYS_tgkill, ::getpid(), id, signal_) == 0;
  thread.awaited = thread.asked || (again && deafness.may_change);
  if (!thread.awaited && exists(id) && !is_ours(id)) running_++;
}

bool StoppedThreads::add(void* self, const char* name) {
  auto& all = *static_cast<StoppedThreads*>(self);
  std::string_view text(name);
  std::uint64_t id = 0;
  if (!take_decimal(&text, &id) || static_cast<int>(id) == own_id() || all.is_known(static_cast<int>(id))) return true;
  if (!all.threads_.add()) {
    all.running_++;
    return false;
  }
  Thread& thread = all.threads_[all.threads_.size() - 1];
  thread.id.store(static_cast<int>(id), std::memory_order_relaxed);
  g_count.store(all.threads_.size(), std::memory_order_release);
  all.found_ = true;
  all.ask(thread, true);
  return true;
}

void StoppedThreads::wait_for_answers() {
  const auto is_missing = [](const Thread& t) { return t.awaited && t.context.load() == nullptr; };
  const std::uint64_t begin = linux_os().now_ns();
  for (;;) {
    const std::uint32_t answers = g_answers.load();
    if (std::none_of(threads_.begin(), threads_.end(), is_missing)) return;
    linux_os().futex_wait(&g_answers, answers, kMillisecond);
    if (g_answers.load() != answers) continue;
    const bool late = linux_os().now_ns() - begin > kPatience;
    for (Thread& t : threads_) {
      if (!is_missing(t)) continue;
      if (!t.asked) {
        ask(t, !late);
      } else if (const bool ended = !exists(t.id.load(std::memory_order_relaxed)); ended || late) {
        t.awaited = false;
        running_ += !ended;
      }
    }
  }
}

void StoppedThreads::stop() {
  before_ = set_blocked(~std::uint64_t{0});
  g_threads.store(threads_.begin(), std::memory_order_release);
  g_count.store(0, std::memory_order_release);
  g_answers.store(0);
  signal_ = free_signal();
  struct sigaction handler = {};
  handler.sa_sigaction = on_stop;
  handler.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigfillset(&handler.sa_mask);
  g_stop.store(1);
  if (signal_ != 0 && ::sigaction(signal_, &handler, nullptr) != 0) signal_ = 0;
  // Those that were not stopped yet may have started others.
  do {
    found_ = false;
    for_each_entry("/proc/self/task", add, this);
    wait_for_answers();
  } while (found_);
}

void StoppedThreads::resume() {
  g_stop.store(0);
  linux_os().futex_wake(&g_stop, INT_MAX);
  while (g_inside.load() != 0) {
    std::atomic<std::uint32_t> never{0};
    linux_os().futex_wait(&never, 0, kMillisecond / 10);
  }
  if (signal_ != 0) {
    // Where it is still pending its default action would end the process; ignoring it takes it away.
    struct sigaction action = {};
    action.sa_handler = SIG_IGN;
    ::sigaction(signal_, &action, nullptr);
    action.sa_handler = SIG_DFL;
    ::sigaction(signal_, &action, nullptr);
  }
  set_blocked(before_);
}

void StoppedThreads::for_each_registers(void (*visit)(void*, std::uintptr_t, std::uintptr_t), void* argument) const {
  for (const Thread& t : threads_) {
    const auto* const context = static_cast<const ucontext_t*>(t.context.load(std::memory_order_acquire));
    if (context == nullptr) continue;
    const auto& registers = context->uc_mcontext.gregs;
    visit(argument, address(registers), address(registers) + sizeof registers);
    // Vector registers, too. What the kernel adds to the first 512 bytes it says in them (sw_reserved of struct _fpstate).
    constexpr std::uint32_t kMagic = 0x46505853;
    struct {
      std::uint32_t magic, bytes;
    } more;
    const auto* const vectors = reinterpret_cast<const char*>(context->uc_mcontext.fpregs);
    if (vectors == nullptr) continue;
    std::memcpy(&more, vectors + 464, sizeof more);
    visit(argument, address(vectors), address(vectors) + (more.magic == kMagic ? more.bytes : 512));
  }
}

std::uintptr_t StoppedThreads::lowest_stack_pointer(std::uintptr_t start, std::uintptr_t end) const {
  std::uintptr_t lowest = 0;
  for (const Thread& t : threads_) {
    const auto* const context = static_cast<const ucontext_t*>(t.context.load(std::memory_order_acquire));
    if (context == nullptr) continue;
    const auto sp = static_cast<std::uintptr_t>(context->uc_mcontext.gregs[REG_RSP]);
    if (sp >= start && sp < end && (lowest == 0 || sp < lowest)) lowest = sp;
  }
  return lowest;
}

void repair_stopped_threads_after_fork() {
  g_stop.store(0);
  g_inside.store(0);
}

}  // namespace nh
