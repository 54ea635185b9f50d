#include "process/fork_pages.h"

#include <atomic>
#include <cerrno>

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include "process/fork_signals.h"
#include "process/process.h"
#include "base/check.h"
#include "base/format.h"
#include "base/lock.h"
#include "heap/relocate.h"
#include "os/residency.h"

namespace nh {
namespace {

// Held for freezing, thawing and rescuing, never across a fork. The highest rank: a fault can come under any lock.
Lock g_lock{LockRank::kReport};

std::atomic<unsigned> g_forking{0};        // threads between their handlers before and after a fork
std::atomic<unsigned> g_open{0};           // windows
std::atomic<unsigned> g_waiting{0};        // of those, the ones whose thread waits for its child
std::atomic<std::uint32_t> g_closed{0};    // futex: counts closed windows
std::atomic<std::uint32_t> g_changes{0};   // counts pages that became writable: a fault may be older than the change
std::atomic<pid_t> g_process_id{0};        // whose windows these are: not those of a child made behind libc's back
std::atomic<bool> g_lasting{false};        // pages are shared with a child that lives on
std::atomic<void*> g_rescue{nullptr};      // the page that is being moved
std::atomic<std::size_t> g_rescue_bytes{0};

struct ThreadState {
  bool forking;
  std::uint32_t seen_changes;  // g_changes when a fault was last put down to a change...
  const void* seen_at;         // ...at this address
};
[[gnu::tls_model("initial-exec")]] thread_local ThreadState t_state;

// A thread that waits before the fork has happened may hold a lock that fork needs (a list of stdio's). It gives up after
// this time and moves the page by hand.
constexpr std::uint64_t kShortWait = 20'000'000;
// So many rescued pages have cost as many mappings twice over; vm.max_map_count is 65 530. From here on whole arenas.
constexpr std::size_t kManyRescues = 8192;

// A section that no signal handler of this thread may interrupt: it could fork.
class Section {
 public:
  Section() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
    g_lock.lock();
  }
  ~Section() {
    g_lock.unlock();
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

 private:
  sigset_t before_;
};

template <typename Visit>
void for_each_heap(Visit&& visit) {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) visit(g_process.heaps[HeapId(i)].heap);
}

// Whether another process maps some page, too. With the lock held.
bool any_shared_L() {
  // Asked over and over while a child lives, so the page that was shared last time is asked first.
  static const void* last = nullptr;
  const auto is_shared = [](const void* page) { return page_state(page) == PageState::kPresent && !page_is_exclusive(page); };
  if (last != nullptr) {
    MHeap& heap = g_process.heaps[g_process.space.heap_of(last)].heap;
    if (huge_page_around(heap, last).bytes != 0 && is_shared(last)) return true;
  }
  last = nullptr;
  for_each_heap([&](MHeap& heap) {
    for_each_huge_piece(heap, [&](const HugePiece& piece) {
      for (std::uintptr_t at = piece.start; at < piece.start + piece.bytes && last == nullptr; at += piece.page_bytes) {
        if (is_shared(reinterpret_cast<const void*>(at))) last = reinterpret_cast<const void*>(at);
      }
    });
  });
  return last != nullptr;
}

void thaw_all() {
  for_each_heap([](MHeap& heap) {
    for_each_huge_piece(heap, [&](const HugePiece& piece) {
      if (is_frozen(piece)) thaw(heap, piece);
    });
  });
  g_changes.fetch_add(1, std::memory_order_release);
}

// A thread may have faulted before its page was thawed and get the signal only now that it runs again: the handlers stay a
// little longer than there is a use for them.
std::uint64_t grace() { return __libc_single_threaded ? 0 : 30'000'000; }
std::atomic<std::uint64_t> g_remove_at{0};  // 0: nothing to remove; written with the lock held, looked at without

void remove_handlers_L() {
  if (g_remove_at == 0 || g_lasting || g_open.load() != 0 || linux_os().now_ns() < g_remove_at) return;
  remove_fault_handlers();
  g_remove_at = 0;
}

// With the lock held. The scan costs up to a microsecond per page, hence not more often than this unless it is `due`.
bool release_L(bool due) {
  constexpr std::uint64_t kInterval = 100'000'000;
  static std::uint64_t next = 0;
  if (!g_lasting || g_forking.load() != 0) return false;
  const std::uint64_t now = linux_os().now_ns();
  if (!due && now < next) return false;
  next = now + kInterval;
  if (any_shared_L()) return false;
  thaw_all();
  g_lasting = false;
  g_remove_at = now + grace();
  return true;
}

// ---- serving a fault ------------------------------------------------------------------------------------------------

// True where it waited at all.
bool wait_for_windows() {
  if (g_open.load(std::memory_order_acquire) == 0 || t_state.forking || g_process_id.load() != ::getpid()) return false;
  const OsOps& os = linux_os();
  const std::uint64_t start = os.now_ns();
  for (;;) {
    const std::uint32_t closed = g_closed.load(std::memory_order_acquire);
    const unsigned open = g_open.load(std::memory_order_acquire);
    if (open == 0) return true;
    const bool sure = g_waiting.load(std::memory_order_acquire) == open;
    if (!sure && os.now_ns() - start > kShortWait) return false;
    os.futex_wait(&g_closed, closed, kShortWait / 4);
  }
}

// The pages that are moved at once: one, or all of the arena where there are too many mappings already.
template <typename Visit>
void for_each_page_to_rescue(const HugePiece& page, Visit&& visit) {
  static std::atomic<std::size_t> rescues{0};
  if (page.page_bytes == GiB || rescues.fetch_add(1, std::memory_order_relaxed) < kManyRescues) return visit(page);
  const std::uintptr_t base = page.start / kArenaSize * kArenaSize;
  for_each_run(page.arena->hugetlb & page.arena->backed, [&](unsigned first, unsigned count) {
    visit(HugePiece{page.arena, base + first * kHugeSize, count * kHugeSize, kHugeSize});
  });
}

bool rescue(MHeap& heap, const HugePiece& page) {
  bool ok = true;
  for_each_page_to_rescue(page, [&](const HugePiece& piece) {
    g_rescue_bytes.store(piece.bytes, std::memory_order_relaxed);
    g_rescue.store(piece.at(), std::memory_order_release);
    ok &= replace_huge_pages(heap, piece, true, true);
    g_rescue.store(nullptr, std::memory_order_release);
  });
  g_changes.fetch_add(1, std::memory_order_release);
  return ok;
}

// A fault that finds nothing wrong any more is repeated once: another thread may have repaired it in between. The same
// one again without any change is the program's own.
bool repeat_once(const void* at) {
  const std::uint32_t changes = g_changes.load(std::memory_order_acquire);
  if (t_state.seen_at == at && t_state.seen_changes == changes) return false;
  t_state.seen_at = at;
  t_state.seen_changes = changes;
  return true;
}

bool serve_fault(int signal, const siginfo_t& info) {
  const bool is_store = signal == SIGSEGV ? info.si_code == SEGV_ACCERR : info.si_code == BUS_ADRERR;
  const void* const at = info.si_addr;
  if (!is_store || !started() || !g_process.space.contains(at)) return false;
  MHeap& heap = g_process.heaps[g_process.space.heap_of(at)].heap;
  const bool waited = wait_for_windows();
  LockGuard guard(g_lock);
  const HugePiece page = huge_page_around(heap, at);
  const bool frozen = page.bytes != 0 && is_frozen(page);
  if (page.bytes == 0 || (signal == SIGSEGV && !frozen)) return repeat_once(at);
  if (waited && !frozen) return true;  // the child has let go of the page: the store may succeed now
  switch (page_state(page.at())) {
    case PageState::kUnmapped: return false;
    case PageState::kEmpty:
      // No window tells how this can be; see HugeKind::kReserved.
      warn_line("a huge page of this process was taken back for the process it was forked from");
      return false;
    case PageState::kPresent: break;
  }
  // Before a fork every page is exclusive, and one that is thawed then can be taken away from the child.
  if (g_forking.load(std::memory_order_acquire) == 0 && page_is_exclusive(page.at())) {
    if (frozen) {
      // Perhaps the child is gone altogether, then so is the need for all this.
      if (!release_L(false)) thaw(heap, page);
      g_changes.fetch_add(1, std::memory_order_release);
      return true;
    }
    if (repeat_once(at)) return true;
  }
  if (rescue(heap, page)) return true;
  warn_line("a huge page could not be copied after a fork: out of memory");
  return false;
}

// ---- a thread that forks on a stack in the heap (a coroutine's) -----------------------------------------------------------

int move_own_stack(void* top) {
  const auto first = address(top);
  MSpan* const span = g_process.space.span_around(top);
  if (span == nullptr) return 0;
  MHeap& heap = g_process.heaps[HeapId(span->heap)].heap;
  // All of a large object; of a small one, which fits one page, that page and the next.
  const std::uintptr_t end = is_large(span->span_class) ? span->end_addr() : first + kHugeSize;
  for (std::uintptr_t at = is_large(span->span_class) ? span->start_addr : first; at < end; at += kHugeSize) {
    const HugePiece page = huge_page_around(heap, reinterpret_cast<const void*>(at));
    if (page.bytes != 0 && page_state(page.at()) == PageState::kPresent) rescue(heap, page);
  }
  return 0;
}

}  // namespace

