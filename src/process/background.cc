// A thread can only be made where libc holds none of the locks that pthread_create() takes, and libc itself calls free()
// under one of them (the stack cache's, when it discards a thread's stack). So the threads are started by frees that
// return to the program or its libraries, never by those that return into libc or the loader. Where that cannot be told
// apart (a static program) the scavenger works inline.
#include "process/background.h"

#include <cerrno>
#include <csignal>
#include <cstdint>

#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "process/fork_pages.h"
#include "process/memory_limit.h"
#include "process/process.h"
#include "heap/scavenger.h"

namespace nh {
namespace {

struct Worker {
  std::atomic<std::uint32_t> wake;   // futex: counts calls for work
  std::atomic<bool> running;
  std::atomic<bool> sleeping;        // without a timeout: only a call for work ends it
};

struct CodeRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool has(const void* p) const { return address(p) - begin < end - begin; }
};

Scavenger g_scavenger;
Worker g_worker[kMaxNodes];
CodeRange g_libc;
CodeRange g_loader;
ScavengeOption g_mode = ScavengeOption::kOff;
std::atomic<std::uint64_t> g_next_turn{0};

// Below this a heap has nothing worth a wake-up.
constexpr std::size_t kWorthwhile = 4 * MiB;
// From here on a thread is started at once: a program that only computes from now on calls no free() that could notice
// the age of what it has freed.
constexpr std::size_t kALot = 64 * MiB;

// The worker of the first node also looks after the heaps of no node.
template <typename Visit>
void for_each_heap_of(unsigned worker, Visit&& visit) {
  const unsigned nodes = g_process.topology.heap_count();
  visit(g_process.heaps[HeapId(worker)].heap);
  if (worker != 0) return;
  for (unsigned h = nodes; h < g_process.heaps.count(); h++) visit(g_process.heaps[HeapId(h)].heap);
}

void stay_on_node(unsigned worker) {
  if (g_process.topology.heap_count() < 2) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const CpuSet own = g_process.topology.cpus_of_node(worker);
  int count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!own.has(CpuId(cpu))) continue;
    CPU_SET(cpu, &cpus);
    count++;
  }
  // A memory-only node has no CPUs, and a cpuset may forbid them: then anywhere will do.
  if (count != 0) sched_setaffinity(0, sizeof cpus, &cpus);
}

// A call that comes before `sleeping` is seen is not lost for long: the next one calls again.
void wake(Worker& worker) {
  if (!worker.sleeping.load(std::memory_order_relaxed)) return;
  worker.wake.fetch_add(1, std::memory_order_release);
  linux_os().futex_wake(&worker.wake, 1);
}

void* work(void* argument) {
  const auto worker = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(argument));
  Worker& self = g_worker[worker];
  stay_on_node(worker);
  const OsOps& os = linux_os();
  for (bool restart = true, drained = false;;) {
    const std::uint32_t seen = self.wake.load(std::memory_order_acquire);
    const bool urgent = memory_is_tight();
    if (urgent) {
      g_caches.drain_all();
      g_process.heaps.trim_centrals();
    }
    std::uint64_t wait = 0;
    for_each_heap_of(worker, [&](MHeap& heap) {
      const Scavenger::Step step = g_scavenger.step(heap, restart, urgent);
      if (step.wait_ns != 0 && (wait == 0 || step.wait_ns < wait)) wait = step.wait_ns;
    });
    restart = wait == 0;
    // What CPUs keep of large objects does not count as idle. It is sent home before the endless sleep, or it would stay
    // where a phase of the program has left it.
    if (wait == 0 && !drained && worker == 0) {
      // Some of it may be the other workers' to give back.
      if (g_caches.drain_large()) {
        for (Worker& other : g_worker) wake(other);
      }
      drained = true;
      continue;
    }
    drained = false;
    // Calls for work do not shorten a wait that the pace asks for; they only end an endless one.
    if (wait == 0) {
      self.sleeping.store(true, std::memory_order_relaxed);
      os.futex_wait(&self.wake, seen, 0);
      self.sleeping.store(false, std::memory_order_relaxed);
    } else {
      std::atomic<std::uint32_t> never{0};
      os.futex_wait(&never, 0, wait);
    }
  }
}

