// Three levels of checks.
//
//   NH_CHECK(cond, "what")   always on: a false condition means the heap is corrupt. One line on stderr, then SIGABRT.
//   NH_ASSERT(cond)          debug builds only: a mistake of ours.
//   bool check() members     audit: walkers over whole structures, called by tests and fuzzers, never by the allocator.
//
// Nothing here allocates, takes a lock or goes through stdio, so it works in any state of the process.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

// Writes "numaheap: <text>\n" to stderr, as long as that is the file it was at start (stderr.h). Keeps errno, and is no
// cancellation point. Text longer than 1 KiB is cut.
void warn_line(const char* text);

// Writes "numaheap: fatal: <text>\n" to stderr and aborts. text should name the pointer, the span, the class and the cause.
[[noreturn]] void fatal(const char* text);

// fatal() with where the check stands; what NH_CHECK and NH_ASSERT call.
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const char* what);

// Where lines go; tests replace it. nullptr restores stderr.
using LineSink = void (*)(const char* line, std::size_t length);
void set_line_sink(LineSink sink);
// Hands a finished line (newline included) to the sink.
void emit_line(const char* line, std::size_t length);

}  // namespace nh

#define NH_CHECK(cond, what)                                                      \
  do {                                                                            \
    if (__builtin_expect(!(cond), 0)) ::nh::check_failed(__FILE__, __LINE__, #cond, what); \
  } while (0)

#ifdef NUMAHEAP_DEBUG
#define NH_ASSERT(cond) NH_CHECK(cond, "assertion")
#else
#define NH_ASSERT(cond) \
  do {                  \
  } while (false && (cond))
#endif
