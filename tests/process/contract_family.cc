// Every name of the family is there, does what its manual page says, and the odd corners of the common ones.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "harness/case.h"

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* __libc_valloc(size_t);
void* __libc_pvalloc(size_t);
void __libc_free(void*);
#ifdef NH_TEST_LINKED
void free_sized(void*, size_t);
void free_aligned_sized(void*, size_t, size_t);
#endif
}

namespace {

using FreeSized = void (*)(void*, size_t);
using FreeAlignedSized = void (*)(void*, size_t, size_t);

// Collects what a function writes to a stdio stream or to stderr.
struct Captured {
  char text[65536];
  size_t size;
};
Captured g_captured;

void read_captured(int fd) {
  lseek(fd, 0, SEEK_SET);
  const ssize_t n = read(fd, g_captured.text, sizeof g_captured.text - 1);
  g_captured.size = n > 0 ? static_cast<size_t>(n) : 0;
  g_captured.text[g_captured.size] = '\0';
}

// A minimal check of well-formedness: tags nest and close, attributes are quoted, one root. Returns what is wrong.
const char* xml_error(const char* at) {
  const char* open[32];
  size_t open_length[32];
  size_t depth = 0;
  int roots = 0;
  for (;;) {
    while (*at != '<' && *at != '\0') {
      if (*at == '>' || *at == '&') return "stray character";
      if (depth == 0 && *at > ' ') return "text outside of the root";
      at++;
    }
    if (*at == '\0') return depth != 0 ? "an open tag is left" : roots == 1 ? nullptr : "not exactly one root";
    at++;
    if (*at == '?') {
      at = strstr(at, "?>");
      if (at == nullptr) return "open declaration";
      at += 2;
      continue;
    }
    const bool closing = *at == '/';
    if (closing) at++;
    const size_t length = strcspn(at, " \t\n/>");
    if (length == 0) return "tag without a name";
    const char* name = at;
    at += length;
    int quotes = 0;
    while (*at != '\0' && (quotes % 2 != 0 || (*at != '>' && !(*at == '/' && at[1] == '>')))) {
      if (*at == '"') quotes++;
      if (*at == '<') return "a tag within a tag";
      at++;
    }
    if (*at == '\0') return "a tag does not end";
    const bool empty = *at == '/';
    at += empty ? 2 : 1;
    if (closing) {
      if (depth == 0 || open_length[depth - 1] != length || memcmp(open[depth - 1], name, length) != 0) return "wrong closing tag";
      depth--;
    } else {
      if (depth == 0) roots++;
      if (!empty) {
        if (depth == 32) return "too deep";
        open[depth] = name;
        open_length[depth++] = length;
      }
    }
  }
}

}  // namespace

CASE(zero_sizes_are_unique) {
  static void* blocks[3000];
  for (size_t i = 0; i < 3000; i++) {
    blocks[i] = i % 3 == 0 ? malloc(0) : i % 3 == 1 ? calloc(0, i) : realloc(nullptr, 0);
    REQUIRE(blocks[i] != nullptr);
  }
  for (size_t i = 0; i < 3000; i++) {
    for (size_t j = i + 1; j < 3000; j++) EXPECT(blocks[i] != blocks[j]);
  }
  for (void* p : blocks) free(p);
  void* p = calloc(0, 0);
  EXPECT(p != nullptr);
  free(p);
}

CASE(realloc_to_zero_frees) {
  // Memory would run out if it did not.
  for (int i = 0; i < 20000; i++) {
    void* p = malloc(size_t{1} << 20);
    REQUIRE(p != nullptr);
    static_cast<volatile char*>(p)[0] = 1;
    errno = 4711;
    EXPECT(realloc(opaque(p), opaque_size(0)) == nullptr);
    EXPECT(errno == 4711, "errno became %d", errno);
  }
  EXPECT(resident_kib() < 200 * 1024, "%ld KiB resident", resident_kib());
}

CASE(free_of_null) {
  free(nullptr);
  EXPECT(malloc_usable_size(nullptr) == 0);
}

CASE(reallocarray_moves_contents) {
  auto* p = static_cast<char*>(reallocarray(nullptr, 10, 10));
  fill_pattern(p, 100, 5);
  p = static_cast<char*>(reallocarray(p, 1000, 1000));
  EXPECT(verify_pattern(p, 100, 5) == 100);
  free(p);
}

CASE(libc_names_are_the_same_heap) {
  // glibc's own names are called by old libraries; a block from one set must be acceptable to the other.
  void* blocks[] = {__libc_malloc(100), __libc_calloc(3, 50), __libc_realloc(nullptr, 200), __libc_memalign(256, 100),
                    __libc_valloc(10), __libc_pvalloc(10)};
  for (void* p : blocks) {
    REQUIRE(p != nullptr);
    EXPECT(malloc_usable_size(p) >= 10);
    memset(p, 1, 10);
    free(p);
  }
  void* p = malloc(100);
  p = __libc_realloc(p, 100000);
  __libc_free(p);
  p = realloc(__libc_malloc(50), 60);
  __libc_free(p);
}

