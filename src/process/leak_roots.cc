#include "process/leak_roots.h"

#include <algorithm>

#include "base/bits.h"
#include "base/scan.h"
#include "cache/mcache.h"
#include "os/procfs.h"
#include "process/live_block.h"
#include "process/process.h"

namespace nh {
namespace {

template <typename Visit>
void for_each_chunk(Visit&& visit) {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) g_process.heaps[HeapId(i)].heap.metadata().for_each_chunk(visit);
}

// A line of /proc/self/maps: "start-end perms offset device inode path".
struct Line {
  AddressRange range;
  bool accessible = false;
  bool is_root = false;
  bool is_anonymous = false;
  bool is_main_stack = false;
};

bool read_line(std::string_view text, Line* line) {
  if (!take_hex(&text, &line->range.start) || !take(&text, "-") || !take_hex(&text, &line->range.end) || !take(&text, " ")) {
    return false;
  }
  const std::string_view permissions = head(text, 4);
  std::string_view path = text;
  for (int field = 0; field < 4; field++) path = after(path, ' ');
  path = trimmed(path);
  line->accessible = permissions != "---p";
  line->is_anonymous = path.empty() || path[0] == '[';
  line->is_main_stack = path == "[stack]";
  // Registers of devices are mapped shared, those of the kernel's clocks are named so.
  line->is_root = permissions[0] == 'r' && permissions[3] == 'p' && head(path, 2) != "[v";
  return true;
}

}  // namespace

bool LeakRoots::prepare() {
  constexpr std::size_t kMore = 256;
  std::size_t chunks = 0;
  for_each_chunk([&](std::uintptr_t, std::uintptr_t) { chunks++; });
  return left_out_.make(chunks * 2 + kMore);
}

bool LeakRoots::leave_out(std::uintptr_t start, std::uintptr_t end) { return left_out_.add({start, end}); }

bool LeakRoots::leave_out_heap() {
  const AddressSpace& space = g_process.space;
  const auto tables = reinterpret_cast<std::uintptr_t>(space.page_map());
  bool all = leave_out(space.base(), space.base() + space.max_bytes()) &&
             leave_out(tables, space.heap_tables(HeapId(g_process.heaps.count()))) &&
             leave_out(address(left_out_.begin()), address(left_out_.begin()) + left_out_.bytes());
  // Variables of ours that hold the window's address, which is that of an object, too.
  const auto leave_out_variable = [&](const auto& variable) {
    all = all && leave_out(address(&variable), address(&variable + 1));
  };
  leave_out_variable(g_process);
  leave_out_variable(g_hot);
  leave_out_variable(live_block());
  for_each_chunk([&](std::uintptr_t start, std::uintptr_t end) { all = all && leave_out(start, end); });
  return all;
}

int LeakRoots::for_each(const StoppedThreads& threads, std::uintptr_t stack_pointer,
                        void (*visit)(void*, std::uintptr_t, std::uintptr_t), void* argument) {
  constexpr std::uintptr_t kRedZone = 128;
  std::sort(left_out_.begin(), left_out_.end(),
            [](const AddressRange& a, const AddressRange& b) { return a.start < b.start; });
  const AddressRange* next = left_out_.begin();
  LineReader lines("/proc/self/maps");
  Line before;
  for (std::string_view text; lines.next(&text);) {
    Line line;
    if (!read_line(text, &line)) continue;
    const AddressRange range = line.range;
    const bool guarded = !before.accessible && before.range.end == range.start && range.start != 0;
    before = line;
    if (!line.is_root) continue;
    std::uintptr_t at = range.start;
    if (line.is_main_stack || (line.is_anonymous && guarded)) {
      std::uintptr_t lowest = threads.lowest_stack_pointer(range.start, range.end);
      if (range.contains(stack_pointer) && (lowest == 0 || stack_pointer < lowest)) lowest = stack_pointer;
      if (lowest > at + kRedZone) at = lowest - kRedZone;
    }
    while (next != left_out_.end() && next->end <= at) next++;
    for (const AddressRange* out = next; out != left_out_.end() && out->start < range.end; out++) {
      if (out->start > at) visit(argument, at, out->start);
      if (out->end > at) at = out->end;
    }
    if (at < range.end) visit(argument, at, range.end);
  }
  return lines.error();
}

}  // namespace nh
