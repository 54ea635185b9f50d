// What the library adds to the start of a small program: runs COMMAND with and without it in turns and compares the
// medians of the wall time and of the resident memory.
//
//   startup_launcher LIBRARY ROUNDS COMMAND...
//
// Linked statically and written in C so that it is smaller than what it starts: the kernel counts the largest resident
// size of a process from before its exec, when it was still this program.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMaxRounds = 2000 };

// The promise for memory. The one for time (1 ms) is measured and printed; a machine that is busy with other things
// must not fail the test, so only ten times as much does.
static const long kMaxAddedKib = 2048;
static const double kMaxAddedUs = 10000;

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return x < y ? -1 : x > y;
}

static double median(double* values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return values[count / 2];
}

// One run; exits where the command does not end with 0.
static void run(char** command, char** environment, double* us, double* kib) {
  const double start = now_us();
  const pid_t child = vfork();
  if (child == 0) {
    execve(command[0], command, environment);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) != child) {
    perror("startup_launcher");
    exit(2);
  }
  *us = now_us() - start;
  *kib = (double)usage.ru_maxrss;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "startup_launcher: %s ended with status %#x\n", command[0], status);
    exit(1);
  }
}

int main(int argc, char** argv) {
  const int rounds = argc > 3 ? atoi(argv[2]) : 0;
  if (rounds < 1 || rounds > kMaxRounds || access(argv[1], R_OK) != 0) {
    fprintf(stderr, "usage: %s LIBRARY ROUNDS COMMAND...\n", argv[0]);
    return 2;
  }
  static char preload[4200];
  snprintf(preload, sizeof preload, "LD_PRELOAD=%s", argv[1]);
  char* without[] = {NULL};
  char* with[] = {preload, NULL};
  static double us[2][kMaxRounds], kib[2][kMaxRounds];
  for (int i = 0; i < rounds; i++) {
    run(argv + 3, without, &us[0][i], &kib[0][i]);
    run(argv + 3, with, &us[1][i], &kib[1][i]);
  }
  const double plain_us = median(us[0], rounds), library_us = median(us[1], rounds);
  const double plain_kib = median(kib[0], rounds), library_kib = median(kib[1], rounds);
  printf("%s, median of %d runs: %.0f us and %.0f KiB without, %.0f us and %.0f KiB with the library: +%.0f us, +%.0f KiB\n",
         argv[3], rounds, plain_us, plain_kib, library_us, library_kib, library_us - plain_us, library_kib - plain_kib);
  if (plain_us > library_us || plain_kib > library_kib + 8) {
    // Nothing is loaded in less than no time: LD_PRELOAD had no effect.
    printf("the runs with the library are the cheaper ones: was it loaded?\n");
    return 1;
  }
  if (library_kib - plain_kib > (double)kMaxAddedKib) {
    printf("more than %ld KiB of additional memory\n", kMaxAddedKib);
    return 1;
  }
  if (library_us - plain_us > kMaxAddedUs) {
    printf("more than %.0f us of additional time\n", kMaxAddedUs);
    return 1;
  }
  return 0;
}
