// What limits.py runs near limits, under a filter for system calls, and under strace.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "harness/case.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// strace sees this; nothing else calls it.
void mark() { syscall(SYS_getpgid, -4242); }

void touch(void* p, size_t bytes, int byte) {
  REQUIRE(p != nullptr, "%zu bytes", bytes);
  memset(p, byte, bytes);
}

long milliseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// Small objects of `mib` in all, written and freed again.
void small_phase(size_t mib) {
  static void* objects[400000];
  const size_t count = mib * kMiB / 1536;
  REQUIRE(count <= sizeof objects / sizeof *objects);
  for (size_t i = 0; i < count; i++) touch(objects[i] = malloc(1500), 1500, 1);
  for (size_t i = 0; i < count; i++) free(objects[i]);
}

void large_phase(size_t mib) {
  void* const p = malloc(mib * kMiB);
  touch(p, mib * kMiB, 2);
  free(p);
}

// Every kind of object, written and looked at.
void workout() {
  static unsigned char* objects[3000];
  size_t sizes[3000];
  uint64_t random = 7;
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 3000; i++) {
      const uint64_t r = next_random(&random);
      sizes[i] = r % 500 == 0 ? 1 + (r >> 32) % (9 * kMiB) : r % 20 == 0 ? (r >> 32) % 100000 : (r >> 32) % 3000;
      objects[i] = static_cast<unsigned char*>(i % 3 == 0 ? calloc(1, sizes[i]) : malloc(sizes[i]));
      REQUIRE(objects[i] != nullptr, "%zu bytes", sizes[i]);
      for (size_t k = 0; i % 3 == 0 && k < sizes[i]; k += 97) EXPECT(objects[i][k] == 0);
      fill_pattern(objects[i], sizes[i], static_cast<uint64_t>(i));
    }
    for (int i = 0; i < 3000; i += 7) {
      const size_t kept = sizes[i] < 2000 ? sizes[i] : 2000;
      objects[i] = static_cast<unsigned char*>(realloc(objects[i], sizes[i] += 40000));
      REQUIRE(objects[i] != nullptr);
      EXPECT(verify_pattern(objects[i], kept, static_cast<uint64_t>(i)) == kept);
      fill_pattern(objects[i], sizes[i], static_cast<uint64_t>(i));
    }
    for (int i = 0; i < 3000; i++) {
      EXPECT(verify_pattern(objects[i], sizes[i], static_cast<uint64_t>(i)) == sizes[i]);
      free(objects[i]);
    }
    malloc_trim(0);
  }
}

// The system calls that limits.py may name.
constexpr struct {
  const char* name;
  int number;
} kCalls[] = {
#define CALL(name) {#name, SYS_##name}
    CALL(mmap), CALL(munmap), CALL(mprotect), CALL(mremap), CALL(madvise), CALL(futex), CALL(openat), CALL(read),
    CALL(close), CALL(clock_gettime), CALL(sysinfo), CALL(prlimit64), CALL(sched_getaffinity), CALL(getcpu),
    CALL(sched_yield), CALL(membarrier), CALL(rseq), CALL(mbind), CALL(get_mempolicy), CALL(move_pages), CALL(mincore),
    CALL(memfd_create), CALL(ftruncate), CALL(statfs), CALL(getpid), CALL(unlink), CALL(write), CALL(getrandom),
    CALL(gettid), CALL(sched_setaffinity), CALL(clone3), CALL(clone), CALL(rt_sigprocmask), CALL(set_robust_list),
    CALL(exit), CALL(exit_group), CALL(rt_sigreturn), CALL(pread64), CALL(rt_sigaction),
#undef CALL
};

// From here on all other system calls fail with EPERM.
void allow_only(const char* names) {
  static sock_filter filter[2 * sizeof kCalls / sizeof *kCalls + 2];
  unsigned n = 0;
  filter[n++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (const auto& call : kCalls) {
    const size_t length = strlen(call.name);
    bool wanted = false;
    for (const char* at = names; (at = strstr(at, call.name)) != nullptr; at += length) {
      wanted |= (at == names || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0');
    }
    if (!wanted) continue;
    filter[n++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call.number), 0, 1);
    filter[n++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  REQUIRE(n > 1, "none of '%s' is known", names);
  filter[n++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  const sock_fprog program = {static_cast<unsigned short>(n), filter};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    REQUIRE(write(STDOUT_FILENO, "no seccomp\n", 11) == 11);
    _exit(0);
  }
}

}  // namespace

// A program whose phases need other kinds of memory: what one leaves idle is what the next one wants.
CASE(phases_in_turn) {
  for (int round = 0; round < 4; round++) {
    small_phase(180);
    large_phase(180);
  }
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  char line[64];
  const int n = snprintf(line, sizeof line, "peak %ld MiB\n", usage.ru_maxrss >> 10);
  REQUIRE(write(STDOUT_FILENO, line, static_cast<size_t>(n)) == n);
}

// Many objects of which only one byte each is used.
CASE(sparse_objects) {
  static char* objects[800];
  for (char*& p : objects) {
    p = static_cast<char*>(malloc(kMiB));
    REQUIRE(p != nullptr);
    p[kMiB / 2] = 1;
  }
  for (char* p : objects) free(p);
}

CASE(steady_large_objects) {
  void* held[8] = {};
  // Five sizes in eight places: the second half does what the first has done.
  for (int i = 0; i < 4000; i++) {
    if (i == 2000) mark();
    void*& p = held[i % 8];
    free(p);
    p = malloc((size_t{4} << i % 5) * kMiB);
    REQUIRE(p != nullptr);
    *static_cast<char*>(p) = 1;
  }
  mark();
  for (void* p : held) free(p);
}

CASE(a_thousand_new_objects) {
  const long begin = milliseconds();
  mark();
  static void* objects[1000];
  for (void*& p : objects) {
    p = malloc(5 * kMiB);
    REQUIRE(p != nullptr);
    *static_cast<char*>(p) = 1;
  }
  mark();
  char line[64];
  const int n = snprintf(line, sizeof line, "%ld ms\n", milliseconds() - begin);
  REQUIRE(write(STDOUT_FILENO, line, static_cast<size_t>(n)) == n);
  for (void* p : objects) free(p);
}

CASE(everything) { workout(); }

CASE(under_a_filter) {
  const char* const names = getenv("NH_TEST_CALLS");
  REQUIRE(names != nullptr);
  workout();  // on files and calls as they are
  allow_only(names);
  workout();
  large_phase(100);
}

CASE(under_a_filter_from_the_first_object) {
  const char* const names = getenv("NH_TEST_CALLS");
  REQUIRE(names != nullptr);
  allow_only(names);
  workout();
  small_phase(20);
  large_phase(100);
}
