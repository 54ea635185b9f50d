// The yardstick: what a push and a pop on a per-CPU list cost when there is nothing else: no size, no class, no page
// map, no check. One intrusive list per CPU, one cache line each, changed by the same kind of restartable sequence as
// the allocator's own. What malloc and free take beyond it is what the allocator adds.
//
// Called through a shared library of its own (library_pop, library_push), as malloc and free are, it costs what a
// per-CPU malloc cannot fall below. Inlined into the loop it takes less than half of that, since a CPU that sees both
// addresses side by side forwards the list's head from the store to the load in no time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/rseq_section.h"

// The yardstick starts over whenever it is interrupted.
#define NH_BENCH_RSEQ_END NH_RSEQ_END_WITH("jmp 770b\n\t")

namespace bench {

struct alignas(64) BareList {
  void* head;
};

// The same lists through librseq_list.so (rseq_list.cc). library_init comes first, while the process has one thread.
extern "C" {
bool library_init(BareList* lists);  // false: no restartable sequences through libc here
void* library_pop();                 // nullptr: empty
void library_push(void* object);
}

// The inline ones need nh::rseq_init(), too. lists: one per possible CPU. False: empty.
[[gnu::always_inline]] inline bool bare_pop(BareList* lists, void** popped) {
  void* object;
  void* next;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN
                    "movslq %%fs:4(%[rseq]), %[scratch]\n\t"
                    "shlq $6, %[scratch]\n\t"
                    "addq %[lists], %[scratch]\n\t"
                    "movq (%[scratch]), %[object]\n\t"
                    "testq %[object], %[object]\n\t"
                    "jz %l[empty]\n\t"
                    "movq (%[object]), %[next]\n\t"
                    "movq %[next], (%[scratch])\n"
                    NH_BENCH_RSEQ_END
                    : [object] "=&r"(object), [next] "=&r"(next), [scratch] "=&r"(scratch)
                    : [rseq] "r"(nh::g_rseq_offset), [lists] "r"(lists)
                    : "memory", "cc"
                    : empty);
  *popped = object;
  return true;
empty:
  return false;
}

[[gnu::always_inline]] inline void bare_push(BareList* lists, void* object) {
  void* head;
  std::uintptr_t scratch;
  asm volatile(NH_RSEQ_BEGIN
               "movslq %%fs:4(%[rseq]), %[scratch]\n\t"
               "shlq $6, %[scratch]\n\t"
               "addq %[lists], %[scratch]\n\t"
               "movq (%[scratch]), %[head]\n\t"
               "movq %[head], (%[object])\n\t"
               "movq %[object], (%[scratch])\n"
               NH_BENCH_RSEQ_END
               : [head] "=&r"(head), [scratch] "=&r"(scratch)
               : [rseq] "r"(nh::g_rseq_offset), [lists] "r"(lists), [object] "r"(object)
               : "memory", "cc");
}

}  // namespace bench
