// What the library writes: to stderr only as long as that is the file it was at start, without a copy of it, and never at a
// point where a thread can be cancelled.
//
// With NUMAHEAP_HUGEPAGES=2m, which has something to say where a pool is empty, and NUMAHEAP_REPORT=1.
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness/case.h"

namespace {

pthread_barrier_t g_pending;
bool g_returned;

void use_everything() {
  static void* blocks[300];
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < 300; i++) blocks[i] = memset(malloc(i * i * 40 + 1), 1, 1);
    for (size_t i = 0; i < 300; i += 2) blocks[i] = realloc(blocks[i], i * 3000 + 1);
    for (void* p : blocks) free(p);
    free(calloc(40, 1 << 20));
    free(aligned_alloc(4096, 8192));
    malloc_trim(0);
    (void)mallinfo2();
  }
}

// Runs `work` in a thread that is to be cancelled already, at the first point where it can be.
void run_cancelled(void (*work)()) {
  static void (*wanted)();
  wanted = work;
  g_returned = false;
  pthread_barrier_init(&g_pending, nullptr, 2);
  pthread_t thread;
  const auto body = [](void*) -> void* {
    pthread_barrier_wait(&g_pending);
    wanted();
    g_returned = true;
    pthread_testcancel();
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, nullptr, body, nullptr) == 0);
  pthread_cancel(thread);
  pthread_barrier_wait(&g_pending);
  void* result = nullptr;
  pthread_join(thread, &result);
  EXPECT(g_returned, "cancelled inside");
  EXPECT(result == PTHREAD_CANCELED);
}

// An empty file that is descriptor 2 from now on. Returns another descriptor for it.
int take_the_place_of_stderr() {
  char path[] = "/tmp/nh-output-XXXXXX";
  close(STDERR_FILENO);
  const int fd = mkstemp(path);
  if (fd != STDERR_FILENO) _exit(5);
  unlink(path);
  return fcntl(fd, F_DUPFD, 10);
}

long size_of(int fd) {
  struct stat s;
  return fstat(fd, &s) == 0 ? static_cast<long>(s.st_size) : -1;
}

int end_of_child(void (*work)()) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

int g_file;

}  // namespace

CASE(no_call_is_a_point_of_cancellation) { run_cancelled(use_everything); }

CASE(malloc_stats_is_no_point_of_cancellation) {
  run_cancelled(malloc_stats);
  malloc_stats();  // its lock is free
}

CASE(a_line_is_not_written_to_a_file_of_the_program) {
  g_file = take_the_place_of_stderr();
  use_everything();
  if (size_of(g_file) != 0) _exit(6);
}

CASE(the_last_line_is_not_written_to_a_file_of_the_program) {
  static int pipe_of_size[2];
  REQUIRE(pipe(pipe_of_size) == 0);
  const int status = end_of_child([] {
    g_file = take_the_place_of_stderr();
    void* p = opaque(malloc(100));
    if (write(pipe_of_size[1], &g_file, sizeof g_file) < 0) _exit(7);
    const pid_t self = getpid();
    if (fork() == 0) {  // looks at the file when we are dead
      while (getppid() == self) usleep(1000);
      const long size = size_of(g_file);
      if (write(pipe_of_size[1], &size, sizeof size) < 0) _exit(7);
      _exit(0);
    }
    free(p);
    free(p);
  });
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x", status);
  int fd = -1;
  long size = -1;
  REQUIRE(read(pipe_of_size[0], &fd, sizeof fd) == sizeof fd && read(pipe_of_size[0], &size, sizeof size) == sizeof size);
  EXPECT(size == 0, "%ld bytes", size);
}

// A reader of a pipe waits for its end, which a copy would put off until the process ends.
CASE(no_copy_of_stderr_is_kept) {
  struct stat wanted, found;
  REQUIRE(fstat(STDERR_FILENO, &wanted) == 0);
  for (int fd = 3; fd < 1024; fd++) {
    if (fstat(fd, &found) != 0) continue;
    EXPECT(found.st_ino != wanted.st_ino || found.st_dev != wanted.st_dev, "descriptor %d", fd);
  }
}

// Programs close stderr at exit to see write errors. Run by the next case.
CASE(close_stderr) { close(STDERR_FILENO); }

CASE(the_report_finds_a_file_that_was_closed) {
  char path[] = "/tmp/nh-report-XXXXXX";
  g_file = mkstemp(path);
  REQUIRE(g_file >= 0);
  const int status = end_of_child([] {
    dup2(g_file, STDERR_FILENO);
    char program[] = "/proc/self/exe", name[] = "close_stderr";
    char* arguments[] = {program, name, nullptr};
    execv(program, arguments);
  });
  unlink(path);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
  char text[4096] = "";
  EXPECT(pread(g_file, text, sizeof text - 1, 0) > 0);
  EXPECT(strncmp(text, "numaheap: process ", 18) == 0, "%.200s", text);
}