void leave_huge_stack() {
  void* const here = __builtin_frame_address(0);
  if (!g_process.space.contains(here)) return;
  Section section;
  // A process that shares all memory with us does it while we are suspended: a stack in use cannot be copied.
  alignas(64) static char stack[64 * KiB];
  const int helper = ::clone(move_own_stack, stack + sizeof stack, CLONE_VM | CLONE_VFORK, here);
  // __WCLONE: it ends without a signal, and no wait() of the program sees it.
  while (helper > 0 && ::waitpid(helper, nullptr, __WCLONE) < 0 && errno == EINTR) {
  }
}

void guard_pages(bool lasting) {
  Section section;
  if (lasting) g_lasting = true;
  put_fault_handlers(serve_fault);
}

void release_guard(bool due) {
  if (!g_lasting && g_remove_at == 0) return;
  Section section;
  release_L(due);
  remove_handlers_L();
}

void open_window() {
  Section section;
  g_process_id.store(::getpid(), std::memory_order_relaxed);
  g_open.fetch_add(1, std::memory_order_acq_rel);
  put_fault_handlers(serve_fault);
}

void window_waits() { g_waiting.fetch_add(1, std::memory_order_acq_rel); }

void close_window(bool keep_guard) {
  {
    Section section;
    if (keep_guard) g_lasting = true;
    g_waiting.fetch_sub(1, std::memory_order_acq_rel);
    const bool last = g_open.load() == 1;
    if (last && !g_lasting) thaw_all();
    g_open.fetch_sub(1, std::memory_order_acq_rel);
    g_closed.fetch_add(1, std::memory_order_release);
    // Threads that wait in our handler return into it whatever is installed meanwhile.
    if (last && !g_lasting) g_remove_at = linux_os().now_ns() + grace();
  }
  linux_os().futex_wake(&g_closed, 1 << 30);
  if (g_remove_at == 0) return;
  if (grace() != 0) {
    std::atomic<std::uint32_t> never{0};
    linux_os().futex_wait(&never, 0, grace());
  }
  Section section;
  remove_handlers_L();
}

