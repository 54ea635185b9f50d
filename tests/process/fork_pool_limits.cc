// Forks that cannot move all or any of what lies on huge pages of a pool: pinned pages, no room, no time, nobody to stop the
// other threads; and forks from signal handlers, from several threads, without libc. The third part of fork_pool.
#include "fork_pool.h"
#include "pin.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

long hugetlb_kib() { return status_kib("HugetlbPages"); }

// Touches an array in a child: how that ends.
int child_that_reads(const Array& a) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    expect_contents(a, 0, "child");
    end_child();
  }
  return end_of_child(child);
}
bool died_of(int status, int signal) { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }

void refuse(std::initializer_list<int> calls, unsigned answer) {
  std::vector<sock_filter> filter = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  unsigned left = static_cast<unsigned>(calls.size());
  for (const int call : calls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), static_cast<unsigned char>(left), 0));
    left--;
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, answer));
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

}  // namespace

// ---- what must not be moved ------------------------------------------------------------------------------------------

// The kernel writes to a registered buffer by its physical address: it must find the page where the program looks.
CASE(registered_buffers_keep_their_pages) {
  io_uring_params parameters = {};
  const int ring = static_cast<int>(syscall(SYS_io_uring_setup, 4, &parameters));
  if (ring < 0) {
    printf("skipped: io_uring is not to be had here\n");
    return;
  }
  const Array buffer = make_array(8 * kMiB, 1);
  const Array other = make_array(8 * kMiB, 2);
  require_huge_pages(16 * kMiB);
  iovec range = {buffer.p + 3 * kMiB, 8192};
  REQUIRE(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &range, 1) == 0);
  const int source = static_cast<int>(syscall(SYS_memfd_create, "source", 0));
  char text[8192];
  memset(text, 'n', sizeof text);
  REQUIRE(write(source, text, sizeof text) == sizeof text);

  EXPECT(child_that_reads(other) == 0);
  EXPECT(hugetlb_kib() == 2048, "%ld KiB on huge pages", hugetlb_kib());

  const size_t queue_bytes = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
  auto* const queue = static_cast<char*>(mmap(nullptr, queue_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING));
  auto* const entries = static_cast<io_uring_sqe*>(
      mmap(nullptr, parameters.sq_entries * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES));
  REQUIRE(queue != MAP_FAILED && entries != MAP_FAILED);
  entries[0] = {};
  entries[0].opcode = IORING_OP_READ_FIXED;
  entries[0].fd = source;
  entries[0].addr = reinterpret_cast<uintptr_t>(range.iov_base);
  entries[0].len = 8192;
  reinterpret_cast<unsigned*>(queue + parameters.sq_off.array)[0] = 0;
  __atomic_store_n(reinterpret_cast<unsigned*>(queue + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
  REQUIRE(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) == 1);
  EXPECT(memcmp(range.iov_base, text, sizeof text) == 0, "what was read went elsewhere");
  close(ring);
}

// ---- not enough of something --------------------------------------------------------------------------------------------

// NUMAHEAP_FORK_MAX=12M: small objects and a part of the arrays. The child goes on, but for the rest.
CASE(more_than_fork_max) {
  const Array small = make_array(1000, 1);
  std::vector<Array> arrays;
  for (uint64_t i = 0; i < 4; i++) arrays.push_back(make_array(16 * kMiB, i));
  require_huge_pages(64 * kMiB);
  hand_over();
  EXPECT(child_that_reads(small) == 0);
  int lost = 0;
  for (const Array& a : arrays) {
    const int status = child_that_reads(a);
    EXPECT(status == 0 || died_of(status, SIGSEGV), "status %#x", static_cast<unsigned>(status));
    lost += status != 0;
  }
  EXPECT(lost >= 3, "%d arrays were lost", lost);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<Array> own = make_heap(32);
    for (const Array& a : own) expect_contents(a, 0, "child");
    for (const Array& a : own) free(a.p);
    malloc_trim(0);
    end_child();
  }
  expect_good_end(child);
  for (const Array& a : arrays) refill(a, 1);
  for (const Array& a : arrays) expect_contents(a, 1, "parent");
  for (const Array& a : arrays) free(a.p);
  malloc_trim(0);
  EXPECT(hugetlb_kib() == 0, "%ld KiB stayed on huge pages", hugetlb_kib());
}

// NUMAHEAP_FORK_MAX=0: not even small objects. The child cannot have them, but it can have others.
CASE(children_without_the_small_objects) {
  std::vector<Array> heap;
  for (uint64_t i = 0; i < 20000; i++) heap.push_back(make_array(100 + i % 900, i));
  for (size_t i = 0; i < heap.size(); i += 2) free(heap[i].p);
  hand_over();
  const int before = eat_the_pool();
  (void)before;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    static char* own[5000];
    for (size_t i = 0; i < 5000; i++) {
      own[i] = static_cast<char*>(malloc(100 + i % 2000));
      if (own[i] == nullptr) _exit(3);
      memset(own[i], 1, 100 + i % 2000);
    }
    for (char* p : own) free(p);
    _exit(0);
  }
  const int status = end_of_child(child);
  EXPECT(status == 0, "status %#x", static_cast<unsigned>(status));
  for (size_t i = 1; i < heap.size(); i += 2) expect_contents(heap[i], 0, "parent");
}