CASE(every_name_is_defined_by_one_library) {
#ifndef NH_TEST_LINKED
  // A name that is missing falls through to libc's heap, and the pointer then meets the wrong free().
  Dl_info of_malloc;
  REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &of_malloc) != 0);
  const char* const names[] = {
      "calloc", "realloc", "free", "memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc",
      "malloc_usable_size", "reallocarray", "mallopt", "mallinfo", "mallinfo2", "malloc_trim", "malloc_stats", "malloc_info",
      "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_free", "__libc_memalign", "__libc_valloc", "__libc_pvalloc"};
  for (const char* name : names) {
    Dl_info info;
    void* function = dlsym(RTLD_DEFAULT, name);
    EXPECT(function != nullptr, "%s", name);
    if (function == nullptr || dladdr(function, &info) == 0) continue;
    EXPECT(strcmp(info.dli_fname, of_malloc.dli_fname) == 0, "%s comes from %s", name, info.dli_fname);
  }
#endif
}

// C23's names and glibc's historic cfree, which the system's libc 2.36 lacks.
CASE(sized_free_and_cfree) {
  const auto sized = NH_LIBRARY_FUNCTION(FreeSized, free_sized);
  const auto aligned_sized = NH_LIBRARY_FUNCTION(FreeAlignedSized, free_aligned_sized);
  REQUIRE(sized != nullptr && aligned_sized != nullptr);
  for (size_t n = 0; n < 200000; n += n / 16 + 1) {
    errno = 4711;
    sized(malloc(n), n);
    sized(calloc(n, 1), n);
    aligned_sized(aligned_alloc(64, n), 64, n);
    aligned_sized(aligned_alloc(8192, n), 8192, n);
    EXPECT(errno == 4711, "errno became %d at %zu", errno, n);
  }
  sized(nullptr, 10);
  aligned_sized(nullptr, 16, 10);
#ifndef NH_TEST_LINKED
  const auto cfree_function = reinterpret_cast<void (*)(void*)>(dlsym(RTLD_DEFAULT, "cfree"));
  REQUIRE(cfree_function != nullptr);
  cfree_function(malloc(100));
#endif
}

CASE(mallopt_accepts_and_refuses) {
  // The return value is 1 for a parameter that is known, even if it is ignored: programs check it.
  EXPECT(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
  EXPECT(mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
  EXPECT(mallopt(M_ARENA_MAX, 1) == 1);
  void* p = malloc(1000);
  EXPECT(p != nullptr);
  free(p);
}

CASE(mallinfo_follows_the_heap) {
  void* warm = malloc(100);
  const struct mallinfo2 before = mallinfo2();
  void* p = malloc(size_t{50} << 20);
  memset(p, 1, size_t{50} << 20);
  const struct mallinfo2 after = mallinfo2();
  EXPECT(after.uordblks + after.hblkhd >= before.uordblks + before.hblkhd + (size_t{50} << 20), "%zu -> %zu",
         before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
  free(p);
  free(warm);
  const struct mallinfo2 freed = mallinfo2();
  EXPECT(freed.uordblks + freed.hblkhd < after.uordblks + after.hblkhd);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  (void)mallinfo();
#pragma GCC diagnostic pop
}

CASE(malloc_trim_gives_memory_back) {
  static void* blocks[40000];
  for (void*& p : blocks) {
    p = malloc(4000);
    memset(p, 1, 4000);
  }
  const long full = resident_kib();
  for (void* p : blocks) free(p);
  EXPECT(malloc_trim(0) == 1, "1 says that memory went back");
  const long trimmed = resident_kib();
  EXPECT(trimmed < full - 100 * 1024, "%ld KiB before, %ld KiB after", full, trimmed);
  EXPECT(malloc_trim(0) == 0, "a second call in a row has nothing left to give back");
}

CASE(malloc_stats_writes_to_stderr) {
  char path[] = "/tmp/nh-stats-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  unlink(path);
  const int saved = dup(STDERR_FILENO);
  void* p = malloc(1000);
  dup2(fd, STDERR_FILENO);
  malloc_stats();
  dup2(saved, STDERR_FILENO);
  free(p);
  read_captured(fd);
  EXPECT(g_captured.size > 20, "%zu bytes", g_captured.size);
}

CASE(malloc_info_is_xml) {
  char path[] = "/tmp/nh-info-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  unlink(path);
  FILE* file = fdopen(dup(fd), "w");
  void* p = malloc(1000);
  EXPECT(malloc_info(0, file) == 0);
  EXPECT(malloc_info(1, file) != 0, "no option is defined");
  fclose(file);
  free(p);
  read_captured(fd);
  EXPECT(strstr(g_captured.text, "<malloc") != nullptr, "%.100s", g_captured.text);
  EXPECT(xml_error(g_captured.text) == nullptr, "%s in: %.300s", xml_error(g_captured.text), g_captured.text);
}

// The checker itself: what it calls well-formed must not be everything.
CASE(the_xml_check_can_fail) {
  EXPECT(xml_error("<a><b c=\"1\"/><d>x</d></a>\n") == nullptr);
  for (const char* bad : {"", "text", "<a>", "<a></b>", "<a/><b/>", "<a b=\"1></a>", "<a><b></a></b>", "<a>&</a>"}) {
    EXPECT(xml_error(bad) != nullptr, "%s", bad);
  }
}
