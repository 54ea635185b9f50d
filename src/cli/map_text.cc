// The map for terminals. A cell has two columns: a letter for the backing in the colour of the node, and how full it is in
// the colour of the backing. Large objects are filled with that.
#include <algorithm>

#include "cli/palette.h"
#include "cli/unit_map.h"

namespace nh::cli {
namespace {

constexpr std::size_t kLabel = 15;  // columns before the cells

std::string size_text(std::uint64_t bytes) {
  Text<40> text;
  return std::string(text.bytes(bytes).view());
}

class Drawer {
 public:
  Drawer(ColorMode colors, bool utf8) : out_(colors), utf8_(utf8) {}
  std::string draw(const UnitMap& map);

 private:
  void legend();
  void heap(const MapHeap& heap);
  void row(const MapArena& arena, const MapHeap& heap);
  void cell(const MapCell& cell, int node);
  std::string level(const MapCell& cell) const;

  ColorText out_;
  bool utf8_;
};

std::string Drawer::level(const MapCell& cell) const {
  if (cell.large == LargePart::kWhole) return "O";
  if (cell.large != LargePart::kNone) return std::string(1, static_cast<char>(cell.large));
  static constexpr const char* kBlocks[] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                            "\u2585", "\u2586", "\u2587", "\u2588"};
  // Neither empty nor full is said of what is not quite.
  const unsigned steps = utf8_ ? 8 : 9;
  const unsigned n = cell.full == 0     ? 0
                     : cell.full == 100 ? steps
                                        : std::clamp(cell.full * steps / 100u, 1u, steps - 1);
  return utf8_ ? kBlocks[n] : std::string(1, static_cast<char>('0' + n));
}

void Drawer::cell(const MapCell& cell, int node) {
  constexpr Rgb kGrey = {120, 120, 120}, kBlack = {20, 20, 20}, kBack = {38, 38, 44}, kWhite = {255, 255, 255};
  if (!cell.backed()) {
    const char* const text = cell.state == LiveState::kReserved ? (utf8_ ? "\u00b7 " : ". ")
                             : cell.state == LiveState::kMapped ? "- "
                                                                : "x ";
    out_.fg(kGrey).text(text).plain();
    return;
  }
  const Backing& backing = kBackings[static_cast<unsigned>(cell.kind)];
  const bool large = cell.large != LargePart::kNone;
  const Rgb letter_color = node >= 0 ? node_color(node) : cell.place >= 0 ? node_color(cell.place) : kNoNodeColor;
  if (node < 0) {  // each unit for itself
    out_.bg(letter_color).fg(kWhite);
  } else if (large) {
    out_.bg(backing.color).fg(kBlack);
  } else {
    out_.bg(kBack).fg(mix(letter_color, kWhite, 0.4));
  }
  out_.text(std::string(1, backing.letter));
  if (large) {
    out_.bg(backing.color).fg(kBlack);
  } else {
    out_.bg(kBack).fg(backing.color);
  }
  out_.text(level(cell)).plain();
}

void Drawer::row(const MapArena& arena, const MapHeap& heap) {
  Text<32> address;
  out_.text(address.hex(arena.address).view()).pad_to(kLabel);
  for (const MapCell& c : arena.cells) cell(c, heap.node);
  if (arena.count > 1)
    out_.text(" ").text(utf8_ ? "\u00d7" : "x").text(" ").text(std::to_string(arena.count)).text(" arenas");
  out_.line();
}

void Drawer::heap(const MapHeap& heap) {
  out_.text("\n").bold().text(heap.name()).plain();
  if (heap.node >= 0 && out_.mode() != ColorMode::kNone) out_.text(" ").bg(node_color(heap.node)).text("  ").plain();
  out_.text(": ").text(size_text(heap.backed() * kHugeSize)).text(" backed");
  const char* separator = " (units: ";
  for (unsigned i = kBackings.size(); i-- > 0;) {
    if (heap.backed_units[i] == 0) continue;
    out_.text(separator).fg(kBackings[i].color).text(std::string(1, kBackings[i].letter)).plain();
    out_.text(" ").text(std::to_string(heap.backed_units[i]));
    separator = ", ";
  }
  out_.text(heap.backed() != 0 ? "), " : ", ").text(size_text(heap.object_bytes)).text(" in objects");
  if (heap.large_objects != 0) {
    out_.text(", ")
        .text(std::to_string(heap.large_objects))
        .text(heap.large_objects == 1 ? " large one" : " large ones");
  }
  out_.line();
  for (const MapArena& arena : heap.arenas) row(arena, heap);
  if (heap.left_out != 0)
    out_.text("and ").text(std::to_string(heap.left_out)).text(" arenas more, in the sums above").line();
}

void Drawer::legend() {
  const bool colors = out_.mode() != ColorMode::kNone;
  out_.text("A cell is a unit of 2 MiB, a row an arena of 64 MiB. Its letter tells the kind of its pages");
  out_.text(colors ? ", in the\nnode's colour:" : ":").line();
  for (auto b = kBackings.rbegin(); b != kBackings.rend(); ++b) {
    out_.text(b == kBackings.rbegin() ? "  " : "   ")
        .fg(b->color)
        .text(std::string(1, b->letter))
        .plain()
        .text(" ")
        .text(b->name);
  }
  out_.line()
      .text("  ")
      .text(utf8_ ? "\u00b7" : ".")
      .text(" no memory   - mapped, not in use   x another mapping's")
      .line();
  out_.text("Behind the letter, how full it is of objects: ");
  out_.text(utf8_ ? "blank empty, \u2581 to \u2587 partly, \u2588 full" : "0 empty, 1 to 8 partly, 9 full").line();
  out_.text("  [==] and O: large objects, each unit that they have for themselves").line();
}

std::string Drawer::draw(const UnitMap& map) {
  std::uint64_t backed = 0, objects = 0, units = 0;
  for (const MapHeap& h : map.heaps) {
    backed += h.backed();
    objects += h.object_bytes;
    units += h.units;
  }
  out_.bold().text(map.command).plain().text(", process ").text(std::to_string(map.pid)).text(": ");
  out_.text(size_text(backed * kHugeSize))
      .text(" backed of ")
      .text(size_text(units * kHugeSize))
      .text(" of address space, ");
  out_.text(size_text(objects)).text(" in objects").line();
  legend();
  for (const MapHeap& h : map.heaps) heap(h);
  return out_.view();
}

}  // namespace

std::string draw_map(const UnitMap& map, ColorMode colors, bool utf8) { return Drawer(colors, utf8).draw(map); }

}  // namespace nh::cli
