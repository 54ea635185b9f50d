// Reading the units of a process. The unit tables are read whole, a few KiB at a time; the page map only where units are
// backed and no large object covers them, and a span's descriptor where the page map says that one begins.
#include "cli/unit_map.h"

#include <algorithm>
#include <cstring>

#include <sys/syscall.h>
#include <unistd.h>

namespace nh::cli {
namespace {

constexpr std::size_t kMostArenas = 1 << 20;  // of a heap: 64 TiB, more than a window is
constexpr std::size_t kArenasAtOnce = 64;

class MapReader {
 public:
  explicit MapReader(LiveProcess& process)
      : process_(process), b_(process.block), kinds_(b_.page_kind_count * std::size_t{2}) {
    process.memory.read(b_.page_kinds, kinds_.data(), kinds_.size());
    process.memory.read(b_.window_bytes, &window_bytes_);
    for (const LiveField& f : b_.span) span_bytes_ = std::max<std::size_t>(span_bytes_, f.offset + f.bytes);
  }

  void read_heap(unsigned index, MapHeap* heap);

 private:
  std::uint64_t get(const std::vector<char>& object, LiveHeapField f) const {
    return LiveObject(object.data(), object.size()).get(b_.heap[static_cast<unsigned>(f)]);
  }
  std::uint64_t get(const char* span, LiveSpanField f) const {
    return LiveObject(span, span_bytes_).get(b_.span[static_cast<unsigned>(f)]);
  }
  void ask_places(MapArena* arena, const MapHeap* heap);
  void read_objects(MapArena* arena, MapHeap* heap);
  void read_spans(MapArena* arena, std::uint64_t first_unit, MapHeap* heap);
  void add_span(const char* span, std::uint64_t page, bool large, MapArena* arena, MapHeap* heap);
  void spread_large(MapArena* arena);
  void add_row(const MapArena& arena, MapHeap* heap);

