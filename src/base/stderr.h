// The descriptor that was stderr when the process started.
//
// A program may close it, and whatever it opens next may get the same number. So the library writes there only as long as
// it is the file that it was at first, and keeps no copy of it: a copy would keep a pipe open whose reader waits for its
// end. System calls are made directly, because libc's write() is a cancellation point.
#pragma once

#include <cstddef>

namespace nh {

// Takes descriptor 2 as it is now for stderr. Until it is called, whatever has that number counts.
void note_stderr();
// Whether the descriptor is still that file.
bool stderr_is_same();
// Remembers where the file lies, so that report_to_stderr() finds it again.
void note_stderr_path();

// Writes all of a text to a descriptor. False: errno says why not.
bool write_to(int fd, const char* text, std::size_t length);
// Writes to stderr, or nowhere.
void write_to_stderr(const char* text, std::size_t length);
// The same at exit, when programs have closed stderr to see write errors. A file or terminal is opened again then; of a
// pipe nothing is left.
void report_to_stderr(const char* text, std::size_t length);

}  // namespace nh
