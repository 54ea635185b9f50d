// A fork child that is single-stepped, as a debugger does it for stepi, record and software watchpoints: the kernel
// interrupts it after every instruction.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nh::test {

struct Stepped {
  bool possible = false;  // false: ptrace is refused here
  bool ended = false;     // false: it was still running after the steps that it was given, and was killed
  int status = 0;         // as waitpid() says
  long steps = 0;
};

// Runs `body`, which returns an exit status, in a child with at most so many steps.
template <typename Body>
Stepped run_stepped(long most_steps, Body&& body) {
  Stepped result;
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(125);
    raise(SIGSTOP);
    _exit(body());
  }
  if (child < 0) return result;
  while (waitpid(child, &result.status, 0) == child && WIFSTOPPED(result.status)) {
    const int signal = WSTOPSIG(result.status);
    result.possible = true;
    if (result.steps++ == most_steps) {
      kill(child, SIGKILL);
      waitpid(child, &result.status, 0);
      return result;
    }
    const int passed_on = signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
    if (ptrace(PTRACE_SINGLESTEP, child, nullptr, passed_on) != 0) break;
  }
  result.ended = true;
  return result;
}

}  // namespace nh::test