  LiveProcess& process_;
  const LiveBlock& b_;
  std::vector<std::uint8_t> kinds_;
  std::uint64_t window_bytes_ = 0;
  std::size_t span_bytes_ = 0;
  std::int16_t only_node_ = -1;    // of a machine with one
  std::size_t may_ask_ = 1 << 17;  // units whose place is asked for: 256 GiB, some tens of ms
  // The large object that the arenas being read lie in: its last unit ends there.
  std::uint64_t large_from_ = 0, large_end_ = 0;
  std::array<std::uint64_t, kUnitsPerArena> used_ = {};  // bytes in objects, per unit of the arena
};

void MapReader::read_heap(unsigned index, MapHeap* heap) {
  std::vector<char> object(b_.heap_bytes);
  process_.memory.read(b_.heaps + std::uint64_t{index} * b_.heap_bytes, object.data(), object.size());
  const unsigned twins = b_.heap_count / 2, like = index % twins;
  heap->kind = kind_of_heap(b_, like);
  heap->node = heap->kind == NUMAHEAP_HEAP_NODE ? static_cast<int>(get(object, LiveHeapField::kNode)) : -1;
  heap->paged = index >= twins;
  if (index == 0 && b_.first_touch == 1) only_node_ = static_cast<std::int16_t>(heap->node);
  const std::uint64_t end = std::min<std::uint64_t>(get(object, LiveHeapField::kArenaEnd), kMostArenas);
  std::vector<std::uint32_t> places(kArenasAtOnce);
  std::vector<LiveUnit> units(kArenasAtOnce * kUnitsPerArena);
  large_from_ = large_end_ = 0;
  for (std::uint64_t first = 0; first < end; first += kArenasAtOnce) {
    const std::size_t n = std::min<std::size_t>(kArenasAtOnce, end - first);
    process_.memory.read(get(object, LiveHeapField::kPlaces) + first * sizeof places[0], places.data(),
                         n * sizeof places[0]);
    if (!process_.memory.read(get(object, LiveHeapField::kUnits) + first * kUnitsPerArena * sizeof units[0],
                              units.data(), n * kUnitsPerArena * sizeof units[0])) {
      return;
    }
    for (std::size_t i = 0; i < n; i++) {
      if (places[i] == 0 || std::uint64_t{places[i]} * kArenaSize > window_bytes_) continue;
      MapArena arena;
      arena.address = b_.window + (places[i] - std::uint64_t{1}) * kArenaSize;
      for (std::size_t u = 0; u < kUnitsPerArena; u++) {
        const LiveUnit& unit = units[i * kUnitsPerArena + u];
        MapCell& cell = arena.cells[u];
        if (unit.state > static_cast<std::uint8_t>(LiveState::kLost)) continue;
        cell.state = static_cast<LiveState>(unit.state);
        cell.kind = static_cast<LiveKind>((unit.bits & ((1u << kLiveKindBits) - 1)) & 3);
        if (heap->node >= 0 || !cell.backed()) continue;
        if (only_node_ >= 0)
          cell.place = only_node_;
        else if (heap->kind == NUMAHEAP_HEAP_FIRST_TOUCH && unit.place > 0)
          cell.place = static_cast<std::int16_t>(unit.place - 1);
      }
      read_objects(&arena, heap);
      ask_places(&arena, heap);
      add_row(arena, heap);
    }
  }
}

// Of memory that the program's threads have placed, the kernel knows the node; a huge page has one. Asking does not touch it.
void MapReader::ask_places(MapArena* arena, const MapHeap* heap) {
  if (heap->node >= 0 || only_node_ >= 0 || may_ask_ < kUnitsPerArena) return;
  std::vector<const void*> pages;
  std::vector<MapCell*> cells;
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    if (!arena->cells[u].backed() || arena->cells[u].place >= 0) continue;
    pages.push_back(reinterpret_cast<const void*>(arena->address + u * kHugeSize));
    cells.push_back(&arena->cells[u]);
  }
  std::vector<int> nodes(pages.size(), -1);
  may_ask_ -= pages.size();
  if (pages.empty() ||
      ::syscall(SYS_move_pages, process_.memory.pid(), pages.size(), pages.data(), nullptr, nodes.data(), 0) != 0) {
    return;
  }
  // Negative: nobody has written to the page yet.
  for (std::size_t i = 0; i < cells.size(); i++) {
    if (nodes[i] >= 0) cells[i]->place = static_cast<std::int16_t>(nodes[i]);
  }
}

// Finds out how much of each unit is in objects.
void MapReader::read_objects(MapArena* arena, MapHeap* heap) {
  used_.fill(0);
  const std::uint64_t arena_end = arena->address + kArenaSize;
  // What a large object covers is known without a look at its pages.
  std::uint64_t from = arena->address;
  if (large_end_ > from) from = std::min(large_end_, arena_end);
  const std::uint64_t first_unit = (from - arena->address) / kHugeSize;
  spread_large(arena);
  if (first_unit < kUnitsPerArena) read_spans(arena, first_unit, heap);
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    MapCell& cell = arena->cells[u];
    if (!cell.backed()) continue;
    const std::uint64_t used = std::min<std::uint64_t>(used_[u], kHugeSize);
    heap->object_bytes += used;
    // Neither empty nor full is said of what is not quite.
    cell.full = used == 0 ? 0 : static_cast<std::uint8_t>(std::clamp<std::uint64_t>(used * 100 / kHugeSize, 1, 100));
  }
}

void MapReader::read_spans(MapArena* arena, std::uint64_t first_unit, MapHeap* heap) {
  std::vector<std::uint32_t> entries(kPagesPerArena);
  std::vector<std::uint64_t> spans(kPagesPerArena);
  std::vector<ProcessMemory::Piece> pieces;
  const std::uint64_t first_page = (arena->address - b_.window) / kPageSize;
  for (std::uint64_t u = first_unit; u < kUnitsPerArena; u++) {
    if (!arena->cells[u].backed()) continue;
    const std::uint64_t page = u * kPagesPerHuge;
    pieces.push_back({b_.page_map + (first_page + page) * 4, &entries[page], kPagesPerHuge * 4});
    pieces.push_back({b_.spans + (first_page + page) * 8, &spans[page], kPagesPerHuge * 8});
  }
  if (pieces.empty()) return;
  process_.memory.read_pieces(pieces);

  struct Found {
    std::uint64_t page;
    bool large;
  };
  std::vector<Found> found;
  for (std::uint64_t page = 0; page < kPagesPerArena; page++) {
    const std::size_t kind = entries[page] >> b_.kind_shift;
    if (entries[page] == 0 || kind >= b_.page_kind_count || kinds_[kind * 2 + 1] != 0 || spans[page] == 0) continue;
    found.push_back({page, kinds_[kind * 2] + 1u >= b_.first_bin});
  }
  std::vector<char> objects(found.size() * span_bytes_);
  pieces.clear();
  for (std::size_t i = 0; i < found.size(); i++)
    pieces.push_back({spans[found[i].page], &objects[i * span_bytes_], span_bytes_});
  process_.memory.read_pieces(pieces);
  for (std::size_t i = 0; i < found.size(); i++) {
    add_span(&objects[i * span_bytes_], found[i].page, found[i].large, arena, heap);
  }
}

