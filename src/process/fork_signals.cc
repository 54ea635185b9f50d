#include "process/fork_signals.h"

#include <cerrno>

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace nh {
namespace {

struct Caught {
  const int signal;
  struct sigaction before;
  bool installed;
};
Caught g_caught[] = {{SIGBUS, {}, false}, {SIGSEGV, {}, false}};
FaultServer g_server = nullptr;

void on_fault(int signal, siginfo_t* info, void* context);

bool is_ours(const struct sigaction& action) { return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_fault; }

void take_default_action(int signal, const siginfo_t& info) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  // A fault comes back when its instruction is repeated, with a core dump that shows it. What somebody sent does not.
  if (info.si_code <= 0) ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), signal);
}

void pass_on(int signal, siginfo_t* info, void* context) {
  Caught& caught = g_caught[signal == SIGBUS ? 0 : 1];
  const struct sigaction before = caught.before;
  const bool plain = (before.sa_flags & SA_SIGINFO) == 0;
  if (plain && before.sa_handler == SIG_DFL) return take_default_action(signal, *info);
  if (plain && before.sa_handler == SIG_IGN) {
    // The kernel does not let a fault be ignored either.
    if (info->si_code > 0) take_default_action(signal, *info);
    return;
  }
  if ((before.sa_flags & static_cast<int>(SA_RESETHAND)) != 0) {
    caught.before = {};
    caught.before.sa_handler = SIG_DFL;
  }
  // What the kernel would have blocked for this handler; ours has blocked everything. The old mask comes back with the
  // return from our handler, or with whatever mask the program's handler jumps out with.
  sigset_t mask = static_cast<ucontext_t*>(context)->uc_sigmask;
  for (int s = 1; s < NSIG; s++) {
    if (sigismember(&before.sa_mask, s) == 1) sigaddset(&mask, s);
  }
  if ((before.sa_flags & SA_NODEFER) == 0) sigaddset(&mask, signal);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  if (plain) {
    before.sa_handler(signal);
  } else {
    before.sa_sigaction(signal, info, context);
  }
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const bool served = g_server(signal, *info);
  errno = saved;
  if (!served) pass_on(signal, info, context);
}

}  // namespace

void put_fault_handlers(FaultServer server) {
  g_server = server;
  for (Caught& caught : g_caught) {
    struct sigaction now;
    if (sigaction(caught.signal, nullptr, &now) != 0 || is_ours(now)) continue;
    caught.before = now;
    struct sigaction ours = {};
    ours.sa_sigaction = on_fault;
    // Nothing may interrupt a rescue: a handler of the program could store into the page that is being moved.
    sigfillset(&ours.sa_mask);
    // On the stack that the program's handler expects. Where it has none, on the alternative stack if the thread has one:
    // runtimes with small or growing stacks rely on it.
    const bool has_handler = (now.sa_flags & SA_SIGINFO) != 0 || (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN);
    ours.sa_flags = SA_SIGINFO | (has_handler ? now.sa_flags & (SA_ONSTACK | SA_RESTART) : SA_ONSTACK | SA_RESTART);
    caught.installed = sigaction(caught.signal, &ours, nullptr) == 0;
  }
}

void remove_fault_handlers() {
  for (Caught& caught : g_caught) {
    struct sigaction now;
    if (!caught.installed || sigaction(caught.signal, nullptr, &now) != 0) continue;
    if (is_ours(now)) {
      sigaction(caught.signal, &caught.before, nullptr);
      caught.installed = false;
    }
  }
}

}  // namespace nh