// What the parent has freed and a CPU keeps for the next request of its size. Small objects can be moved.
CASE(children_without_freed_arrays) {
  constexpr size_t kSizes[] = {20 * kMiB, 24 * kMiB};
  stay_here();
  std::vector<Array> heap;
  for (const size_t n : kSizes) heap.push_back(make_array(n, n));
  require_huge_pages(44 * kMiB);
  for (const Array& a : heap) free(a.p);
  // A CPU keeps what was asked for again.
  for (const size_t n : kSizes) free(make_array(n, n).p);
  hand_over();
  (void)eat_the_pool();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  for (const size_t n : kSizes) {
    const Array a = make_array(n, n + 1);
    expect_contents(a, 0, child == 0 ? "child" : "parent");
    free(a.p);
  }
  if (child == 0) end_child();
  expect_good_end(child);
}

// Not even address space for the work itself.
CASE(no_address_space_is_left) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  rlimit limit;
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = kMiB;  // far less than there is already: nothing more can be mapped, whatever is given back
  REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(0);
  expect_good_end(child);
  EXPECT(hugetlb_kib() >= 24 * 1024, "%ld KiB on huge pages", hugetlb_kib());
  EXPECT(died_of(child_that_reads(heap[8]), SIGSEGV));
  for (const Array& a : heap) refill(a, 1);
  for (const Array& a : heap) expect_contents(a, 1, "parent");
}

// The memory group has room for little more than there is: pages of a pool are not charged to it, copies are.
CASE(memory_group_is_nearly_full) {
  const std::vector<Array> heap = make_heap(96);
  require_huge_pages(88 * kMiB);
  hand_over();
  for (int round = 0; round < 3; round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) _exit(0);
    expect_good_end(child);
  }
  EXPECT(hugetlb_kib() >= 48 * 1024, "%ld KiB on huge pages", hugetlb_kib());
  for (const Array& a : heap) expect_contents(a, 0, "parent");
  for (const Array& a : heap) refill(a, 1);
}

// A filter that kills for userfaultfd: it must not be called. With other threads nothing is moved, and nobody is harmed.
CASE(other_threads_cannot_be_stopped) {
  Counter counter(4 * kMiB);
  const Array a = make_array(16 * kMiB, 1);
  require_huge_pages(16 * kMiB);
  refuse({SYS_userfaultfd}, SECCOMP_RET_KILL_PROCESS);
  EXPECT(child_that_reads(a) == 0);  // alone: it needs none
  hand_over();
  Counter* const more = new Counter(8 * kMiB);
  (void)more;
  counter.start();
  for (int round = 0; round < 5; round++) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    expect_good_end(child);
  }
  counter.finish();
  expect_contents(a, 0, "parent");
}
CASE(threads_from_the_start_cannot_be_stopped) {
  Counter counter(16 * kMiB);
  require_huge_pages(16 * kMiB);
  refuse({SYS_userfaultfd}, SECCOMP_RET_ERRNO | EPERM);
  hand_over();
  counter.start();
  for (int round = 0; round < 5; round++) {
    const pid_t child = fork();
    if (child == 0) {
      *const_cast<volatile uint64_t*>(counter.words);
      _exit(0);
    }
    expect_signal(child, SIGSEGV);
  }
  counter.finish();
  EXPECT(hugetlb_kib() >= 16 * 1024, "%ld KiB on huge pages", hugetlb_kib());
}

CASE(fork_that_fails) {
  const std::vector<Array> heap = make_heap(32);
  require_huge_pages(24 * kMiB);
  hand_over();
  refuse({SYS_clone, SYS_clone3}, SECCOMP_RET_ERRNO | EAGAIN);
  const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 10; i++) {
    errno = 0;
    REQUIRE(fork() == -1);
    EXPECT(errno == EAGAIN, "errno %d", errno);
    // All of it can be written, by system calls too.
    for (const Array& a : heap) EXPECT(read(zeros, a.p, a.n) == static_cast<ssize_t>(a.n), "errno %d", errno);
  }
  // No descriptor was left open.
  EXPECT(dup(zeros) == zeros + 1);
  for (const Array& a : heap) refill(a, 1);
  for (const Array& a : heap) expect_contents(a, 1, "parent");
}

