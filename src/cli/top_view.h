// What `numaheap top` shows of one look at its processes, as text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/live.h"
#include "cli/terminal.h"

namespace nh::cli {

// What one look at a process says beyond its figures.
struct Rates {
  double objects = 0, batches = 0, remote = 0, growth = 0, faults = 0, system_calls = 0;
  void add(const Rates& o) {
    objects += o.objects;
    batches += o.batches;
    remote += o.remote;
    growth += o.growth;
    faults += o.faults;
    system_calls += o.system_calls;
  }
};

struct Row {
  std::string name;
  std::uint64_t order;  // by name
  LiveHeap heap;
  Rates rates;
};

struct Look {
  std::vector<Row> heaps;      // of a process, or of all together
  std::vector<Row> processes;  // only if all were asked for
  LiveHeap total = {};
  Rates rates;
  std::size_t refused = 0;
  std::string title;
};

struct LookView {
  bool all;   // of all processes
  char sort;  // the key
  bool keys;  // whether to say which keys there are
  std::size_t width;
  ColorMode colors;
};
// Sorts the rows, too.
std::string draw_look(Look* look, const LookView& view);

}  // namespace nh::cli
