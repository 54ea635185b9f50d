// A flame graph: who called whom, and how much each way weighs, as an SVG that needs no script.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace nh::cli {

class FlameGraph {
 public:
  // path: outermost first.
  void add(const std::vector<std::string>& path, std::uint64_t bytes);
  // title: what the whole width is.
  std::string svg(const std::string& title) const;

 private:
  struct Node {
    std::uint64_t bytes = 0;
    std::map<std::string, Node> callees;
  };
  struct Page;
  void draw(Page& page, const std::string& name, const Node& node, double left, unsigned depth) const;
  unsigned depth_of(const Node& node) const;

  Node root_;
};

// "1.5 GiB"
std::string bytes_text(std::uint64_t bytes);

}  // namespace nh::cli
