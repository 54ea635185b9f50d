// Where the other threads of the process have what the kernel itself writes to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

// Calls visit(argument, address) with an address next to the restartable-sequence area of every thread: in libc's record
// of the thread, which lies at the end of its stack where the program made the stack. False: they could not be found.
bool for_each_thread_record(void (*visit)(void* argument, std::uintptr_t at), void* argument);

}  // namespace nh
