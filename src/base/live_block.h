// What is read of a running process from outside, without its help: where its counters and tables lie. `numaheap stat`,
// `top` and `map` read them with process_vm_readv() and do the arithmetic (cli/live.h).
//
// How it is found: libnumaheap.so, and every program linked with libnumaheap.a, has an ELF note of the name kLiveNoteName
// in a PT_NOTE segment, whose descriptor is a LiveNote. It gives the version of all that follows and the place of the
// LiveBlock. The block's `magic` is stored last, when the heap has started; before that it is 0.
//
// What may change without a new version: where fields of the library's classes lie, and how large the classes are, since the
// block says so (LiveField). What is part of the version, and checked by static_asserts in process/live_block.cc:
//   - everything in this file, the order of the enumerators included
//   - LiveUnit: the units of a heap, one flat table, in the order of its pages (heap/unit.h)
//   - the page map: a 32-bit word per page of the window, 0 = not in use; from bit `kind_shift` on the kind of the page, an
//     index of `page_kinds`: {uint8_t list, uint8_t pages of the span before this one}. Of a large object only the first
//     page is named (heap/page_entry.h)
//   - spans: a pointer per page of the window, valid where the page map says that a span begins
//   - places: per number of a heap's arenas a 32-bit word, the arena's index in the window + 1; 0 = there is none
//   - a CPU's lists: two sets of `lists` FreeLists for every heap, the second one for placed objects (cache/layout.h)
//
// Readers see a moment of a process that goes on: every address and count may be of a state that is no more.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nh {

inline constexpr std::uint32_t kLiveVersion = 1;
inline constexpr char kLiveNoteName[] = "numaheap";
inline constexpr std::uint32_t kLiveNoteType = 1;
inline constexpr std::uint64_t kLiveMagic = 0x70616568616d756e;  // "numaheap" in memory

struct LiveNote {
  std::uint32_t version;
  std::int32_t block;  // address of the LiveBlock less that of this field
};

// A field of one of the library's classes: `bytes` (1, 2, 4 or 8) at `offset`.
struct LiveField {
  std::uint16_t offset;
  std::uint16_t bytes;
};

enum class LiveHeapField : unsigned {
  kNode,          // the kernel's number; -1: no node in particular
  kSmallBytes,    // in small objects that are with CPUs or the program
  kLargeObjects, kLargeBytes,  // those that CPUs keep included
  kInUse,         // bytes of pages in spans
  kBackedBase, kBackedThp, kBacked2M, kBacked1G,  // units
  kReleased, kMetadata,  // bytes
  kSpans, kArenas,
  kRemoteFrees, kForeignServes, kServedObjects, kLocalObjects,
  kArenaEnd,      // one past the highest number of an arena
  kPlaces, kUnits,  // addresses of tables
  kCentrals,      // the first of `centrals` pointers
  kCount,
};
// Of one class of one heap.
enum class LiveCentralField : unsigned { kObjects, kTakes, kPuts, kFetches, kFlushes, kCount };
enum class LiveCpuField : unsigned { kLists, kLocal, kHasOtherHeaps, kHasPlaced, kCount };
enum class LiveSpanField : unsigned { kStart, kPages, kObjects, kTaken, kObjectBytes, kUse, kCount };

struct LiveBlock {
  std::uint64_t magic;
  std::uint64_t instance;  // drawn at start: a process that has called exec has another one, a fork child the same
  std::uint32_t page_bytes, unit_bytes, arena_bytes;
  std::uint32_t heap_count, heap_bytes;  // heaps, and from one to the next
  std::uint32_t first_touch;  // the first heap that is not a node's; then comes the interleaved one and, where there
                              // are such, the weighted one and the one interleaved over fast memory; then all the twins
  std::uint32_t extent_heap;  // in whose lists large objects stand from first_bin on, by units
  std::uint32_t lists, first_bin, centrals, cpus, page_kind_count, kind_shift, fallback_count;
  std::uint64_t window;        // address
  std::uint64_t window_bytes;  // address of the number of bytes that are in use
  std::uint64_t page_map, page_kinds, spans;
  std::uint64_t heaps;
  std::uint64_t list_bytes;    // uint32_t per list: the size of its objects
  std::uint64_t caches;        // a pointer per CPU, null where it has no cache
  std::uint64_t memory_syscalls;
  std::uint64_t fallbacks;     // counters
  std::uint64_t fallback_texts;  // per counter two pointers to text: name, sentence
  char library_version[32];
  char cache_mode[16];
  LiveField heap[static_cast<unsigned>(LiveHeapField::kCount)];
  LiveField central[static_cast<unsigned>(LiveCentralField::kCount)];
  LiveField cpu[static_cast<unsigned>(LiveCpuField::kCount)];
  LiveField span[static_cast<unsigned>(LiveSpanField::kCount)];
};

struct LiveUnit {
  std::uint8_t state;  // LiveState
  std::uint8_t bits;   // kind: LiveKind in the lowest kLiveKindBits
  std::int16_t place;  // the node on which all its pages are known to lie, + 1; 0 = not known
  std::uint32_t freed_tick;
  std::uint64_t worker;
};
enum class LiveState : std::uint8_t { kReserved, kMapped, kBacked, kLost };
enum class LiveKind : std::uint8_t { kBase, kThp, kHuge2M, kHuge1G };
inline constexpr unsigned kLiveKindBits = 3;

// A list of free objects: {first object, room, capacity}; it holds capacity - room of them.
struct LiveList {
  std::uint64_t head;
  std::uint32_t room, capacity;
};

// Of LiveSpanField::kUse: in use, also for an object that the profiler follows; others are not.
inline constexpr std::uint8_t kLiveSpanInUse = 1, kLiveSpanSampled = 2;

static_assert(sizeof(LiveNote) == 8 && sizeof(LiveField) == 4 && sizeof(LiveUnit) == 16 && sizeof(LiveList) == 16);
static_assert(offsetof(LiveBlock, window) == 72 && offsetof(LiveBlock, library_version) == 160);
static_assert(offsetof(LiveBlock, heap) == 208 && sizeof(LiveBlock) == 352, "a new layout is a new kLiveVersion");

}  // namespace nh
