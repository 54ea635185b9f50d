// Who runs the scavengers: a thread per node (NUMAHEAP_SCAVENGE=background), the program's own threads (inline), nobody.
//
// There is no thread as long as the program has only one, and none from the moment on at which main() has ended by
// pthread_exit(): then the program's own threads do it.
#pragma once

#include <cstddef>
#include <string_view>

namespace nh {

// What the kernel calls the threads.
inline constexpr std::string_view kScavengerName = "numaheap-scav";

// From the constructor.
void init_background();

// Called on slow paths after memory was freed, with the address that free() returns to.
void memory_was_freed(const void* caller);

// The same after touched pages were taken, which will become huge pages.
void touched_pages_were_taken(const void* caller);

// The program is about to have another thread, and holds no lock of libc's.
void a_thread_is_wanted();

// Nothing happens to the heap in these threads from the return of the first on, until the second is called. By one thread at
// a time, which waits for work under way: no other thread may have been stopped yet.
void pause_background();
void resume_background();

// In a fork child: the threads are gone.
void forget_background_threads();

}  // namespace nh
