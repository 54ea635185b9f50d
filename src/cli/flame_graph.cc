#include "cli/flame_graph.h"

#include <algorithm>
#include <cstdio>

#include "base/format.h"

namespace nh::cli {
namespace {

constexpr double kWidth = 1200, kMargin = 10, kRow = 18, kHead = 40;
constexpr double kLetter = 6.6;       // of the font below, about
constexpr double kNarrowest = 0.5;    // what is narrower is not drawn

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

// Warm colours, the same for the same function in every picture.
std::string colour_of(const std::string& name) {
  std::uint32_t h = 2166136261u;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  char text[32];
  std::snprintf(text, sizeof text, "hsl(%u,%u%%,%u%%)", 15 + h % 40, 65 + h / 64 % 20, 62 + h / 4096 % 10);
  return text;
}

std::string shortened(const std::string& name, double width) {
  const auto letters = static_cast<std::size_t>(width / kLetter);
  if (name.size() <= letters) return name;
  return letters < 4 ? "" : name.substr(0, letters - 2) + "..";
}

}  // namespace

std::string bytes_text(std::uint64_t bytes) {
  Text<32> text;
  text.bytes(bytes);
  return std::string(text.view());
}

struct FlameGraph::Page {
  std::string out;
  double scale;  // pixels per byte
  std::uint64_t total;
};

void FlameGraph::add(const std::vector<std::string>& path, std::uint64_t bytes) {
  Node* node = &root_;
  node->bytes += bytes;
  for (const std::string& name : path) {
    node = &node->callees[name];
    node->bytes += bytes;
  }
}

unsigned FlameGraph::depth_of(const Node& node) const {
  unsigned depth = 0;
  for (const auto& [name, callee] : node.callees) depth = std::max(depth, 1 + depth_of(callee));
  return depth;
}

void FlameGraph::draw(Page& page, const std::string& name, const Node& node, double left, unsigned depth) const {
  const double width = static_cast<double>(node.bytes) * page.scale;
  if (width < kNarrowest) return;
  const double top = kHead + depth * kRow;
  const double share = 100.0 * static_cast<double>(node.bytes) / static_cast<double>(page.total);
  page.out += "<g><title>" + escaped(name) + ": " + bytes_text(node.bytes) + ", " + number(share) + " %</title><rect x=\"" +
              number(left) + "\" y=\"" + number(top) + "\" width=\"" + number(width) + "\" height=\"" + number(kRow - 1) +
              "\" fill=\"" + colour_of(name) + "\"/>";
  if (const std::string label = shortened(name, width - 6); !label.empty()) {
    page.out += "<text x=\"" + number(left + 3) + "\" y=\"" + number(top + 13) + "\">" + escaped(label) + "</text>";
  }
  page.out += "</g>\n";
  // The heaviest first, so that the eye finds them on the left.
  std::vector<const std::pair<const std::string, Node>*> callees;
  for (const auto& callee : node.callees) callees.push_back(&callee);
  std::stable_sort(callees.begin(), callees.end(), [](auto* a, auto* b) { return a->second.bytes > b->second.bytes; });
  for (const auto* callee : callees) {
    draw(page, callee->first, callee->second, left, depth + 1);
    left += static_cast<double>(callee->second.bytes) * page.scale;
  }
}

std::string FlameGraph::svg(const std::string& title) const {
  const double height = kHead + (1 + depth_of(root_)) * kRow + kMargin;
  const std::uint64_t total = std::max<std::uint64_t>(root_.bytes, 1);
  Page page{"", (kWidth - 2 * kMargin) / static_cast<double>(total), total};
  page.out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(kWidth) + "\" height=\"" + number(height) +
             "\" viewBox=\"0 0 " + number(kWidth) + " " + number(height) + "\" font-family=\"monospace\" font-size=\"11\">\n"
             "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
             "<text x=\"" + number(kMargin) + "\" y=\"24\" font-size=\"15\" font-family=\"sans-serif\">" +
             escaped(title) + "</text>\n";
  draw(page, "all", root_, kMargin, 0);
  return page.out + "</svg>\n";
}

}  // namespace nh::cli
