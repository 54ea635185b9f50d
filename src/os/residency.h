// What the kernel knows about single pages of this process. For questions about real memory only: that is why
// this is not in the table of os.h.
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

}  // namespace nh
