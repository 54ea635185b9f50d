// A thread can only be made where libc holds none of the locks that pthread_create() takes, and libc itself calls free()
// under one of them (the stack cache's, when it discards a thread's stack). So the threads are started by frees that
// return to the program or its libraries, never by those that return into libc or the loader. Where that cannot be told
// apart (a static program) the scavenger works inline.
//
// Our threads must not keep a process alive whose last own thread has ended. That can only come about once main() has
// ended by pthread_exit() instead of returning, and then the destructor of a thread-specific key runs in the main thread.
// It ends our threads and waits until they are gone. So libc counts the program's own threads again, and the last of them
// ends the process.
#include "process/background.h"

#include <cerrno>
#include <cstdint>

#include <link.h>
#include <pthread.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process/memory_limit.h"
#include "process/process.h"
#include "process/signals_blocked.h"
#include "process/worker.h"
#include "heap/scavenger.h"

namespace nh {
namespace {

struct CodeRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool has(const void* p) const { return address(p) - begin < end - begin; }
};

Worker g_worker[kMaxNodes];
CodeRange g_libc;
CodeRange g_loader;
std::atomic<ScavengeOption> g_mode{ScavengeOption::kOff};
std::atomic<bool> g_main_ended{false};
std::atomic<std::uint64_t> g_next_turn{0};
std::atomic<std::uint64_t> g_next_look{0};
std::atomic<std::size_t> g_useless[kMaxNodes];  // free memory of which the last look could make nothing
std::atomic<bool> g_alone{false};  // at the last turn the kernel knew of no other thread
std::atomic<std::uint32_t> g_paused{0};
std::atomic<unsigned> g_working{0};  // threads that are not to be paused now
pthread_key_t g_main_thread;
bool g_watches_main = false;

// Below this a heap has nothing worth a wake-up.
constexpr std::size_t kWorthwhile = 4 * MiB;
// From here on a thread is started at once: a program that only computes from now on calls no free() that could notice
// the age of what it has freed.
constexpr std::size_t kALot = 64 * MiB;
// So many visits of a thread are between two of its looks at the clock for the sake of unused caches.
constexpr unsigned kVisitsPerLook = 64;
constexpr std::uint64_t kShortestUnused = 2'000'000'000;

constinit Scavenger g_scavenger;

// The worker of the first node also looks after the heaps of no node.
template <typename Visit>
void for_each_heap_of(unsigned worker, Visit&& visit) {
  const unsigned nodes = g_process.topology.heap_count();
  visit(g_process.heaps[HeapId(worker)].heap);
  if (worker != 0) return;
  for (unsigned h = nodes; h < g_process.heaps.count(); h++) visit(g_process.heaps[HeapId(h)].heap);
}

// What the heaps of a worker have that may be worth a wake-up.
std::size_t worthwhile_bytes(unsigned worker) {
  std::size_t bytes = 0;
  for_each_heap_of(worker, [&](MHeap& heap) {
    const std::size_t idle = heap.idle_bytes();
    if (idle >= kWorthwhile) bytes += idle;
  });
  return bytes;
}

// Caches of CPUs that nobody has used for some seconds go home, one at a time and at most 1 % of the time.
void take_back_unused_caches() {
  const std::uint64_t now = linux_os().now_ns();
  std::uint64_t next = g_next_look.load(std::memory_order_relaxed);
  const std::uint64_t delay = g_scavenger.delay_ns() > kShortestUnused ? g_scavenger.delay_ns() : kShortestUnused;
  // Whoever gets this turn is alone at it: nobody else gets one before the next look is due.
  if (now < next || !g_next_look.compare_exchange_strong(next, now + delay, std::memory_order_acquire)) return;
  if (!g_caches.drain_one_unused(delay)) return;
  const std::uint64_t end = linux_os().now_ns();
  g_next_look.store(end + 99 * (end - now), std::memory_order_release);
}

// ---- the threads ---------------------------------------------------------------------------------------------------------

// One look at the heaps of a worker. Returns what it has to wait for before the next one; 0: until memory is freed.
struct Round {
  std::uint64_t wait_ns = 0;
  bool released = false;
};
Round work_once(unsigned worker) {
  Round round;
  const std::uint64_t begin = linux_os().now_ns();
  const bool urgent = memory_is_tight();
  if (urgent) release_kept();
  for_each_heap_of(worker, [&](MHeap& heap) {
    const Scavenger::Step step = g_scavenger.step(heap, urgent);
    round.released |= step.released != 0 || step.collapsed;
    if (step.wait_ns != 0 && (round.wait_ns == 0 || step.wait_ns < round.wait_ns)) round.wait_ns = step.wait_ns;
  });
  // Near the limit every free() may call for work, and there may be nothing to gain.
  const std::uint64_t rest = 99 * (linux_os().now_ns() - begin);
  if (urgent && round.wait_ns < rest) round = {rest, true};
  return round;
}

// What CPUs keep of large objects does not count as idle. It is sent home before the endless sleep, or it would stay where
// a phase of the program has left it. True: there was some, perhaps for the other workers to give back.
bool send_kept_home() {
  if (!g_caches.drain_large()) return false;
  for (Worker& other : g_worker) other.call();
  return true;
}

// Of two sequentially consistent stores, to g_working here and to g_paused there, one comes first, and whoever stores second
// sees it: either this thread waits or it is waited for.
void begin_work() {
  for (;;) {
    g_working.fetch_add(1);
    if (g_paused.load() == 0) return;
    g_working.fetch_sub(1);
    linux_os().futex_wait(&g_paused, 1, 0);
  }
}
void end_work() { g_working.fetch_sub(1); }

void* work(void* argument) {
  const auto worker = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(argument));
  Worker& self = g_worker[worker];
  if (g_process.topology.heap_count() > 1) stay_on(g_process.topology.cpus_of_node(worker));
  name_this_thread(kScavengerName.data());
  bool sent_home = false, looked_again = false;
  for (;;) {
    const std::uint32_t seen = self.begin_look();
    g_useless[worker].store(0, std::memory_order_relaxed);
    if (g_main_ended.load()) return nullptr;
    begin_work();
    if (worker == 0) take_back_unused_caches();
    const Round round = work_once(worker);
    end_work();
    if (round.wait_ns != 0) {
      sent_home = looked_again = false;
      self.sleep(round.released ? Sleep::kPaced : Sleep::kUntilOld, seen, round.wait_ns);
      continue;
    }
    if (worker == 0 && !sent_home) {
      sent_home = true;
      begin_work();
      const bool sent = send_kept_home();
      end_work();
      if (sent) continue;
    }
    // Free memory in pieces of which no unit consists. Calls for work begin again when there is more of it, and a program
    // that goes on freeing and using it is looked at only once per delay.
    const std::size_t useless = worthwhile_bytes(worker);
    g_useless[worker].store(useless, std::memory_order_relaxed);
    if (useless != 0 && !looked_again) {
      looked_again = true;
      self.sleep(Sleep::kUntilOld, seen, g_scavenger.delay_ns());
      if (self.was_called()) continue;
    }
    sent_home = looked_again = false;
    self.sleep(Sleep::kEndless, seen, 0);
  }
}

