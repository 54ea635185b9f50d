// The restartable sequences: every change of a CPU's free lists, each committed by its last store.
//
// Why they are correct. A thread announces a sequence by storing its descriptor into its rseq area; from the next
// instruction on, when the kernel preempts the thread, migrates it or delivers a signal to it, and its program counter
// is inside, it goes on at the abort label instead, which starts over. So from the load of cpu_id to the last store no
// other thread ran on this CPU in between, and as only threads running on a CPU change its lists (and whoever drains
// them has first made every sequence on that CPU abort, CpuCaches::drain), what was loaded is still true when the last store
// commits it. Stores before the last one must be harmless if repeated or left half-way: they change the object that is
// being freed, which nobody else has, or the room of a list, which is a hint.
//
// The descriptor stays in the area after the end of a sequence: the kernel ignores it when the program counter is
// outside, and the library is never unloaded.
//
// A thread that is single-stepped (a debugger's stepi, record or software watchpoints) is interrupted at every instruction,
// so that a sequence would start over for ever. Therefore the abort handler counts the thread's aborts, and every
// kAbortsToLeave-th of them leaves by the exit that stands for empty, full or moved. That is no new case for those who call:
// at an abort the last store has not been made, so nothing was pushed, popped or changed but for the room. The slow path, to
// which these exits lead, asks rseq_gets_through() and works without sequences where it says no. An abort that is counted
// by a signal handler between the two instructions of the handler below only moves the exit to a later abort.
//
// All functions are always_inline: their abort handlers lie in a section of their own, which must not outlive a
// discarded copy of an inline function.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/layout.h"
#include "os/rseq.h"

// Announces the sequence between labels 771 and 772; an abort goes back to the announcement. %[rseq] holds the offset of the
// rseq area from the thread pointer, %[scratch] is overwritten.
#define NH_RSEQ_BEGIN                                     \
  ".pushsection __rseq_cs, \"aw\"\n\t"                    \
  ".balign 32\n"                                          \
  "77:\n\t"                                               \
  ".long 0, 0\n\t"                                        \
  ".quad 771f, 772f - 771f, 774f\n\t"                     \
  ".popsection\n"                                         \
  "770:\n\t"                                              \
  "leaq 77b(%%rip), %[scratch]\n\t"                       \
  "movq %[scratch], %%fs:8(%[rseq])\n"                    \
  "771:\n\t"

// Ends it, with the abort handler that consists of these instructions.
#define NH_RSEQ_END_WITH(handler)                         \
  "772:\n\t"                                              \
  ".pushsection .text.nh_rseq_abort, \"ax\"\n\t"          \
  ".byte 0x0f, 0xb9, 0x3d\n\t"                            \
  ".long 0x53053053\n"                                    \
  "774:\n\t"                                              \
  handler                                                 \
  ".popsection\n\t"

// exit: the label, as "%l[name]", to which every kAbortsToLeave-th abort goes; before_exit: instructions that make true what
// the code behind that label takes for granted.
#define NH_RSEQ_END(before_exit, exit)                    \
  NH_RSEQ_END_WITH(                                       \
  "movq nh_rseq_aborts@gottpoff(%%rip), %[scratch]\n\t"   \
  "addl $1, %%fs:(%[scratch])\n\t"                        \
  "testl $7, %%fs:(%[scratch])\n\t"                       \
  "jnz 770b\n\t"                                          \
  before_exit                                             \
  "jmp " exit "\n\t")

