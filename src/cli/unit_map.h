// The units of a process's heaps: what `numaheap map` draws, read from a process or from a file that it wrote.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/live_block.h"
#include "base/units.h"
#include "cli/live.h"
#include "cli/terminal.h"

namespace nh::cli {

// Where a large object of a unit or more lies in a row of units.
enum class LargePart : char { kNone = '.', kWhole = 'O', kFirst = '[', kMiddle = '=', kLast = ']' };

struct MapCell {
  LiveState state = LiveState::kReserved;
  LiveKind kind = LiveKind::kBase;
  LargePart large = LargePart::kNone;
  std::uint8_t full = 0;    // percent of it that is in objects, those in CPUs' caches included
  std::int16_t place = -1;  // the node, where the heap does not say it; -1: not known
  bool backed() const { return state == LiveState::kBacked; }
  bool operator==(const MapCell&) const = default;
};

// A row of the picture. Arenas that lie side by side and look alike are one row.
struct MapArena {
  std::uint64_t address = 0;
  std::uint64_t count = 1;
  std::array<MapCell, kUnitsPerArena> cells;
};

struct MapHeap {
  int kind = NUMAHEAP_HEAP_NODE;
  int node = -1;
  bool paged = false;  // the twin that never uses a pool
  std::vector<MapArena> arenas;
  std::uint64_t left_out = 0;  // arenas behind the last row, kMostRows of them
  // Of all arenas.
  std::uint64_t units = 0;
  std::array<std::uint64_t, 4> backed_units = {};  // by LiveKind
  std::uint64_t object_bytes = 0;
  std::uint64_t large_objects = 0;  // of a unit or more

  std::uint64_t backed() const { return backed_units[0] + backed_units[1] + backed_units[2] + backed_units[3]; }
  std::string name() const { return heap_name(kind, node) + (paged ? ", paged" : ""); }
};

struct UnitMap {
  int pid = 0;
  std::string command;
  std::vector<MapHeap> heaps;  // those with an arena
};

inline constexpr std::size_t kMostRows = 1024;  // per heap

// Reads with the process going on. What changes meanwhile may be seen twice or not at all; sizes and pointers that make no
// sense are passed over. false with *why: the process is gone, or runs another program.
bool read_unit_map(LiveProcess& process, UnitMap* map, std::string* why);

std::string unit_map_json(const UnitMap& map);
// false with *why: not what unit_map_json() wrote.
bool parse_unit_map(std::string_view json, UnitMap* map, std::string* why);

// The picture as text of at most 100 columns, and as SVG.
std::string draw_map(const UnitMap& map, ColorMode colors, bool utf8);
std::string draw_map_svg(const UnitMap& map);

}  // namespace nh::cli
