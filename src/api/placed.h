// Objects whose caller says where they shall lie: the placement functions of numaheap.h.
//
// A placed object of up to 32 KiB lies in a span of such objects (heap/mspan.h), a larger one has a bit in its span, so
// that realloc() knows it. Where it is to lie is told by its heap: a node's, first touch, interleaved. Small ones come
// from this CPU's lists of that heap (cache/cpu_caches.h), so that memory of another node costs no lock per object.
#pragma once

#include <cstddef>

#include "heap/mspan.h"

namespace nh {

// An object where the placed object of this span lies, for realloc(); the next nearest node serves where that one is
// full. nullptr and ENOMEM when memory is exhausted.
void* allocate_beside(const MSpan& span, std::size_t size);

}  // namespace nh
