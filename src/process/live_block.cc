// The block that base/live_block.h describes, and the note by which it is found. Nothing here runs after the start.
#include "process/live_block.h"

#include <array>
#include <cstring>

#include <numaheap/numaheap.h>

#include "base/live_block.h"
#include "cache/mcache.h"
#include "heap/fallback.h"
#include "os/os.h"
#include "os/random.h"
#include "process/process.h"

extern "C" {
[[gnu::visibility("hidden")]] constinit nh::LiveBlock numaheap_live_block = {};
}

// The distance is known when the library is linked, so the note needs no relocation at run time. Linkers keep notes.
#define NH_TEXT_OF(number) NH_TEXT(number)
#define NH_TEXT(number) #number
#define NH_LIVE_VERSION 1
static_assert(NH_LIVE_VERSION == nh::kLiveVersion && nh::kLiveNoteType == 1 && sizeof nh::kLiveNoteName == 9);
asm(".pushsection .note.numaheap, \"a\", @note\n"
    ".balign 4\n"
    ".long 9, 8, 1\n"
    ".asciz \"numaheap\"\n"
    ".balign 4\n"
    ".long " NH_TEXT_OF(NH_LIVE_VERSION) ", numaheap_live_block - .\n"
    ".popsection\n");

namespace nh {

// The classes that are read from outside name it a friend.
struct LiveLayout {
  static void fill(LiveBlock& block);
};

namespace {

// The size of the objects in each list, but for those of extents.
constexpr auto kListBytesTable = [] {
  std::array<std::uint32_t, kClassCodes> bytes{};
  for (unsigned list = 2; list < kClassCodes; list++) {
    if (!(SpanClass(list) == kLargeClass)) bytes[list] = size_class(SpanClass(list)).bytes;
  }
  return bytes;
}();

// What base/live_block.h promises of the layers below.
static_assert(sizeof(PageEntry) == 4 && sizeof(PageKind) == 2 && sizeof(void*) == 8);
// The bits of a byte cannot be looked at here; a test does (tests/heap/unit_test.cc).
static_assert(kUnitTableVersion == 1 && sizeof(Unit) == sizeof(LiveUnit) &&
                  offsetof(Unit, place) == offsetof(LiveUnit, place),
              "a new layout of Unit is a new kLiveVersion");
static_assert(static_cast<int>(LiveState::kBacked) == static_cast<int>(UnitState::kBacked) &&
              static_cast<int>(LiveState::kLost) == static_cast<int>(UnitState::kLost) &&
              static_cast<int>(LiveKind::kHuge1G) == static_cast<int>(UnitKind::kHuge1G));
static_assert(sizeof(FreeList) == sizeof(LiveList) && offsetof(FreeList, room) == offsetof(LiveList, room) &&
              offsetof(FreeList, cap) == offsetof(LiveList, capacity) && kListSetsPerHeap == 2);
static_assert(kLiveSpanInUse == static_cast<int>(SpanUse::kInUse) &&
              kLiveSpanSampled == static_cast<int>(SpanUse::kSampled));
static_assert(sizeof(NodeHeap) <= UINT16_MAX && sizeof(Central) <= UINT16_MAX && sizeof(CpuCache) <= UINT16_MAX);

std::uint64_t number(const void* p) { return address(p); }

template <std::size_t N>
void copy(char (&to)[N], const char* text) {
  for (std::size_t i = 0; i + 1 < N && text[i] != '\0'; i++) to[i] = text[i];
}

}  // namespace

// offsetof is told of every compiler for classes as plain as these; some have a reference among their members.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
#define NH_FIELD(owner, type, member) \
  LiveField { static_cast<std::uint16_t>((owner) + offsetof(type, member)), sizeof(type::member) }

void LiveLayout::fill(LiveBlock& block) {
  Process& p = g_process;
  block.instance = random_word();
  block.page_bytes = kPageSize;
  block.unit_bytes = kHugeSize;
  block.arena_bytes = kArenaSize;
  block.heap_count = p.heaps.count();
  block.heap_bytes = sizeof(NodeHeap);
  block.first_touch = p.first_touch.value;
  block.extent_heap = g_caches.config().extent_heap;
  block.lists = kClassCodes;
  block.first_bin = kFirstBinList;
  block.centrals = sizeof(NodeHeap::central) / sizeof(void*);
  block.cpus = g_caches.config().cpus;
  block.page_kind_count = kPageKindCount;
  block.kind_shift = kEntryListBits;
  block.fallback_count = static_cast<unsigned>(Fallback::kCount);
  block.window = p.space.base();
  block.window_bytes = number(&g_hot.used_bytes);
  block.page_map = number(p.space.page_map());
  block.page_kinds = number(kPageKinds.data());
  block.spans = number(p.space.spans());
  block.heaps = number(&p.heaps[HeapId(0)]);
  block.list_bytes = number(kListBytesTable.data());
  block.caches = number(g_caches.caches_);
  block.memory_syscalls = number(memory_syscall_counter());
  block.fallbacks = number(fallback_counters());
  block.fallback_texts = number(fallback_texts());
  copy(block.library_version, numaheap_version());
  copy(block.cache_mode, cache_mode_name(g_caches.mode()));

  const auto heap = [&](LiveHeapField f) -> LiveField& { return block.heap[static_cast<unsigned>(f)]; };
  constexpr std::size_t kHeap = offsetof(NodeHeap, heap), kArenas = kHeap + offsetof(MHeap, arenas_);
  const auto backed = [&](LiveHeapField f, UnitKind kind) {
    heap(f) = {static_cast<std::uint16_t>(kHeap + offsetof(MHeap, backed_) +
                                          static_cast<unsigned>(kind) * sizeof(MHeap::backed_[0])),
               sizeof(MHeap::backed_[0])};
  };
  heap(LiveHeapField::kNode) = NH_FIELD(kHeap + offsetof(MHeap, config_), MHeap::Config, node);
  heap(LiveHeapField::kSmallBytes) = NH_FIELD(0, NodeHeap, small_bytes);
  heap(LiveHeapField::kLargeObjects) = NH_FIELD(kHeap, MHeap, large_objects_);
  heap(LiveHeapField::kLargeBytes) = NH_FIELD(kHeap, MHeap, large_bytes_);
  heap(LiveHeapField::kInUse) = NH_FIELD(kHeap, MHeap, in_use_);
  backed(LiveHeapField::kBackedBase, UnitKind::kBase);
  backed(LiveHeapField::kBackedThp, UnitKind::kThp);
  backed(LiveHeapField::kBacked2M, UnitKind::kHuge2M);
  backed(LiveHeapField::kBacked1G, UnitKind::kHuge1G);
  heap(LiveHeapField::kReleased) = NH_FIELD(kHeap, MHeap, released_);
  heap(LiveHeapField::kMetadata) = NH_FIELD(kHeap + offsetof(MHeap, metadata_), MetadataPool, total_);
  heap(LiveHeapField::kSpans) = NH_FIELD(kHeap, MHeap, spans_);
  heap(LiveHeapField::kArenas) = NH_FIELD(kArenas, HeapArenas, count_);
  heap(LiveHeapField::kRemoteFrees) = NH_FIELD(0, NodeHeap, remote_frees);
  heap(LiveHeapField::kForeignServes) = NH_FIELD(0, NodeHeap, foreign_serves);
  heap(LiveHeapField::kServedObjects) = NH_FIELD(0, NodeHeap, served_objects);
  heap(LiveHeapField::kLocalObjects) = NH_FIELD(0, NodeHeap, local_objects);
  heap(LiveHeapField::kArenaEnd) = NH_FIELD(kArenas, HeapArenas, end_);
  heap(LiveHeapField::kPlaces) = NH_FIELD(kArenas + offsetof(HeapArenas, places_), WindowTable, place_);
  heap(LiveHeapField::kUnits) = NH_FIELD(kArenas + offsetof(HeapArenas, units_), WindowTable, place_);
  heap(LiveHeapField::kCentrals) = {offsetof(NodeHeap, central), sizeof(void*)};

  const auto central = [&](LiveCentralField f) -> LiveField& { return block.central[static_cast<unsigned>(f)]; };
  constexpr std::size_t kTransfer = offsetof(Central, transfer_), kSpans = offsetof(Central, spans_);
  central(LiveCentralField::kObjects) = NH_FIELD(kTransfer, TransferCache, objects_);
  central(LiveCentralField::kTakes) = NH_FIELD(kTransfer, TransferCache, takes_);
  central(LiveCentralField::kPuts) = NH_FIELD(kTransfer, TransferCache, puts_);
  central(LiveCentralField::kFetches) = NH_FIELD(kSpans, MCentral, fetches_);
  central(LiveCentralField::kFlushes) = NH_FIELD(kSpans, MCentral, flushes_);

  const auto cpu = [&](LiveCpuField f) -> LiveField& { return block.cpu[static_cast<unsigned>(f)]; };
  cpu(LiveCpuField::kLists) = NH_FIELD(0, CpuCache, lists);
  cpu(LiveCpuField::kLocal) = NH_FIELD(0, CpuCache, local);
  cpu(LiveCpuField::kHasOtherHeaps) = NH_FIELD(0, CpuCache, has_other_heaps);
  cpu(LiveCpuField::kHasPlaced) = NH_FIELD(0, CpuCache, has_placed);

  const auto span = [&](LiveSpanField f) -> LiveField& { return block.span[static_cast<unsigned>(f)]; };
  span(LiveSpanField::kStart) = NH_FIELD(0, MSpan, start_addr);
  span(LiveSpanField::kPages) = NH_FIELD(0, MSpan, npages);
  span(LiveSpanField::kObjects) = NH_FIELD(0, MSpan, nelems);
  span(LiveSpanField::kTaken) = NH_FIELD(0, MSpan, alloc_count);
  span(LiveSpanField::kObjectBytes) = NH_FIELD(0, MSpan, elem_size);
  span(LiveSpanField::kUse) = NH_FIELD(0, MSpan, use);

  __atomic_store_n(&block.magic, kLiveMagic, __ATOMIC_RELEASE);
}

const LiveBlock& live_block() { return numaheap_live_block; }

void publish_live_block() { LiveLayout::fill(numaheap_live_block); }

}  // namespace nh
