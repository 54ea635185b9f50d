// Threads of every kind that go on writing to huge pages of a pool while another thread forks: no store may be lost, no
// child may see a later one without an earlier one. The second part of fork_pool.
#include "fork_pool.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

enum class Kind { kPlain, kSignalsBlocked, kStackInHeap, kSystemCall };

// Numbers rise word by word, again and again, as in Counter. A writer by system call reads them from a file.
struct Writer {
  Kind kind;
  uint64_t* words;
  size_t n;
  std::atomic<bool>* stop;
  uint64_t rounds = 0;
  size_t lost = 0;
  pthread_t thread;

  void round_by_store() {
    rounds++;
    for (size_t i = 0; i < n; i += 8) __atomic_store_n(&words[i], rounds, __ATOMIC_RELAXED);
    for (size_t i = 0; i < n; i += 8) lost += words[i] != rounds;
  }
  void round_by_system_call(int file) {
    rounds++;
    for (size_t i = 0; i < n; i += 512) {
      REQUIRE(pwrite(file, &rounds, 8, 0) == 8);
      const ssize_t got = pread(file, &words[i], 8, 0);
      EXPECT(got == 8, "read: %zd, errno %d", got, errno);
    }
    for (size_t i = 0; i < n; i += 512) lost += words[i] != rounds;
  }
  void run() {
    if (kind == Kind::kSignalsBlocked) {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
    }
    const int file = kind == Kind::kSystemCall ? static_cast<int>(syscall(SYS_memfd_create, "numbers", 0)) : -1;
    while (!*stop) file >= 0 ? round_by_system_call(file) : round_by_store();
    if (file >= 0) close(file);
  }
  static void* start(void* self) {
    static_cast<Writer*>(self)->run();
    return nullptr;
  }
};

// What a fork child sees of a writer: one number up to some place, the number before from there on.
void expect_prefix(const Writer& w) {
  const size_t step = w.kind == Kind::kSystemCall ? 512 : 8;
  size_t i = 0;
  while (i < w.n && w.words[i] == w.words[0]) i += step;
  for (; i < w.n; i += step) {
    EXPECT(w.words[i] + 1 == w.words[0], "word %zu holds %zu, the first %zu", i, size_t{w.words[i]}, size_t{w.words[0]});
  }
}

void fork_among_writers(unsigned threads, const std::vector<Kind>& kinds) {
  constexpr size_t kStack = 3 * kMiB;
  std::atomic<bool> stop{false};
  std::vector<Writer*> writers;
  for (unsigned t = 0; t < threads; t++) {
    auto* const w = new Writer{kinds[t % kinds.size()], nullptr, kMiB / 8, &stop, 0, 0, {}};
    w->words = static_cast<uint64_t*>(malloc(w->n * 8));
    memset(w->words, 0, w->n * 8);
    writers.push_back(w);
  }
  const std::vector<Array> heap = make_heap(16);
  std::vector<char*> stacks;
  for (unsigned t = 0; t < threads; t++) stacks.push_back(make_array(kStack, t).p);
  require_huge_pages(16 * kMiB);
  hand_over();
  for (unsigned t = 0; t < threads; t++) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (writers[t]->kind == Kind::kStackInHeap) REQUIRE(pthread_attr_setstack(&attributes, stacks[t], kStack) == 0);
    REQUIRE(pthread_create(&writers[t]->thread, &attributes, Writer::start, writers[t]) == 0);
  }
  for (long round = 0; round < scaled(50, 20); round++) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const Writer* w : writers) expect_prefix(*w);
      for (const Array& a : heap) expect_contents(a, 0, "child");
      for (int i = 0; i < 100; i++) free(malloc(static_cast<size_t>(i) * 5000));
      end_child();
    }
    expect_good_end(child);
  }
  stop = true;
  for (Writer* w : writers) {
    pthread_join(w->thread, nullptr);
    EXPECT(w->rounds > 0 && w->lost == 0, "%zu stores of %zu rounds were lost", w->lost, size_t{w->rounds});
  }
  for (const Array& a : heap) expect_contents(a, 0, "parent");
}

const std::vector<Kind> kAllKinds = {Kind::kSignalsBlocked, Kind::kStackInHeap, Kind::kSystemCall, Kind::kPlain};

}  // namespace

CASE(two_writers) { fork_among_writers(2, {Kind::kPlain, Kind::kSignalsBlocked}); }
CASE(eight_writers) { fork_among_writers(8, kAllKinds); }

namespace {
void become_nobody() {
  REQUIRE(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
  // A process that has changed its user is kept from files of /proc/self, as one that always was this user is not.
  REQUIRE(prctl(PR_SET_DUMPABLE, 1) == 0);
}
}  // namespace

// Without the privilege system calls do not wait, and the kernel's own stores to a thread's stack and record neither.
CASE(eight_writers_without_privilege) {
  become_nobody();
  fork_among_writers(8, {Kind::kPlain, Kind::kSignalsBlocked});
}
CASE(thread_record_in_the_heap_without_privilege) {
  become_nobody();
  std::atomic<bool> stop{false};
  constexpr size_t kStack = 8 * kMiB;
  char* const stack = make_array(kStack, 1).p;
  const Array other = make_array(8 * kMiB, 2);
  require_huge_pages(16 * kMiB);
  hand_over();
  Writer w{Kind::kPlain, static_cast<uint64_t*>(malloc(kMiB)), kMiB / 8, &stop, 0, 0, {}};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstack(&attributes, stack, kStack) == 0);
  REQUIRE(pthread_create(&w.thread, &attributes, Writer::start, &w) == 0);
  for (long round = 0; round < scaled(50, 20); round++) {
    const pid_t child = _Fork();  // libc's fork would look at the record of the other thread
    if (child == 0) _exit(0);
    expect_good_end(child);
    const pid_t forked = fork();
    if (forked == 0) _exit(0);
    end_of_child(forked);
  }
  stop = true;
  pthread_join(w.thread, nullptr);
  EXPECT(w.lost == 0);
  expect_contents(other, 0, "parent");
}
