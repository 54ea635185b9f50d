// The colours and letters that mean the same in every picture: how memory is backed, what it is used for, which node it is of.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/live_block.h"
#include "cli/terminal.h"

namespace nh::cli {

struct Backing {
  char letter;
  const char* name;
  const char* short_name;
  Rgb color;
};
// By LiveKind.
inline constexpr std::array<Backing, 4> kBackings = {{
    {'b', "base pages", "base", {222, 142, 60}},
    {'T', "transparent huge pages", "THP", {74, 144, 217}},
    {'M', "2 MiB pool", "2M", {63, 167, 102}},
    {'G', "1 GiB pool", "1G", {150, 100, 200}},
}};

// What committed memory is used for, in the order of bars.
struct Use {
  const char* glyph;  // UTF-8
  char letter;        // without
  const char* name;
  Rgb color;
};
inline constexpr std::array<Use, 4> kUses = {{
    {"\u2588", '#', "live", {92, 184, 120}},
    {"\u2593", '+', "cached", {226, 178, 80}},
    {"\u2592", ':', "free in spans", {168, 124, 190}},
    {"\u2591", '.', "idle", {128, 128, 128}},
}};

// Neighbours in this list are easy to tell apart, and all of them from the backings.
inline constexpr std::array<Rgb, 8> kNodeColors = {{
    {28, 62, 138},
    {200, 30, 62},
    {196, 160, 0},
    {0, 140, 140},
    {188, 48, 160},
    {118, 74, 40},
    {106, 128, 20},
    {60, 66, 74},
}};
constexpr Rgb node_color(int node) { return kNodeColors[static_cast<unsigned>(node) % kNodeColors.size()]; }
inline constexpr Rgb kNoNodeColor = {160, 160, 160};

// Shares of `cells` cells in proportion to the parts; none that is not zero gets none, as far as there are enough.
std::vector<unsigned> share_out(const std::vector<std::uint64_t>& parts, std::uint64_t whole, unsigned cells);

}  // namespace nh::cli