namespace nh {

static_assert(kRseqSignature == 0x53053053 && kRseqCriticalSection == 8 && kRseqCpuId == 4);
inline constexpr std::uint32_t kAbortsToLeave = 8;  // as the mask 7 in NH_RSEQ_END

// How often the running thread's sequences were aborted since somebody was told that they do not get through.
extern __thread std::uint32_t t_rseq_aborts __asm__("nh_rseq_aborts")
    __attribute__((visibility("hidden"), tls_model("initial-exec")));

// False: a sequence of this thread was left because of its aborts, and nobody has acted upon it yet. Sequences may fail for
// this reason wherever they stand; a loop that tries again when one has failed must end where this says false.
inline bool rseq_gets_through() { return t_rseq_aborts < kAbortsToLeave; }
// The same, for whoever now does without sequences: they are tried again the next time.
inline bool rseq_got_through() {
  if (rseq_gets_through()) [[likely]] return true;
  t_rseq_aborts = 0;
  return false;
}

static_assert(sizeof(CpuSlot) == 8 && offsetof(FreeList, room) == 8 && offsetof(FreeList, cap) == 12);

// Pops an object off the list at `offset` of the local heap's lists of whichever CPU this is. False: empty, or the sequence
// does not get through.
[[gnu::always_inline]] inline bool rseq_pop(const CpuSlot* slots, std::size_t offset, void** popped) {
  void* object;
  void* next;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN
                    "movslq %%fs:4(%[rseq]), %[scratch]\n\t"
                    "movq (%[slots],%[scratch],8), %[scratch]\n\t"
                    "addq %[offset], %[scratch]\n\t"
                    "movq (%[scratch]), %[object]\n\t"
                    "testq %[object], %[object]\n\t"
                    "jz %l[empty]\n\t"
                    "movq (%[object]), %[next]\n\t"
                    "addl $1, 8(%[scratch])\n\t"
                    "movq %[next], (%[scratch])\n"
                    NH_RSEQ_END("", "%l[empty]")
                    : [object] "=&a"(object), [next] "=&r"(next), [scratch] "=&r"(scratch)  // rax: as malloc returns it
                    : [rseq] "r"(g_rseq_offset), [slots] "r"(slots), [offset] "r"(offset)
                    : "memory", "cc"
                    : empty);
  *popped = object;
  return true;
empty:
  return false;
}

// Pushes an object on the list at `offset` of the lists of all heaps. False: no room, or the sequence does not get through. Its
// second word is set in any case: by the abort handler, too, since the sequence may not have come so far. It is set here
// because stores to one cache line that follow each other are one access to the cache.
[[gnu::always_inline]] inline bool rseq_push(const CpuSlot* slots, std::size_t offset, void* object, std::uint64_t second_word) {
  void* head;
  std::uint32_t room;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN
                    "movslq %%fs:4(%[rseq]), %[scratch]\n\t"
                    "movq (%[slots],%[scratch],8), %[scratch]\n\t"
                    "addq %[offset], %[scratch]\n\t"
                    "movl 8(%[scratch]), %[room]\n\t"
                    "movq %[second_word], 8(%[object])\n\t"
                    "subl $1, %[room]\n\t"
                    "jc %l[full]\n\t"
                    "movq (%[scratch]), %[head]\n\t"
                    "movq %[head], (%[object])\n\t"
                    "movl %[room], 8(%[scratch])\n\t"
                    "movq %[object], (%[scratch])\n"
                    NH_RSEQ_END("movq %[second_word], 8(%[object])\n\t", "%l[full]")
                    : [head] "=&r"(head), [room] "=&r"(room), [scratch] "=&r"(scratch)
                    : [rseq] "r"(g_rseq_offset), [slots] "r"(slots), [offset] "r"(offset), [object] "r"(object),
                      [second_word] "r"(second_word)
                    : "memory", "cc"
                    : full);
  return true;
full:
  return false;
}

// The slow path's sequences work on a list of a cache that was looked up before, and fail where the thread is on another
// CPU by now, the cache was taken out of its slot, or the sequence does not get through: "moved" stands for all of these.
struct RseqGuard {
  std::int32_t cpu;
  const CpuSlot* slot;  // of that CPU, in the table of all lists
  const void* lists;    // what it must hold
};

#define NH_RSEQ_CHECK_GUARD                       \
  "cmpl %[cpu], %%fs:4(%[rseq])\n\t"              \
  "jne %l[moved]\n\t"                             \
  "cmpq %[lists], (%[slot])\n\t"                  \
  "jne %l[moved]\n\t"

#define NH_RSEQ_GUARD_INPUTS(guard) \
  [rseq] "r"(g_rseq_offset), [cpu] "r"((guard).cpu), [slot] "r"((guard).slot), [lists] "r"((guard).lists)

// Takes the whole list and sets its room right. False: moved, nothing done.
[[gnu::always_inline]] inline bool rseq_take(const RseqGuard& guard, FreeList* list, void** head_out, std::uint32_t* count) {
  void* head;
  std::uint32_t room;
  std::uint32_t cap;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN NH_RSEQ_CHECK_GUARD
                    "movq (%[list]), %[head]\n\t"
                    "movl 8(%[list]), %[room]\n\t"
                    "movl 12(%[list]), %[cap]\n\t"
                    "movl %[cap], 8(%[list])\n\t"
                    "movq $0, (%[list])\n"
                    NH_RSEQ_END("", "%l[moved]")
                    : [head] "=&r"(head), [room] "=&r"(room), [cap] "=&r"(cap), [scratch] "=&r"(scratch)
                    : NH_RSEQ_GUARD_INPUTS(guard), [list] "r"(list)
                    : "memory", "cc"
                    : moved);
  *head_out = head;
  *count = cap > room ? cap - room : 0;
  return true;
