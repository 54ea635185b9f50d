// Huge pages for what no malloc gives: static data of the program and its libraries, code, stacks (NUMAHEAP_STATIC,
// NUMAHEAP_TEXT, NUMAHEAP_STACKS).
//
// Zeroes (.bss, COMMON) are anonymous memory that nobody has touched: advice is all that they need, and it moves nothing. What
// comes from a file is another matter. The kernel makes no huge pages of private copies of a file's pages, with whatever
// advice (6.18: MADV_HUGEPAGE does nothing there, MADV_COLLAPSE fails with EINVAL), and huge pages of the file itself only
// where it was built for that (CONFIG_READ_ONLY_THP_FOR_FS) or the file lies in tmpfs, and where the file's huge pages
// coincide with those of its mapping, which takes a program linked with -z max-page-size=2M. So initialised data and code
// are copied to anonymous memory, which is then moved to their place. That is done while the process has one thread.
#pragma once

#include <cstdint>

namespace nh {

// From the constructor, with no lock held. For the program and the libraries that are loaded then.
void advise_program_memory();

// What lies deeper on the calling thread's stack than its present huge page. A thread that needs no more than that takes
// no more memory than without. Allocates. Nothing of it happens unless NUMAHEAP_STACKS asks for it.
void advise_own_stack();

// For reports. Whether an address lies in static data or code of what was loaded at the start, and whether one lies in libc's
// record of the first thread.
bool is_static_data(std::uintptr_t at);
bool is_code(std::uintptr_t at);
bool is_record_of_first_thread(std::uintptr_t at);

}  // namespace nh