void MapReader::add_span(const char* span, std::uint64_t page, bool large, MapArena* arena, MapHeap* heap) {
  const std::uint64_t start = arena->address + page * kPageSize;
  const std::uint64_t pages = get(span, LiveSpanField::kPages);
  const std::uint64_t window_end = b_.window + window_bytes_;
  // A descriptor that has become another span's meanwhile, or was given back.
  if (get(span, LiveSpanField::kStart) != start || pages == 0 || pages > (window_end - start) / kPageSize) return;
  const std::uint64_t use = get(span, LiveSpanField::kUse);
  if (use != kLiveSpanInUse && use != kLiveSpanSampled) return;
  const std::uint64_t bytes = pages * kPageSize, end = start + bytes;
  std::uint64_t used = bytes;
  if (!large) {
    const std::uint64_t taken = get(span, LiveSpanField::kTaken), all = get(span, LiveSpanField::kObjects);
    used = std::min(bytes, std::min(taken, all) * std::min(get(span, LiveSpanField::kObjectBytes), bytes));
  }
  for (std::uint64_t at = start; at < std::min(end, arena->address + kArenaSize);) {
    const std::uint64_t unit = (at - arena->address) / kHugeSize;
    const std::uint64_t next = std::min(end, arena->address + (unit + 1) * kHugeSize);
    // As if the objects were spread evenly over the span: spans of small ones are a few pages long.
    used_[unit] += static_cast<std::uint64_t>(static_cast<double>(used) * static_cast<double>(next - at) /
                                              static_cast<double>(bytes));
    at = next;
  }
  if (!large || bytes < kHugeSize) return;
  heap->large_objects++;
  // Units that it has for itself; those at its ends may be shared.
  const std::uint64_t from = (start + kHugeSize - 1) / kHugeSize * kHugeSize, to = end / kHugeSize * kHugeSize;
  for (std::uint64_t at = from; at < std::min(to, arena->address + kArenaSize); at += kHugeSize) {
    arena->cells[(at - arena->address) / kHugeSize].large = to - from == kHugeSize ? LargePart::kWhole
                                                            : at == from           ? LargePart::kFirst
                                                            : at + kHugeSize == to ? LargePart::kLast
                                                                                   : LargePart::kMiddle;
  }
  if (end > arena->address + kArenaSize) {
    large_from_ = from;
    large_end_ = end;
  }
}

// The part of this arena that an object which began in an earlier one covers.
void MapReader::spread_large(MapArena* arena) {
  if (large_from_ >= arena->address || large_end_ <= arena->address) return;
  const std::uint64_t to = large_end_ / kHugeSize * kHugeSize;
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    const std::uint64_t at = arena->address + u * kHugeSize;
    if (at >= large_end_) break;
    used_[u] += std::min<std::uint64_t>(kHugeSize, large_end_ - at);
    if (at < to) arena->cells[u].large = at + kHugeSize == to ? LargePart::kLast : LargePart::kMiddle;
  }
}

void MapReader::add_row(const MapArena& arena, MapHeap* heap) {
  heap->units += kUnitsPerArena;
  for (const MapCell& cell : arena.cells) {
    if (cell.backed()) heap->backed_units[static_cast<unsigned>(cell.kind)]++;
  }
  if (!heap->arenas.empty()) {
    MapArena& last = heap->arenas.back();
    if (last.cells == arena.cells && last.address + last.count * kArenaSize == arena.address) {
      last.count++;
      return;
    }
  }
  if (heap->arenas.size() < kMostRows) {
    heap->arenas.push_back(arena);
  } else {
    heap->left_out++;
  }
}

}  // namespace

bool read_unit_map(LiveProcess& process, UnitMap* map, std::string* why) {
  *map = UnitMap();
  map->pid = process.memory.pid();
  map->command = process.command;
  MapReader reader(process);
  for (unsigned i = 0; i < process.block.heap_count; i++) {
    MapHeap heap;
    reader.read_heap(i, &heap);
    if (heap.units != 0) map->heaps.push_back(std::move(heap));
  }
  if (process.same()) return true;
  *why = why_lost(process);
  return false;
}

}  // namespace nh::cli
