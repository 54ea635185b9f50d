// Freeing twice: noticed at once, and in any case before the object can be handed out twice.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <new>

#include "misuse.h"

namespace {

void twice(size_t n) {
  char* p = block(n);
  free(p);
  free(misuse(p));
}

// The object lies deep in the lists of free objects, not on top of them.
void twice_with_others_between(size_t n) {
  char* blocks[40];
  for (char*& p : blocks) p = block(n);
  for (char* p : blocks) free(p);
  free(misuse(blocks[5]));
}

void* free_it(void* p) {
  free(p);
  return nullptr;
}

void free_on_another_thread(void* p) {
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, free_it, p) == 0);
  pthread_join(thread, nullptr);
}

// So many objects are freed that the first ones have left the caches of the CPU. Every second one stays alive, so that
// their spans stay what they are.
void twice_after_flushes(size_t n, size_t count) {
  auto** blocks = static_cast<char**>(malloc(count * sizeof(char*)));
  for (size_t i = 0; i < count; i++) blocks[i] = block(n);
  for (size_t i = 0; i < count; i += 2) free(blocks[i]);
  free(misuse(blocks[2]));
}

// Memory that was freed is not looked at until it is handed out again.
void written_to_after_free(size_t n) {
  char* p = block(n);
  free(p);
  memset(misuse(p) + 8, 0x77, 8);
  for (int i = 0; i < 1000; i++) opaque(malloc(n));
}

// Without its mark an object gets back on its list, which is a ring then: only a few are handed out before it comes up
// once more.
void twice_written_to_with_another_between(size_t n) {
  char* p = block(n);
  char* q = block(n);
  free(p);
  free(q);
  memset(static_cast<char*>(opaque(p)) + 8, 0x77, 8);
  free(misuse(p));
  for (int i = 0; i < 1000; i++) memset(malloc(n), 1, n);
}

}  // namespace

CASE_FATAL(immediate_8, "double free") { twice(8); }
CASE_FATAL(immediate_16, "double free") { twice(16); }
CASE_FATAL(immediate_64, "double free") { twice(64); }
CASE_FATAL(immediate_1024, "double free") { twice(1024); }
CASE_FATAL(immediate_32768, "double free") { twice(32768); }
CASE_FATAL(immediate_40000, "double free") { twice(40000); }
CASE_FATAL(immediate_8_mib, "double free") { twice(8 * kMiB); }
CASE_FATAL(immediate_100_mib, "double free") { twice(100 * kMiB); }

CASE_FATAL(after_others_8, "double free") { twice_with_others_between(8); }
CASE_FATAL(after_others_64, "double free") { twice_with_others_between(64); }
CASE_FATAL(after_others_1024, "double free") { twice_with_others_between(1024); }
CASE_FATAL(after_others_40000, "double free") { twice_with_others_between(40000); }
CASE_FATAL(after_others_8_mib, "double free") { twice_with_others_between(8 * kMiB); }

CASE_FATAL(after_flushes_16, "double free") { twice_after_flushes(16, 1000000); }
CASE_FATAL(after_flushes_64, "double free") { twice_after_flushes(64, 400000); }
CASE_FATAL(after_flushes_1024, "double free") { twice_after_flushes(1024, 60000); }

CASE_FATAL(on_another_thread, "double free") {
  char* p = block(64);
  free(p);
  about_to_misuse(p);
  free_on_another_thread(p);
}

CASE_FATAL(after_another_thread, "double free") {
  char* p = block(1024);
  free_on_another_thread(p);
  free(misuse(p));
}

CASE_FATAL(large_after_another_thread, "double free") {
  char* p = block(8 * kMiB);
  free_on_another_thread(p);
  free(misuse(p));
}

CASE_FATAL(realloc_of_a_freed_block, "double free") {
  char* p = block(64);
  free(p);
  free(opaque(realloc(misuse(p), 5000)));
}

CASE_FATAL(free_after_realloc_moved, "double free") {
  char* p = block(64);
  char* q = static_cast<char*>(opaque(realloc(p, 5000)));
  REQUIRE(q != p);
  free(misuse(p));
}

