// fork(): the heap in the child, and huge pages that the pool cannot give twice.
//
// What cannot be had while pages are shared or moved and the pool is dry (NUMAHEAP_HUGEPAGES=thp avoids all of it):
// - A system call that stores into the heap returns EFAULT where a plain store is parked or rescued.
// - A thread that blocks SIGSEGV and SIGBUS, or whose stack lies in the heap without an alternative signal stack outside
//   of it, is ended by the kernel at such a store. The thread that forks has its stack moved first.
// - A child made by clone() or _Fork(), without libc's handlers, gets neither.
//
// And at any time: fork in a signal handler that interrupted malloc itself can hang where other threads use stdio. fork
// waits for the list of streams, whose holder may wait for the lock that the interrupted malloc holds. With restartable
// sequences that takes a signal in the slow path; without them (NUMAHEAP_RSEQ=off) any malloc will do. glibc's malloc
// has the same limit; _Fork() is the call for signal handlers.
#pragma once

namespace nh {

// From the constructor: installs the atfork handlers.
void init_fork();

}  // namespace nh