void start_worker(unsigned worker) {
  Worker& w = g_worker[worker];
  // The program's signals are for its own threads, also those that somebody sends from outside. Blocked from here on: a
  // handler that ends the main thread must not find its worker half started.
  const SignalsBlocked signals_blocked;
  const int error = w.start(work, reinterpret_cast<void*>(std::uintptr_t{worker}), [] { return !g_main_ended.load(); });
  // No thread to be had (limits): the program's own threads do it, and nobody tries again.
  if (error != 0) g_mode.store(ScavengeOption::kInline);
}

// The destructor of the main thread's key.
void main_thread_ends(void*) {
  g_mode.store(ScavengeOption::kInline);
  g_main_ended.store(true);
  for (Worker& w : g_worker) w.stop();
}

// Without this the process could not be told from one that has work to do.
bool watch_main_thread() {
  if (::syscall(SYS_gettid) != ::getpid()) return false;  // loaded later, by another thread
  if (pthread_key_create(&g_main_thread, main_thread_ends) != 0) return false;
  // For later keys libc may have to allocate in a thread that has none of them yet, which one that has just forked must not.
  constexpr pthread_key_t kKeysWithoutMemory = 32;
  if (g_main_thread >= kKeysWithoutMemory) {
    pthread_key_delete(g_main_thread);
    return false;
  }
  g_watches_main = true;
  return pthread_setspecific(g_main_thread, &g_main_thread) == 0;
}

// ---- in the program's threads -----------------------------------------------------------------------------------------------

// One thread at a time gets true, when the next look is due.
bool my_turn() {
  const std::uint64_t now = linux_os().now_ns();
  std::uint64_t next = g_next_turn.load(std::memory_order_relaxed);
  if (now < next) return false;
  return g_next_turn.compare_exchange_strong(next, now + g_scavenger.tick_ns(), std::memory_order_relaxed);
}

void work_inline() {
  if (!my_turn()) return;
  g_alone.store(false, std::memory_order_relaxed);
  const bool urgent = memory_is_tight();
  std::uint64_t wait = 0;
  for (unsigned h = 0; h < g_process.heaps.count(); h++) {
    const Scavenger::Step step = g_scavenger.step(g_process.heaps[HeapId(h)].heap, urgent);
    if (step.wait_ns != 0 && (wait == 0 || step.wait_ns < wait)) wait = step.wait_ns;
  }
  if (wait != 0) g_next_turn.store(linux_os().now_ns() + wait, std::memory_order_relaxed);
}

// A program that frees and allocates the same few MiB over and over has nothing to give back, and no thread should
// disturb it. A lot of free memory is reason enough, since there may be no further free() that could notice its age.
bool thread_is_worthwhile(unsigned node) {
  std::size_t idle = 0;
  for_each_heap_of(node, [&](MHeap& heap) { idle += heap.idle_bytes(); });
  if (idle >= kALot || memory_is_tight()) return true;
  if (!my_turn()) return false;
  bool old = false;
  for (unsigned h = 0; h < g_process.heaps.count(); h++) old |= g_scavenger.look(g_process.heaps[HeapId(h)].heap);
  return old;
}

