// The huge pages of all heaps around a fork: freezing them, rescuing single ones, parking threads that meet a page in the
// moment of the fork. src/process/fork.cc decides what is done; this file does it.
//
// A rescue moves one page to ordinary memory at the same address, and is right at any time: before the fork, during it,
// afterwards, in parent and child. Parking only saves huge pages: who waits until the child has copied a page gets to
// keep it. So waiting may be given up whenever it could hang.
#pragma once

#include <cstddef>

namespace nh {

// ---- faults ------------------------------------------------------------------------------------------------------
// Stores that fail are served from here on. lasting: until release_guard(), not just while a window is open.
void guard_pages(bool lasting);
// Takes the handlers away where no fork is under way and no page that is shared with another process is left. Cheap where
// there are none. due: look at once; else only if nobody did so lately.
void release_guard(bool due);

// ---- the window: from before the fork until the child has let go of the pages ------------------------------------------
void open_window();
// The calling thread waits for its child now: from here on parked threads do not give up.
void window_waits();
// keep_guard: the child goes on sharing pages.
void close_window(bool keep_guard);
// Before a fork on a stack that lies in huge pages of the heap: moves that stack. Neither process could run a handler
// when a store to its own stack fails.
void leave_huge_stack();
// While this thread is between its handlers before and after a fork it is never parked, and no thread takes a page that
// nobody shares yet for one that nobody shares any more.
void set_forking(bool on);

// ---- in the child --------------------------------------------------------------------------------------------------------
// First thing: other threads' windows, rescues and locks do not exist here.
void reset_pages_in_child();
// True where all of it is the child's own now.
bool relocate_pages_in_child();
void settle_pages_in_child();
// The child's pages are its own: no handlers, nothing frozen.
void drop_guard_in_child();

// Makes memory read-only whose pages a store of ours would take away from the child, or that a child would see change.
void freeze_pages();

}  // namespace nh
