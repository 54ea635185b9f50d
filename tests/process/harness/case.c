#include "harness/case.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

extern struct NhCase* __start_nh_cases[];
extern struct NhCase* __stop_nh_cases[];

static int g_failures;  // counted atomically: cases run threads

void expect_failed(const char* file, int line, const char* condition, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  const char* slash = strrchr(file, '/');
  dprintf(STDERR_FILENO, "%s:%d: expected %s%s%s\n", slash != NULL ? slash + 1 : file, line, condition,
          text[0] != '\0' ? ": " : "", text);
  // One broken property can fail a million times; the first few say it all.
  if (__atomic_add_fetch(&g_failures, 1, __ATOMIC_RELAXED) >= 20) _exit(1);
}

int failures(void) { return __atomic_load_n(&g_failures, __ATOMIC_RELAXED); }

void about_to_misuse(const void* p) { dprintf(STDOUT_FILENO, "pointer 0x%lx\n", (unsigned long)(uintptr_t)p); }

long scaled(long full, long quick) {
  const char* mode = getenv("NH_TEST_QUICK");
  return mode != NULL && strcmp(mode, "1") == 0 ? quick : full;
}

long status_kib(const char* key) {
  char text[8192];
  const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return -1;
  text[n] = '\0';
  const size_t length = strlen(key);
  for (const char* at = text; (at = strstr(at, key)) != NULL; at += length) {
    if ((at == text || at[-1] == '\n') && at[length] == ':') return strtol(at + length + 1, NULL, 10);
  }
  return -1;
}

long resident_kib(void) {
  const long huge = status_kib("HugetlbPages");
  return status_kib("VmRSS") + (huge > 0 ? huge : 0);
}

long long json_sum(const char* json, const char* key) {
  char quoted[64];
  const int length = snprintf(quoted, sizeof quoted, "\"%s\"", key);
  long long sum = -1;
  for (const char* at = json; (at = strstr(at, quoted)) != NULL;) {
    at += length;
    while (*at == ' ' || *at == ':') at++;
    sum = (sum < 0 ? 0 : sum) + strtoll(at, NULL, 10);
  }
  return sum;
}

static uint64_t pattern_word(uint64_t seed, size_t index) { return (seed ^ (index * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu; }

void fill_pattern(void* p, size_t n, uint64_t seed) {
  unsigned char* out = (unsigned char*)p;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint64_t word = pattern_word(seed, i);
    memcpy(out + i, &word, 8);
  }
  const uint64_t word = pattern_word(seed, i);
  memcpy(out + i, &word, n - i);
}

size_t verify_pattern(const void* p, size_t n, uint64_t seed) {
  const unsigned char* in = (const unsigned char*)p;
  size_t i = 0;
  for (; i < n; i += 8) {
    const uint64_t word = pattern_word(seed, i);
    const size_t length = n - i < 8 ? n - i : 8;
    if (memcmp(in + i, &word, length) != 0) {
      size_t at = i;
      while (memcmp(in + at, (const unsigned char*)&word + (at - i), 1) == 0) at++;
      return at;
    }
  }
  return n;
}

uint64_t (*nh_memory_syscalls)(void);
int (*nh_stats_json)(char* buffer, size_t capacity);

#ifdef NH_TEST_LINKED
uint64_t numaheap_memory_syscalls(void);
int numaheap_stats_json(char* buffer, size_t capacity);

static void require_library(void) {
  nh_memory_syscalls = numaheap_memory_syscalls;
  nh_stats_json = numaheap_stats_json;
}
#else
// A test of the wrong library passes for the wrong reason: the process proves that malloc is the one under test.
static void require_library(void) {
  const char* library = getenv("NH_TEST_LIBRARY");
  if (library == NULL) return;
  // Looked up, not taken: &malloc in an executable may be its own PLT entry.
  Dl_info info;
  struct stat wanted, found;
  REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0);
  REQUIRE(stat(library, &wanted) == 0, "%s", library);
  REQUIRE(stat(info.dli_fname, &found) == 0, "%s", info.dli_fname);
  REQUIRE(wanted.st_ino == found.st_ino && wanted.st_dev == found.st_dev, "malloc comes from %s", info.dli_fname);
  nh_memory_syscalls = (uint64_t(*)(void))dlsym(RTLD_DEFAULT, "numaheap_memory_syscalls");
  nh_stats_json = (int (*)(char*, size_t))dlsym(RTLD_DEFAULT, "numaheap_stats_json");
}
#endif

int main(int argc, char** argv) {
  if (argc != 2) {
    dprintf(STDERR_FILENO, "usage: %s CASE | --list\n", argv[0]);
    return 2;
  }
  const int listing = strcmp(argv[1], "--list") == 0;
  if (!listing) require_library();
  for (struct NhCase** entry = __start_nh_cases; entry != __stop_nh_cases; entry++) {
    const struct NhCase* test = *entry;
    if (listing) {
      dprintf(STDOUT_FILENO, "%s\t%s\n", test->name, test->expectation);
    } else if (strcmp(argv[1], test->name) == 0) {
      test->run();
      return failures() == 0 ? 0 : 1;
    }
  }
  if (listing) return 0;
  dprintf(STDERR_FILENO, "%s: no case %s\n", argv[0], argv[1]);
  return 2;
}