void start_worker(unsigned worker) {
  Worker& w = g_worker[worker];
  bool expected = false;
  if (!w.running.compare_exchange_strong(expected, true, std::memory_order_acq_rel)) return;
  // The program's signals are for its own threads; faults around a fork are not (fork_signals.h).
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  sigdelset(&all, SIGSEGV);
  sigdelset(&all, SIGBUS);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  std::size_t usual_stack = 0;
  pthread_attr_getstacksize(&attributes, &usual_stack);
  pthread_attr_setstacksize(&attributes, 128 * KiB);
  pthread_t thread;
  void* const argument = reinterpret_cast<void*>(std::uintptr_t{worker});
  int error = pthread_create(&thread, &attributes, work, argument);
  if (error == EINVAL) {
    // Thread-local storage comes out of the stack, and some programs have megabytes of it (Fortran's threadprivate).
    pthread_attr_setstacksize(&attributes, usual_stack);
    error = pthread_create(&thread, &attributes, work, argument);
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) {
    pthread_setname_np(thread, "numaheap-scav");
  } else {
    // No thread to be had (limits): the program's own threads do it, and nobody tries again.
    g_mode = ScavengeOption::kInline;
  }
}

// Once per tick one thread gets true; *restart where nobody did for longer than that.
bool my_turn(bool* restart) {
  const std::uint64_t now = linux_os().now_ns();
  std::uint64_t next = g_next_turn.load(std::memory_order_relaxed);
  if (now < next) return false;
  *restart = now - next > 2 * g_scavenger.tick_ns();
  return g_next_turn.compare_exchange_strong(next, now + g_scavenger.tick_ns(), std::memory_order_relaxed);
}

void work_inline() {
  bool restart;
  if (!my_turn(&restart)) return;
  const bool urgent = memory_is_tight();
  for (unsigned h = 0; h < g_process.heaps.count(); h++) {
    g_scavenger.step(g_process.heaps[HeapId(h)].heap, restart, urgent);
  }
}

// A program that frees and allocates the same few MiB over and over has nothing to give back, and no thread should
// disturb it. A lot of free memory is reason enough, since there may be no further free() that could notice its age.
bool thread_is_worthwhile(unsigned node) {
  std::size_t idle = 0;
  for_each_heap_of(node, [&](MHeap& heap) { idle += heap.idle_bytes(); });
  if (idle >= kALot || memory_is_tight()) return true;
  bool restart;
  if (!my_turn(&restart)) return false;
  bool old = false;
  for (unsigned h = 0; h < g_process.heaps.count(); h++) {
    old |= g_scavenger.look(g_process.heaps[HeapId(h)].heap, restart);
  }
  return old;
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

}  // namespace

void init_background() {
  g_mode = g_process.options.scavenge;
  g_scavenger.init(g_process.options.scavenge_delay_ms);
  if (g_mode != ScavengeOption::kBackground) return;
  dl_iterate_phdr(find_code, nullptr);
  const bool is_static = g_libc.has(reinterpret_cast<const void*>(&init_background));
  if (g_libc.begin == 0 || is_static) g_mode = ScavengeOption::kInline;
}

void memory_was_freed(const void* caller) {
  release_guard(false);
  if (g_mode == ScavengeOption::kOff) return;
  bool worth = false;
  const unsigned nodes = g_process.topology.heap_count();
  for (unsigned node = 0; node < nodes; node++) {
    bool here = false;
    for_each_heap_of(node, [&](MHeap& heap) { here |= heap.idle_bytes() >= kWorthwhile; });
    worth |= here;
    if (!here || g_mode != ScavengeOption::kBackground) continue;
    Worker& w = g_worker[node];
    if (w.running.load(std::memory_order_acquire)) {
      wake(w);
    } else if (!g_libc.has(caller) && !g_loader.has(caller) && thread_is_worthwhile(node)) {
      start_worker(node);
    }
  }
  if (worth && g_mode == ScavengeOption::kInline) work_inline();
}

void forget_background_threads() {
  for (Worker& w : g_worker) w.running.store(false, std::memory_order_relaxed);
}

}  // namespace nh
