// Moves hugetlb memory of a running process to ordinary memory at the same addresses.
//
// Each page is copied to a place that was prepared for it, and the copy is moved over the page by mremap. In between nobody
// may store into the page: other threads are stopped by a WriteProtection, and this code stores nowhere but on a stack
// that is not being moved. Reads go on all the time and see the page or its copy.
//
// A page that a device or the kernel holds on to by its physical address (RDMA, registered buffers of io_uring, O_DIRECT
// in flight) must not be moved: what they store would never be seen. The kernel does not say which pages are pinned, but
// fork copies them at once instead of sharing them with the child. So a child is made that does nothing, and what this
// process still has for itself while it lives is pinned (or kept from children by the program, MADV_DONTFORK).
// While the child lives, nobody may store into pages that it shares, and none of them may be unmapped: for a reserved
// page of a pool that would drive the kernel's count of promised pages below zero until the child ends. The protection
// sees to the former, and the child is gone before the first page is moved to the latter.
//
// One gap is left: another thread that has a page pinned for reading only, for good, between the look and the move. The
// kernel grants that without a store that could be stopped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/pagemap.h"
#include "os/userfault.h"

namespace nh {

enum class MoveResult : std::uint8_t {
  kPlanned,
  kMoved,
  kPinned,   // or kept from children by the program
  kUnknown,  // whether it is pinned could not be found out
  kFailed,   // stores could not be stopped, or no mapping was to be had; everything is as it was
};

// One huge page.
struct PageMove {
  char* page;
  char* copy;  // writable memory of the same size, aligned alike
  std::size_t bytes;
  bool even_unknown;  // to be moved even where nobody can tell whether it is pinned
  bool probed;        // a private page: whether it is pinned can be told
  bool read_only;     // the program has made it so; the copy becomes read-only, too
  MoveResult result;
};

struct MoveOrder {
  PageMove* moves;  // those that are not kPlanned are passed over
  std::size_t count;
  WriteProtection* protection;  // every page is announced; nullptr where no other thread runs
  const PageMap* pages;
};

// Carries the order out and fills in the results. All signals must be blocked. on_own_stack: the caller's stack and
// thread-local storage lie in none of the pages.
void move_pages(MoveOrder& order, bool on_own_stack);

}  // namespace nh