CASE_FATAL(free_after_realloc_moved_to_a_list_in_use, "double free") {
  char* p = nullptr;
  char* q = nullptr;
  for (int i = 0; i < 100; i++) {
    free(block(1000));
    p = block(64);
    q = static_cast<char*>(opaque(realloc(p, 1000)));
    if (i < 99) free(q);
  }
  REQUIRE(q != p);
  free(misuse(p));
}

CASE_FATAL(free_after_realloc_to_zero, "double free") {
  char* p = block(64);
  REQUIRE(realloc(p, opaque_size(0)) == nullptr);
  free(misuse(p));
}

CASE_FATAL(delete_twice, "double free") {
  void* p = opaque(::operator new(100));
  ::operator delete(p);
  ::operator delete(misuse(p));
}

CASE_FATAL(sized_delete_twice, "double free") {
  void* p = opaque(::operator new(100));
  ::operator delete(p, 100);
  ::operator delete(misuse(p), 100);
}

CASE_FATAL(delete_after_free, "double free") {
  void* p = opaque(malloc(300));
  free(p);
  ::operator delete(misuse(p));
}

CASE_FATAL(aligned_block_twice, "double free") {
  void* p = opaque(aligned_alloc(4096, 100));
  free(p);
  free(misuse(p));
}

// The caches of CPUs cannot be emptied then, and what lies in them looks handed out to its span.
CASE_FATAL(twice_in_a_sandbox_without_membarrier, "double free") {
  sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter = {sizeof program / sizeof program[0], program};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
  twice(64);
}

CASE_FATAL(zero_sized_block_twice, "double free") {
  void* p = opaque(malloc(0));
  free(p);
  free(misuse(p));
}

// The program wrote to the freed block: the mark that free left in it is gone, the bits of the span are not. The
// library may notice only when the objects travel back to their span, so the program frees more of them; it must not
// end well, and the object must not be handed out twice in between.
CASE_FATAL(overwritten_then_freed_again, "double free") {
  char* p = block(64);
  free(p);
  memset(opaque(p), 0x77, 64);
  free(misuse(p));
  static char* blocks[200000];
  for (char*& other : blocks) other = block(64);
  for (char* other : blocks) free(other);
}

CASE_FATAL(written_to_after_free_16, "written to after it was freed") { written_to_after_free(16); }
CASE_FATAL(written_to_after_free_64, "written to after it was freed") { written_to_after_free(64); }
CASE_FATAL(written_to_after_free_1024, "written to after it was freed") { written_to_after_free(1024); }
CASE_FATAL(written_to_after_free_32768, "written to after it was freed") { written_to_after_free(32768); }
CASE_FATAL(ring_of_two_16, "double free") { twice_written_to_with_another_between(16); }
CASE_FATAL(ring_of_two_64, "double free") { twice_written_to_with_another_between(64); }
CASE_FATAL(ring_of_two_1024, "double free") { twice_written_to_with_another_between(1024); }
CASE_FATAL(ring_of_two_32768, "double free") { twice_written_to_with_another_between(32768); }

// Data that looks like anything must not be taken for a double free: no false alarm over many patterns.
CASE(contents_raise_no_alarm) {
  uint64_t random = 11;
  for (const size_t n : kSmall) {
    for (int round = 0; round < 20000; round++) {
      auto* words = static_cast<uint64_t*>(opaque(malloc(n)));
      // The words that the last owner of this memory left, in all their places.
      for (size_t i = 0; i < n / 8 && i < 4; i++) words[i] = next_random(&random);
      free(words);
      // Copy what free() left there over a fresh object, if the same memory comes back.
      uint64_t left[4] = {};
      memcpy(left, opaque(words), n < sizeof left ? n : sizeof left);
      auto* again = static_cast<uint64_t*>(opaque(malloc(n)));
      if (again == words && n >= 16) again[0] = left[0];
      free(again);
    }
  }
}