moved:
  return false;
}

// Pushes a chain of `count` objects. False: moved or not enough room, nothing done.
[[gnu::always_inline]] inline bool rseq_put(const RseqGuard& guard, FreeList* list, void* first, void* last, std::uint32_t count) {
  void* head;
  std::uint32_t room;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN NH_RSEQ_CHECK_GUARD
                    "movl 8(%[list]), %[room]\n\t"
                    "subl %[count], %[room]\n\t"
                    "jc %l[moved]\n\t"
                    "movq (%[list]), %[head]\n\t"
                    "movq %[head], (%[last])\n\t"
                    "movl %[room], 8(%[list])\n\t"
                    "movq %[first], (%[list])\n"
                    NH_RSEQ_END("", "%l[moved]")
                    : [head] "=&r"(head), [room] "=&r"(room), [scratch] "=&r"(scratch)
                    : NH_RSEQ_GUARD_INPUTS(guard), [list] "r"(list), [first] "r"(first), [last] "r"(last),
                      [count] "r"(count)
                    : "memory", "cc"
                    : moved);
  return true;
moved:
  return false;
}

// Puts a null-terminated chain on an empty list, without touching the chain. False: moved, not empty, or no room.
[[gnu::always_inline]] inline bool rseq_install(const RseqGuard& guard, FreeList* list, void* first, std::uint32_t count) {
  std::uint32_t room;
  std::uintptr_t scratch;
  asm goto volatile(NH_RSEQ_BEGIN NH_RSEQ_CHECK_GUARD
                    "cmpq $0, (%[list])\n\t"
                    "jne %l[moved]\n\t"
                    "movl 12(%[list]), %[room]\n\t"
                    "subl %[count], %[room]\n\t"
                    "jc %l[moved]\n\t"
                    "movl %[room], 8(%[list])\n\t"
                    "movq %[first], (%[list])\n"
                    NH_RSEQ_END("", "%l[moved]")
                    : [room] "=&r"(room), [scratch] "=&r"(scratch)
                    : NH_RSEQ_GUARD_INPUTS(guard), [list] "r"(list), [first] "r"(first), [count] "r"(count)
                    : "memory", "cc"
                    : moved);
  return true;
moved:
  return false;
}

// Adds to both room and cap of a list in one store. False: moved, or one of them is smaller than what is to be taken
// away. The cap is asked as well, because the room may have become larger than it.
[[gnu::always_inline]] inline bool rseq_resize(const RseqGuard& guard, FreeList* list, std::int32_t delta) {
  std::uint64_t both;
  std::uintptr_t scratch;
  // One 64-bit addition for the two halves. Taking away neither borrows nor carries across, since both hold enough.
  const std::uint32_t size = delta < 0 ? 0 - static_cast<std::uint32_t>(delta) : static_cast<std::uint32_t>(delta);
  const std::uint64_t pair = std::uint64_t{size} << 32 | size;
  const std::uint64_t addend = delta < 0 ? 0 - pair : pair;
  const std::uint32_t least = delta < 0 ? size : 0;
  asm goto volatile(NH_RSEQ_BEGIN NH_RSEQ_CHECK_GUARD
                    "cmpl %[least], 8(%[list])\n\t"
                    "jb %l[moved]\n\t"
                    "cmpl %[least], 12(%[list])\n\t"
                    "jb %l[moved]\n\t"
                    "movq 8(%[list]), %[both]\n\t"
                    "addq %[addend], %[both]\n\t"
                    "movq %[both], 8(%[list])\n"
                    NH_RSEQ_END("", "%l[moved]")
                    : [both] "=&r"(both), [scratch] "=&r"(scratch)
                    : NH_RSEQ_GUARD_INPUTS(guard), [list] "r"(list), [addend] "r"(addend), [least] "r"(least)
                    : "memory", "cc"
                    : moved);
  return true;
moved:
  return false;
}

}  // namespace nh
