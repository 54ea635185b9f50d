// fork: what is done before it (leave_pool.h), and the heap in the child.
//
// fork in a signal handler that interrupted malloc can hang where other threads use stdio: fork waits for the list of
// streams, whose holder may wait for a lock that the interrupted malloc holds. With restartable sequences that takes a
// signal in the slow path; without them (NUMAHEAP_RSEQ=off) any malloc will do. glibc's malloc has the same limit; _Fork()
// is the call for signal handlers.
#pragma once

namespace nh {

// From the constructor: installs the atfork handlers, and what repairs children that are made without them.
void init_fork();

}  // namespace nh
