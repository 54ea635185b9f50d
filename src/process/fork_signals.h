// SIGBUS and SIGSEGV around a fork: handlers of ours in front of the program's.
#pragma once

#include <csignal>

namespace nh {

// Decides about a fault. True: dealt with, the access is to be repeated. Runs with all signals blocked.
using FaultServer = bool (*)(int signal, const siginfo_t& info);

// Puts our handlers in front of the program's; nothing where they are already. Faults go to `server` first and, where it
// declines them, to the program's own handlers as if ours were not there: mask, SA_SIGINFO, SA_ONSTACK, SA_NODEFER,
// SA_RESETHAND, default action.
// These two are not thread-safe against each other.
void put_fault_handlers(FaultServer server);
// Gives the signals back, each where the handler is still ours: the program may have installed another one since.
void remove_fault_handlers();

}  // namespace nh
