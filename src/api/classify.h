// What a pointer is: the one opinion that free(), realloc(), malloc_usable_size() and the line about a mistake share. The
// fast path knows objects only, and leaves everything else to this.
#pragma once

#include <cstddef>
#include <cstdint>

#include "heap/mspan.h"
#include "heap/page_entry.h"

namespace nh {

enum class PointerKind : std::uint8_t {
  kNull,
  kForeign,    // not in our address space, or the heap was never started
  kFreePages,  // in pages that are free
  kInterior,   // inside a span, but not the start of an object
  kTail,       // behind the last object of a span
  kFree,       // where an object starts that is known to be free
  kObject,     // the start of an object that is not known to be free
};

struct Found {
  PointerKind kind;
  PageEntry entry = 0;    // of its page; 0 also for the later pages of a large object
  MSpan* span = nullptr;  // from kInterior on
  SpanClass span_class() const { return entry_class(entry); }
};

// An object in the cache of a CPU looks handed out to its span; it is known to be free by its mark, its start bit or the
// state of its descriptor. Two threads that free one object at once may both find kObject: whoever takes it next notices.
Found classify(const void* p);

// Bytes of a kObject that may be written to; 0 where it was freed meanwhile.
std::size_t usable_bytes(const void* p, const Found& object);

}  // namespace nh
