// Objects whose caller says where they shall lie: the placement functions of numaheap.h.
//
// A placed object of up to 32 KiB lies in a span of such objects (heap/mspan.h), a larger one has a bit in its span, so
// that realloc() knows it. Where it is to lie is told by its heap: a node's, first touch, interleaved. Small ones come
// from this CPU's lists of that heap (cache/cpu_caches.h), so that memory of another node costs no lock per object.
#pragma once

#include <cstddef>

#include "heap/mspan.h"
#include "process/process.h"

namespace nh {

struct PlacedRequest {
  std::size_t size = 0;
  std::size_t alignment = 0;  // 0 = what malloc promises
  HeapChoice from;
  bool proven = false;  // of a node's heap: it is shown to lie there
  bool zero = false;
  bool noscan = false;
};
// nullptr and errno as for numaheap_alloc().
void* allocate_placed(const PlacedRequest& request);
// The help that a heap gets from its neighbours, as far as the process's binding lets them.
Help neighbours();

// An object where the placed object of this span lies, for realloc(); the next nearest node serves where that one is
// full. nullptr and ENOMEM when memory is exhausted.
void* allocate_beside(const MSpan& span, std::size_t size);

}  // namespace nh
