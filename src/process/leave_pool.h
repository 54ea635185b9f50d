// Before a fork: memory of the heap leaves the huge pages of pools, so that no child shares them.
//
// Memory on such pages is copy-on-write after a fork like any other, but a copy takes another huge page. Where the pool has
// none, the kernel ends the process that stores with SIGBUS, or takes the page away from the child, which is ended when it
// next looks; and it miscounts the pool when the owner of a shared page is gone before the child is. So a process that
// forks moves what it has there to ordinary memory, as far as that is safe, and takes no more of it. What cannot be moved
// children do not get: there is a hole in its place, and a child that touches it gets SIGSEGV. Nothing of this can harm
// the process that forks.
//
// NUMAHEAP_FORK=cow moves small objects alone and shares the rest, for programs whose children read large arrays.
#pragma once

namespace nh {

// In the thread that forks, before it does. Other threads wait meanwhile where they store into such memory or need more
// of it. A second thread that forks waits for the first.
//
// Nothing is done for a signal handler that interrupted its thread inside a heap: it holds a lock that the work needs.
// That fork shares everything.
void leave_pool_before_fork();

// In a child, first thing: whoever was leaving the pool does not exist here.
void repair_leave_pool_in_child();

}  // namespace nh