// NUMAHEAP_SHARED: a child that shared the file would write to its parent's memory. Whether devices use a page of it cannot
// be told, so that large objects stay.
CASE(nothing_of_a_shared_file_is_shared) {
  std::vector<Array> heap;
  for (uint64_t i = 0; i < 24; i++) heap.push_back(make_array(kMiB - 4096, i));
  const Array large = make_array(8 * kMiB, 77);
  require_huge_pages(30 * kMiB);
  hand_over();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const Array& a : heap) expect_contents(a, 0, "child");
    for (const Array& a : heap) refill(a, 1);
    end_child();
  }
  expect_good_end(child);
  EXPECT(died_of(child_that_reads(large), SIGSEGV));
  for (const Array& a : heap) expect_contents(a, 0, "parent");
  expect_contents(large, 0, "parent");
}

// ---- NUMAHEAP_FORK=cow --------------------------------------------------------------------------------------------------

CASE(children_read_shared_arrays) {
  const Array a = make_array(32 * kMiB, 1);
  require_huge_pages(32 * kMiB);
  hand_over();
  for (int i = 0; i < 3; i++) EXPECT(child_that_reads(a) == 0);
  EXPECT(hugetlb_kib() >= 32 * 1024, "%ld KiB on huge pages", hugetlb_kib());
  expect_contents(a, 0, "parent");
  // Nobody shares it any more.
  refill(a, 1);
  expect_contents(a, 1, "parent");
}

// ---- forks of every kind ----------------------------------------------------------------------------------------------

namespace {
volatile sig_atomic_t g_forks, g_bad, g_often;
// Armed anew by each signal: the kernel starts a fork over when a signal comes, so that with a steady clock none might end.
void next_signal() {
  const itimerval soon = {{0, 0}, {0, 2000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
}
void fork_in_handler(int) {
  const int saved = errno;
  const pid_t child = fork();
  if (child == 0) _exit(0);
  if (child > 0) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) g_bad = g_bad + 1;
    g_forks = g_forks + 1;
  }
  if (g_often) next_signal();
  errno = saved;
}
}  // namespace

// The handler interrupts malloc, free, fork and the work that fork does.
CASE(forks_in_a_signal_handler) {
  const std::vector<Array> heap = make_heap(24);
  require_huge_pages(16 * kMiB);
  hand_over();
  struct sigaction action = {};
  action.sa_handler = fork_in_handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  g_often = 1;
  next_signal();
  for (long round = 0; round < scaled(200, 50); round++) {
    std::vector<Array> more = make_heap(4);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const Array& a : heap) expect_contents(a, 0, "child");
      end_child();
    }
    expect_good_end(child);
    for (const Array& a : more) free(a.p);
  }
  g_often = 0;
  usleep(5000);
  EXPECT(g_forks > 0 && g_bad == 0, "%d forks, %d bad", static_cast<int>(g_forks), static_cast<int>(g_bad));
  for (const Array& a : heap) expect_contents(a, 0, "parent");
}

// Children of _Fork() and of the bare system call run no handlers of libc's. NUMAHEAP_SCAVENGE_DELAY=1ms keeps another
// thread inside the heap.
CASE(children_without_handlers_use_the_heap) {
  static char* p[256];
  const auto work = [] {
    for (int i = 0; i < 48; i++) *(p[i] = static_cast<char*>(malloc(kMiB))) = 1;
    for (int i = 0; i < 48; i++) free(p[i]);
  };
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      char* q[16];
      for (char*& x : q) *(x = static_cast<char*>(malloc(3 * kMiB))) = 1;
      for (char* x : q) free(x);
      for (int i = 0; i < 2000; i++) free(malloc(static_cast<size_t>(i) * 20));
    }
  });
  hand_over();
  for (long round = 0; round < scaled(600, 150); round++) {
    work();
    const pid_t child = round % 2 != 0 ? _Fork() : static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(10);
      work();
      for (int i = 0; i < 200; i++) p[i] = static_cast<char*>(malloc(static_cast<size_t>(i) * 50));
      _exit(0);
    }
    const int status = end_of_child(child);
    EXPECT(status == 0, "round %ld: status %#x", round, static_cast<unsigned>(status));
  }
  stop = true;
  other.join();
}

namespace {
std::atomic<int> g_child_handler_failed{0};
void allocate_in_child_handler() {
  alarm(10);
  for (size_t i = 0; i < 300; i++) {
    char* const p = static_cast<char*>(malloc(i * 3000));
    if (p == nullptr) g_child_handler_failed = 1;
    free(p);
  }
}
void register_early() {
  if (getenv("NH_TEST_EARLY") != nullptr) pthread_atfork(nullptr, nullptr, allocate_in_child_handler);
}
// Before the constructors of all libraries, ours included: its handlers then come second in the child.
[[gnu::section(".preinit_array"), gnu::used]] void (*g_early)() = register_early;
}  // namespace

CASE(handlers_of_the_program_use_the_heap_first) {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      char* q[16];
      for (char*& x : q) *(x = static_cast<char*>(malloc(3 * kMiB))) = 1;
      for (char* x : q) free(x);
    }
  });
  hand_over();
  for (long round = 0; round < scaled(300, 100); round++) {
    const pid_t child = fork();
    if (child == 0) _exit(g_child_handler_failed);
    expect_good_end(child);
  }
  stop = true;
  other.join();
}
