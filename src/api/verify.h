// Where memory lies, page by page, as the kernel tells it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace nh {

struct Survey {
  std::uint64_t on_heap[kMaxNodes] = {};  // pages on the node of each heap
  std::uint64_t elsewhere = 0;            // on nodes without a heap
  std::uint64_t untouched = 0;            // nobody has written to them
  std::uint64_t present() const;
};

// Of all pages that [p, p + size) touches. 0, or an errno value: EFAULT, there is no memory in some of it; EPERM, ENOSYS, the
// kernel does not tell. The heap is up.
int survey(const void* p, std::size_t size, Survey* out);

}  // namespace nh
