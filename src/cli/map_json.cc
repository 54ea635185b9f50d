// A map as a file. One object per row of the picture; strings and lists have a place for each of its units:
//   backing  . address space only   - mapped, not in use   x another mapping's   b T M G backed (cli/palette.h)
//   large    large objects of a unit or more: [ == ] their first, middle and last units, O one that has one unit
//   full     percent of the unit that is in objects
//   nodes    where units of first-touch memory are known to lie; left out where that is not known of any
#include <algorithm>

#include "cli/json.h"
#include "cli/palette.h"
#include "cli/unit_map.h"

namespace nh::cli {
namespace {

constexpr int kMapVersion = 1;
constexpr const char* kBackingKeys[] = {"base", "thp", "2m", "1g"};

char backing_letter(const MapCell& cell) {
  switch (cell.state) {
    case LiveState::kReserved:
      return '.';
    case LiveState::kMapped:
      return '-';
    case LiveState::kBacked:
      return kBackings[static_cast<unsigned>(cell.kind)].letter;
    case LiveState::kLost:
      return 'x';
  }
  return '.';
}

bool parse_backing(char letter, MapCell* cell) {
  for (unsigned kind = 0; kind < kBackings.size(); kind++) {
    if (letter != kBackings[kind].letter) continue;
    cell->state = LiveState::kBacked;
    cell->kind = static_cast<LiveKind>(kind);
    return true;
  }
  cell->state = letter == '-' ? LiveState::kMapped : letter == 'x' ? LiveState::kLost : LiveState::kReserved;
  return letter == '.' || letter == '-' || letter == 'x';
}

std::string quoted(std::string_view text) {
  Text<256> out;
  return std::string(out.json_string(text).view());
}

std::string hex(std::uint64_t v) {
  Text<32> out;
  return std::string(out.hex(v).view());
}

void write_arena(std::string& out, const MapArena& arena) {
  std::string backing, large, full, nodes;
  bool placed = false;
  for (const MapCell& cell : arena.cells) {
    backing += backing_letter(cell);
    large += static_cast<char>(cell.large);
    full.append(full.empty() ? "" : ",").append(std::to_string(cell.full));
    nodes.append(nodes.empty() ? "" : ",").append(std::to_string(cell.place));
    placed = placed || cell.place >= 0;
  }
  out += "      {\"address\": \"" + hex(arena.address) + "\", \"count\": " + std::to_string(arena.count) +
         ", \"backing\": \"" + backing + "\", \"large\": \"" + large + "\", \"full\": [" + full + "]" +
         (placed ? ", \"nodes\": [" + nodes + "]" : "") + "}";
}

bool parse_arena(const Json& json, MapArena* arena) {
  const std::string& backing = json["backing"].text;
  const std::string& large = json["large"].text;
  const std::vector<Json>& full = json["full"].items;
  const std::vector<Json>& nodes = json["nodes"].items;
  if (backing.size() != kUnitsPerArena || large.size() != kUnitsPerArena || full.size() != kUnitsPerArena) return false;
  if (!nodes.empty() && nodes.size() != kUnitsPerArena) return false;
  arena->address = std::strtoull(json["address"].text.c_str(), nullptr, 16);
  arena->count = std::max<std::uint64_t>(1, json["count"].count());
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    MapCell& cell = arena->cells[u];
    if (!parse_backing(backing[u], &cell) || std::string_view(".O[=]").find(large[u]) == std::string_view::npos)
      return false;
    cell.large = static_cast<LargePart>(large[u]);
    cell.full = static_cast<std::uint8_t>(std::min<std::uint64_t>(100, full[u].count()));
    if (!nodes.empty() && nodes[u].number >= 0)
      cell.place = static_cast<std::int16_t>(std::min<std::uint64_t>(1023, nodes[u].count()));
  }
  return true;
}

bool parse_heap(const Json& json, MapHeap* heap) {
  heap->kind = heap_kind_of(json["kind"].text);
  if (heap->kind < 0) return false;
  heap->node =
      heap->kind == NUMAHEAP_HEAP_NODE ? static_cast<int>(std::min<std::uint64_t>(1023, json["node"].count())) : -1;
  heap->paged = json["paged"].number != 0;
  heap->units = json["units"].count();
  for (unsigned i = 0; i < heap->backed_units.size(); i++)
    heap->backed_units[i] = json["backed"][kBackingKeys[i]].count();
  heap->object_bytes = json["object_bytes"].count();
  heap->large_objects = json["large_objects"].count();
  heap->left_out = json["left_out_arenas"].count();
  for (const Json& item : json["arenas"].items) {
    if (!parse_arena(item, &heap->arenas.emplace_back())) return false;
  }
  return true;
}

}  // namespace

std::string unit_map_json(const UnitMap& map) {
  std::string out = "{\n  \"numaheap_map\": " + std::to_string(kMapVersion) +
                    ",\n  \"pid\": " + std::to_string(map.pid) + ",\n  \"command\": " + quoted(map.command) +
                    ",\n  \"unit_bytes\": " + std::to_string(kHugeSize) + ",\n  \"heaps\": [";
  const char* heap_separator = "\n";
  for (const MapHeap& heap : map.heaps) {
    out.append(heap_separator).append("    {\"kind\": \"").append(heap_kind(heap.kind)).append("\", \"node\": ");
    out += std::to_string(heap.node) + ", \"paged\": " + (heap.paged ? "true" : "false") +
           ", \"units\": " + std::to_string(heap.units) + ", \"backed\": {";
    for (unsigned i = 0; i < heap.backed_units.size(); i++) {
      out.append(i == 0 ? "\"" : ", \"")
          .append(kBackingKeys[i])
          .append("\": ")
          .append(std::to_string(heap.backed_units[i]));
    }
    out += "}, \"object_bytes\": " + std::to_string(heap.object_bytes) +
           ", \"large_objects\": " + std::to_string(heap.large_objects) +
           ", \"left_out_arenas\": " + std::to_string(heap.left_out) + ", \"arenas\": [\n";
    for (std::size_t i = 0; i < heap.arenas.size(); i++) {
      write_arena(out, heap.arenas[i]);
      out += i + 1 < heap.arenas.size() ? ",\n" : "\n";
    }
    out += "    ]}";
    heap_separator = ",\n";
  }
  return out + "\n  ]\n}\n";
}

bool parse_unit_map(std::string_view text, UnitMap* map, std::string* why) {
  *map = UnitMap();
  Json json;
  if (!Json::parse(text, &json)) {
    *why = "it is no JSON";
    return false;
  }
  const Json& version = json["numaheap_map"];
  if (version.type != Json::Type::kNumber) {
    *why = json["nodes"].type == Json::Type::kArray ? "it holds statistics, not a map" : "it is no map";
    return false;
  }
  if (version.number != kMapVersion || json["unit_bytes"].count() != kHugeSize) {
    *why = "it is a map of another version of numaheap";
    return false;
  }
  map->pid = static_cast<int>(json["pid"].count());
  map->command = printable(json["command"].text);
  for (const Json& item : json["heaps"].items) {
    if (parse_heap(item, &map->heaps.emplace_back())) continue;
    *why = "heap " + std::to_string(map->heaps.size() - 1) + " of it cannot be understood";
    return false;
  }
  return true;
}

}  // namespace nh::cli
