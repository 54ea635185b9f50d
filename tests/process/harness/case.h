// The frame of every test program of this folder: a table of cases, each of which run_cases.py runs in its own process.
//
//   CASE(name) { ... }                  must end with status 0
//   CASE_FATAL(name, "words") { ... }   must end with SIGABRT and one line "numaheap: fatal: ... words ..." that names
//                                       the pointer last handed to about_to_misuse(); words are a regular expression
//
// C and C++. The frame itself never allocates before a case has started, so that a case can test the first operation
// of a process. Expectations go on after a failure; REQUIRE ends the process.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct NhCase {
  const char* name;
  const char* expectation;  // "pass", or "fatal <words>"
  void (*run)(void);
};

#define NH_DEFINE_CASE(case_name, expected)                                                       \
  static void nh_run_##case_name(void);                                                           \
  static struct NhCase nh_case_##case_name = {#case_name, expected, nh_run_##case_name};          \
  static struct NhCase* nh_entry_##case_name __attribute__((used, section("nh_cases"))) = &nh_case_##case_name; \
  static void nh_run_##case_name(void)

#define CASE(case_name) NH_DEFINE_CASE(case_name, "pass")
#define CASE_FATAL(case_name, words) NH_DEFINE_CASE(case_name, "fatal " words)

// Notes a failed expectation on stderr with write(2); the process will end with status 1.
void expect_failed(const char* file, int line, const char* condition, const char* format, ...)
    __attribute__((format(printf, 4, 5)));
// The number of expectations that failed so far.
int failures(void);

#define EXPECT(condition, ...)                                                                    \
  do {                                                                                            \
    if (!(condition)) expect_failed(__FILE__, __LINE__, #condition, "" __VA_ARGS__);              \
  } while (0)
#define REQUIRE(condition, ...)                                                                   \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      expect_failed(__FILE__, __LINE__, #condition, "" __VA_ARGS__);                              \
      _exit(1);                                                                                   \
    }                                                                                             \
  } while (0)

// Tells run_cases.py which pointer the fatal line has to name.
void about_to_misuse(const void* p);

// `full`, or `quick` where NH_TEST_QUICK=1 asks for the short run.
long scaled(long full, long quick);

// A value in KiB from /proc/self/status ("VmRSS", "HugetlbPages", ...); -1 where there is no such line. Does not allocate.
long status_kib(const char* key);

// Bytes that the process holds in RAM, huge pages included, in KiB.
long resident_kib(void);

// Reads a number that follows "key": in the JSON text; -1 where the key is missing. Sums over all occurrences.
long long json_sum(const char* json, const char* key);

// The library's own entry points (numaheap_memory_syscalls, numaheap_stats_json); null on the system's malloc.
extern uint64_t (*nh_memory_syscalls)(void);
extern int (*nh_stats_json)(char* buffer, size_t capacity);

// The address of a function that the system's libc may not have. Linked programs hold the library inside and need not
// export it, so there a weak reference asks the linker; elsewhere the dynamic linker knows.
#ifdef NH_TEST_LINKED
#define NH_LIBRARY_FUNCTION(type, function) ((type)(void*)(function))
#else
#define NH_LIBRARY_FUNCTION(type, function) ((type)dlsym(RTLD_DEFAULT, #function))
#endif

// Hides a pointer or number from the optimiser, which may otherwise remove or judge the very call under test.
static inline void* opaque(const void* p) {
  void* hidden = (void*)(uintptr_t)p;
  __asm__ volatile("" : "+r"(hidden) : : "memory");
  return hidden;
}
static inline size_t opaque_size(size_t n) {
  __asm__ volatile("" : "+r"(n));
  return n;
}

// splitmix64: small, seedable, the same on every machine.
static inline uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Fills n bytes with a pattern that depends on the seed and on the position, and checks it again.
// verify_pattern returns the offset of the first wrong byte, or n.
void fill_pattern(void* p, size_t n, uint64_t seed);
size_t verify_pattern(const void* p, size_t n, uint64_t seed);

#ifdef __cplusplus
}
#endif

#include <unistd.h>
