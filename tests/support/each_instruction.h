// Runs code with a signal handler after each of its instructions, by the processor's trap flag: what a handler may find
// half-done is found without luck.
#pragma once

#include <signal.h>
#include <ucontext.h>

namespace nh::test {

using InstructionHandler = void (*)(int signal, siginfo_t* info, void* context);

inline constexpr long kTrapFlag = 0x100;

// Calls body(), and handler() in a handler of SIGTRAP after every instruction that it takes.
template <typename Body>
void with_handler_at_each_instruction(InstructionHandler handler, Body&& body) {
  struct sigaction action = {}, before;
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &action, &before);
  // The red zone below the stack pointer belongs to the compiler.
  asm volatile("sub $128, %%rsp\n\tpushfq\n\torq %0, (%%rsp)\n\tpopfq\n\tadd $128, %%rsp" : : "r"(kTrapFlag) : "cc", "memory");
  body();
  asm volatile("sub $128, %%rsp\n\tpushfq\n\tandq %0, (%%rsp)\n\tpopfq\n\tadd $128, %%rsp" : : "r"(~kTrapFlag) : "cc", "memory");
  sigaction(SIGTRAP, &before, nullptr);
}

// In such a handler: the instruction that comes next.
inline unsigned long interrupted_at(void* context) {
  return static_cast<unsigned long>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
}

// In such a handler: it is not called again.
inline void leave_to_itself(void* context) { static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag; }

}  // namespace nh::test
