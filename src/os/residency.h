// What the kernel knows about single pages of this process. For fork, which deals with real memory only: that is why
// these are not in the table of os.h.
//
// Async-signal-safe; errno is kept.
#pragma once

namespace nh {

enum class PageState {
  kUnmapped,  // no mapping there: in a fork child what MADV_DONTFORK kept back
  kEmpty,     // mapped, no page behind it in this process's page table
  kPresent,
};

// p: a multiple of kOsPageSize. Where the kernel does not tell (a sandbox without mincore) pages count as present.
PageState page_state(const void* p);

// Whether the page at p is mapped by this process and by no other, so that a store to it needs no copy. False where
// that cannot be told (no /proc). Works for hugetlb pages; Linux 4.2.
bool page_is_exclusive(const void* p);

}  // namespace nh