// libc's word never goes back to "single" once there was a second thread, not even in a fork child. So the kernel is asked,
// too, whose directory of threads has a link more for each.
bool has_other_threads() {
  struct stat s;
  if (::stat("/proc/self/task", &s) != 0) return true;
  unsigned ours = 0;
  for (Worker& w : g_worker) ours += w.runs();
  return s.st_nlink > 2 + 1 + ours;
}

int find_code(dl_phdr_info* info, std::size_t, void*) {
  const auto here = reinterpret_cast<std::uintptr_t>(&::getpid);
  const auto loader = reinterpret_cast<std::uintptr_t>(&_r_debug);
  std::uintptr_t begin = UINTPTR_MAX, end = 0;
  for (unsigned i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const std::uintptr_t from = info->dlpi_addr + segment.p_vaddr;
    if (from < begin) begin = from;
    if (from + segment.p_memsz > end) end = from + segment.p_memsz;
  }
  if (here >= begin && here < end) g_libc = {begin, end};
  if (loader >= begin && loader < end) g_loader = {begin, end};
  return 0;
}

[[gnu::tls_model("initial-exec")]] thread_local unsigned t_visits = 0;

bool touched_pages_may_collapse() {
  return g_process.heaps[paged_twin(g_process.first_touch)].heap.may_collapse();
}

}  // namespace

void init_background() {
  g_scavenger.init(g_process.options.scavenge_delay_ms, linux_os().now_ns());
  ScavengeOption mode = g_process.options.scavenge;
  if (mode == ScavengeOption::kBackground) {
    dl_iterate_phdr(find_code, nullptr);
    const bool is_static = g_libc.has(reinterpret_cast<const void*>(&init_background));
    if (g_libc.begin == 0 || is_static || !watch_main_thread()) mode = ScavengeOption::kInline;
  }
  g_mode.store(mode);
}

void memory_was_freed(const void* caller) {
  const ScavengeOption mode = g_mode.load(std::memory_order_relaxed);
  if (mode == ScavengeOption::kOff) return;
  const bool may_start = mode == ScavengeOption::kBackground && !__libc_single_threaded &&
                         !g_alone.load(std::memory_order_relaxed);
  bool work_here = false;
  const unsigned nodes = g_process.topology.heap_count();
  for (unsigned node = 0; node < nodes; node++) {
    const std::size_t worth = worthwhile_bytes(node);
    if (worth == 0) continue;
    Worker& w = g_worker[node];
    if (w.runs()) {
      std::atomic<std::size_t>& useless = g_useless[node];
      const std::size_t before = useless.load(std::memory_order_relaxed);
      if (worth < before) useless.store(worth, std::memory_order_relaxed);
      if (before == 0 || worth >= before + kWorthwhile) w.call();
      if (memory_is_tight()) w.hurry();
    } else if (!may_start) {
      work_here = true;
    } else if (!g_libc.has(caller) && !g_loader.has(caller) && thread_is_worthwhile(node)) {
      if (has_other_threads()) {
        start_worker(node);
      } else {
        g_alone.store(true, std::memory_order_relaxed);
      }
    }
  }
  if (work_here) work_inline();
  touched_pages_were_taken(caller);
  if (++t_visits % kVisitsPerLook != 0) return;
  if (!g_worker[0].runs()) {
    take_back_unused_caches();
  } else if (linux_os().now_ns() >= g_next_look.load(std::memory_order_relaxed)) {
    g_worker[0].hurry();
  }
}

void touched_pages_were_taken(const void* caller) {
  if (!touched_pages_may_collapse()) return;
  const ScavengeOption mode = g_mode.load(std::memory_order_relaxed);
  if (mode == ScavengeOption::kOff) return;
  if (g_worker[0].runs()) return g_worker[0].call();
  if (mode == ScavengeOption::kInline || __libc_single_threaded) return work_inline();
  if (!g_libc.has(caller) && !g_loader.has(caller) && my_turn() && has_other_threads()) start_worker(0);
}

void a_thread_is_wanted() {
  if (!started() || !touched_pages_may_collapse() || g_worker[0].runs()) return;
  if (g_mode.load(std::memory_order_relaxed) == ScavengeOption::kBackground) start_worker(0);
}

void pause_background() {
  g_paused.store(1);
  while (g_working.load() != 0) {
    about_to_wait();
    std::atomic<std::uint32_t> never{0};
    linux_os().futex_wait(&never, 0, 100'000);
  }
}

void resume_background() {
  g_paused.store(0);
  linux_os().futex_wake(&g_paused, kMaxNodes);
}

void forget_background_threads() {
  g_paused.store(0);
  g_working.store(0);
  for (Worker& w : g_worker) w.forget();
  // This thread is the main thread from now on.
  if (g_watches_main) pthread_setspecific(g_main_thread, &g_main_thread);
}

}  // namespace nh