void set_forking(bool on) {
  if (t_state.forking == on) return;
  t_state.forking = on;
  on ? g_forking.fetch_add(1) : g_forking.fetch_sub(1);
}

void freeze_pages() {
  Section section;
  for_each_heap([](MHeap& heap) {
    if (huge_kind(heap) != HugeKind::kUnreserved) freeze(heap);
  });
}

void reset_pages_in_child() {
  if (g_lock.held() && !g_lock.held_by_me()) {
    g_lock.reset_after_fork();
    // The page that was being moved is read-only and nobody will finish it.
    if (void* const page = g_rescue.exchange(nullptr); page != nullptr) {
      linux_os().make_writable(page, g_rescue_bytes.load(std::memory_order_relaxed));
    }
  }
  t_state.forking = false;
  g_forking.store(0);
  g_open.store(0);
  g_waiting.store(0);
}

bool relocate_pages_in_child() {
  bool ok = true;
  for_each_heap([&](MHeap& heap) { ok &= relocate_after_fork(heap); });
  return ok;
}

void settle_pages_in_child() {
  for_each_heap([](MHeap& heap) { settle_after_fork(heap); });
  thaw_all();
}

void drop_guard_in_child() {
  g_lasting = false;
  g_remove_at = 0;
  remove_fault_handlers();
}

}  // namespace nh
