// The map as SVG: a panel per heap, a row per arena, a square per unit. The square is filled from below as far as the unit is
// in objects, in the colour of its backing; the edge at its left has the colour of its node; large objects are outlined.
#include <algorithm>
#include <vector>

#include "cli/palette.h"
#include "cli/unit_map.h"

namespace nh::cli {
namespace {

// All in pixels.
constexpr int kCell = 13, kStep = 16, kStripe = 3;
constexpr int kMargin = 24, kGap = 32;
constexpr int kAddress = 112, kCount = 150;
constexpr int kCells = static_cast<int>(kUnitsPerArena) * kStep;
constexpr int kPanel = kAddress + kCells + kCount;
constexpr int kTitle = 40;
constexpr int kHead = 158;  // title and legend

std::string number(std::int64_t v) { return std::to_string(v); }

std::string size_text(std::uint64_t bytes) {
  Text<40> text;
  return std::string(text.bytes(bytes).view());
}

std::string escaped(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

class Svg {
 public:
  std::string draw(const UnitMap& map);

 private:
  void text(int x, int y, const char* style, std::string_view s) {
    out_ += "<text class=\"" + std::string(style) + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\">" + escaped(s) +
            "</text>\n";
  }
  void rect(const char* style, int x, int y, int width, int height, const std::string& fill = "") {
    out_ += "<rect class=\"" + std::string(style) + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" +
            number(width) + "\" height=\"" + number(height) + "\"" + (fill.empty() ? "" : " fill=\"" + fill + "\"") +
            "/>\n";
  }
  void style();
  void legend(const UnitMap& map);
  void panel(const MapHeap& heap, int x, int y);
  void row(const MapArena& arena, const MapHeap& heap, int x, int y);
  void cell(const MapCell& cell, int node, int x, int y);
  void outlines(const MapArena& arena, int x, int y);

  std::string out_;
};

int rows_of(const MapHeap& heap) { return static_cast<int>(heap.arenas.size()) + (heap.left_out != 0 ? 1 : 0); }
int height_of(const MapHeap& heap) { return kTitle + rows_of(heap) * kStep + kGap; }

void Svg::style() {
  out_ +=
      "<style>\n"
      "text{font-family:'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#222;font-size:12px}\n"
      ".title{font-size:18px;font-weight:bold}.heap{font-size:14px;font-weight:bold}.note{fill:#555}\n"
      ".address{font-family:'DejaVu Sans Mono',Menlo,monospace;font-size:10px;fill:#555}\n"
      ".reserved{fill:#f4f4f4}.mapped{fill:none;stroke:#bbb}.lost{fill:#444}.large{fill:none;stroke:#111;stroke-width:"
      "2}\n";
  for (const Backing& b : kBackings) {
    out_ += std::string(".empty") + b.letter + "{fill:" + hex_color(mix({255, 255, 255}, b.color, 0.22)) + "}.full" +
            b.letter + "{fill:" + hex_color(b.color) + "}\n";
  }
  out_ += "</style>\n";
}

void Svg::legend(const UnitMap& map) {
  std::uint64_t backed = 0, objects = 0, units = 0, all[4] = {};
  std::vector<int> nodes;
  bool unknown = false;
  for (const MapHeap& h : map.heaps) {
    backed += h.backed();
    objects += h.object_bytes;
    units += h.units;
    for (unsigned i = 0; i < 4; i++) all[i] += h.backed_units[i];
    if (h.node >= 0) nodes.push_back(h.node);
    for (const MapArena& a : h.arenas) {
      for (const MapCell& c : a.cells) {
        if (c.place >= 0) nodes.push_back(c.place);
        unknown = unknown || (c.backed() && c.place < 0 && h.node < 0);
      }
    }
  }
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  text(kMargin, 36, "title", map.command + ", process " + number(map.pid));
  text(kMargin, 58, "note",
       size_text(backed * kHugeSize) + " backed of " + size_text(units * kHugeSize) + " of address space, " +
           size_text(objects) + " in objects");
  text(kMargin, 76, "note",
       "A square is a unit of 2 MiB, filled from below as far as it is in objects; a row is an arena of 64 MiB.");
  int x = kMargin;
  const auto entry = [&](int y, const std::string& label) {
    text(x + kCell + 6, y + 11, "label", label);
    x += kCell + 6 + static_cast<int>(label.size()) * 7 + 16;
  };
  for (unsigned i = kBackings.size(); i-- > 0;) {
    const Backing& b = kBackings[i];
    rect((std::string("empty") + b.letter).c_str(), x, 92, kCell, kCell);
    rect((std::string("full") + b.letter).c_str(), x, 92 + kCell / 2, kCell, kCell - kCell / 2);
    entry(92, std::string(b.name) + " (" + size_text(all[i] * kHugeSize) + ")");
  }
  x = kMargin;
  rect("mapped", x, 112, kCell, kCell);
  entry(112, "mapped, not in use");
  rect("reserved", x, 112, kCell, kCell);
  entry(112, "address space only");
  rect("large", x, 112, kCell, kCell);
  entry(112, "large object");
  x = kMargin;
  for (const int node : nodes) {
    // More than fit would run out of the picture; their panels have their colours, too.
    if (x > kPanel - 110) break;
    rect("node", x, 132, kStripe, kCell, hex_color(node_color(node)));
    entry(132, "node " + number(node));
  }
  if (unknown) {
    rect("node", x, 132, kStripe, kCell, hex_color(kNoNodeColor));
    entry(132, "not written to, or not known");
  }
}

void Svg::cell(const MapCell& cell, int node, int x, int y) {
  if (!cell.backed()) {
    rect(cell.state == LiveState::kReserved ? "reserved"
         : cell.state == LiveState::kMapped ? "mapped"
                                            : "lost",
         x, y, kCell, kCell);
    return;
  }
  const char letter = kBackings[static_cast<unsigned>(cell.kind)].letter;
  const char empty[] = {'e', 'm', 'p', 't', 'y', letter, '\0'}, full[] = {'f', 'u', 'l', 'l', letter, '\0'};
  const int height = cell.full == 0 ? 0 : cell.full == 100 ? kCell : std::clamp(cell.full * kCell / 100, 1, kCell - 1);
  if (height < kCell) rect(empty, x, y, kCell, kCell - height);
  if (height > 0) rect(full, x, y + kCell - height, kCell, height);
  const int lies_on = cell.place >= 0 ? cell.place : node;
  rect("node", x, y, kStripe, kCell, hex_color(lies_on >= 0 ? node_color(lies_on) : kNoNodeColor));
}

// One shape per object and row; it is open where the object goes on in another row.
void Svg::outlines(const MapArena& arena, int x, int y) {
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    if (arena.cells[u].large == LargePart::kNone) continue;
    std::size_t last = u;
    const auto ends = [&](std::size_t i) {
      return arena.cells[i].large == LargePart::kLast || arena.cells[i].large == LargePart::kWhole;
    };
    while (!ends(last) && last + 1 < kUnitsPerArena &&
           (arena.cells[last + 1].large == LargePart::kMiddle || arena.cells[last + 1].large == LargePart::kLast)) {
      last++;
    }
    const bool begins = arena.cells[u].large == LargePart::kFirst || arena.cells[u].large == LargePart::kWhole;
    const int left = x + static_cast<int>(u) * kStep, right = x + static_cast<int>(last) * kStep + kCell,
              bottom = y + kCell;
    const std::string l = number(begins ? left : left - 3), r = number(ends(last) ? right : right + 3);
    const std::string top = number(y), low = number(bottom);
    out_ += "<path class=\"large\" d=\"M" + l + " " + top + "H" + r + (ends(last) ? "V" + low : "M" + r + " " + low) +
            "H" + l + (begins ? "V" + top : "") + "\"/>\n";
    u = last;
  }
}

void Svg::row(const MapArena& arena, const MapHeap& heap, int x, int y) {
  Text<32> address;
  text(x, y + 10, "address", address.hex(arena.address).view());
  for (std::size_t u = 0; u < kUnitsPerArena; u++) {
    cell(arena.cells[u], heap.node, x + kAddress + static_cast<int>(u) * kStep, y);
  }
  outlines(arena, x + kAddress, y);
  if (arena.count > 1)
    text(x + kAddress + kCells + 4, y + 10, "address",
         "\u00d7 " + number(static_cast<std::int64_t>(arena.count)) + " arenas");
}

void Svg::panel(const MapHeap& heap, int x, int y) {
  out_ += "<g>\n";
  if (heap.node >= 0) rect("node", x, y, kStripe + 2, 32, hex_color(node_color(heap.node)));
  text(x + 12, y + 12, "heap", heap.name());
  std::string facts = size_text(heap.backed() * kHugeSize) + " backed";
  const char* separator = " (units: ";
  for (unsigned i = kBackings.size(); i-- > 0;) {
    if (heap.backed_units[i] == 0) continue;
    facts += separator + (kBackings[i].short_name + (" " + number(static_cast<std::int64_t>(heap.backed_units[i]))));
    separator = ", ";
  }
  facts += heap.backed() != 0 ? "), " : ", ";
  facts += size_text(heap.object_bytes) + " in objects";
  if (heap.large_objects != 0) facts += ", " + number(static_cast<std::int64_t>(heap.large_objects)) + " large";
  text(x + 12, y + 29, "note", facts);
  y += kTitle;
  for (const MapArena& arena : heap.arenas) {
    row(arena, heap, x, y);
    y += kStep;
  }
  if (heap.left_out != 0)
    text(x, y + 12, "note",
         "and " + number(static_cast<std::int64_t>(heap.left_out)) + " arenas more, in the sums above");
  out_ += "</g>\n";
}

std::string Svg::draw(const UnitMap& map) {
  // In two columns once one would be too tall, each heap where there is more room.
  int total = 0;
  for (const MapHeap& h : map.heaps) total += height_of(h);
  const std::size_t columns = total > 900 && map.heaps.size() > 1 ? 2 : 1;
  std::vector<int> bottom(columns, kHead + kGap / 2);
  std::string panels;
  for (const MapHeap& h : map.heaps) {
    const auto column = std::min_element(bottom.begin(), bottom.end());
    panel(h, kMargin + static_cast<int>(column - bottom.begin()) * (kPanel + kGap), *column);
    *column += height_of(h);
  }
  panels.swap(out_);
  const int width = 2 * kMargin + static_cast<int>(columns) * kPanel + static_cast<int>(columns - 1) * kGap;
  const int height = *std::max_element(bottom.begin(), bottom.end());
  out_ = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" +
         number(width) + "\" height=\"" + number(height) + "\" viewBox=\"0 0 " + number(width) + " " + number(height) +
         "\">\n<title>" + escaped(map.command) + "</title>\n";
  style();
  out_ += "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  legend(map);
  return out_ + panels + "</svg>\n";
}

}  // namespace

std::string draw_map_svg(const UnitMap& map) { return Svg().draw(map); }

}  // namespace nh::cli
