#include "process/memory_use.h"

#include "base/scan.h"
#include "os/mappings.h"
#include "os/procfs.h"
#include "os/room.h"
#include "os/segments.h"
#include "os/thread_places.h"
#include "process/process.h"
#include "process/program_memory.h"
#include "process/scratch.h"
#include "process/stats.h"

namespace nh {
namespace {

enum Part : unsigned { kHeap, kStatic, kCode, kStacks, kOther, kParts };
constexpr struct {
  const char* key;
  const char* label;
} kNames[kParts] = {
    {"heap", "all heaps"}, {"static", "static data"}, {"code", "code"}, {"stacks", "stacks"}, {"other", "other"},
};

struct Use {
  std::size_t in_ram;  // pages of a pool included
  std::size_t hugetlb;
  std::size_t thp;
  std::size_t on_node[kMaxNodes];  // by the topology's index; where there are several

  void add(const Use& other) {
    in_ram += other.in_ram;
    hugetlb += other.hugetlb;
    thp += other.thp;
    for (unsigned i = 0; i < kMaxNodes; i++) on_node[i] += other.on_node[i];
  }
};

// Static: too much for a stack.
constinit Use g_uses[kParts];
constinit Use g_run;      // of neighbouring anonymous mappings, not added to a part yet
constinit Use g_mapping;

// The lines of numa_maps beside those of smaps, whose order they have.
class NodePages {
 public:
  explicit NodePages(bool wanted) : lines_(wanted ? "/proc/self/numa_maps" : "") {}

  // Adds the pages of the mapping that begins there.
  void add_to(Use& use, std::uintptr_t start) {
    while (more_ && at_ < start) more_ = next();
    if (!more_ || at_ != start) return;
    // "7f5a22c00000 default anon=512 dirty=512 N0=512 kernelpagesize_kB=4"
    const std::size_t size = line_.find("kernelpagesize_kB=");
    std::uint64_t kib = kOsPageSize / KiB;
    if (std::string_view number = after(tail(line_, size), '='); size != line_.npos) take_decimal(&number, &kib);
    for (std::string_view rest = after(line_, ' '); !rest.empty(); rest = after(rest, ' ')) {
      std::string_view word = before(rest, ' ');
      std::uint64_t node = 0, pages = 0;
      if (!take(&word, "N") || !take_decimal(&word, &node) || !take(&word, "=") || !take_decimal(&word, &pages)) continue;
      const unsigned index = g_process.topology.index_of(NodeId(static_cast<int>(node)));
      if (index < kMaxNodes) use.on_node[index] += pages * kib * KiB;
    }
  }

 private:
  bool next() {
    if (!lines_.next(&line_)) return false;
    std::string_view number = line_;
    return take_hex(&number, &at_);
  }

  LineReader lines_;
  std::string_view line_;
  std::uintptr_t at_ = 0;
  bool more_ = true;
};

// The stacks of the program's threads, known by libc's record of the thread at their end. The first thread's record lies
// elsewhere, so what holds it is no stack.
class ThreadRecords {
 public:
  ThreadRecords() {
    if (!records_.make(process_facts().threads + 64)) return;
    for_each_thread_record(
        [](void* records, std::uintptr_t at) {
          if (!is_record_of_first_thread(at)) static_cast<Scratch<std::uintptr_t>*>(records)->add(at);
        },
        &records_);
  }
  bool lie_in(const AddressRange& range) {
    for (const std::uintptr_t at : records_) {
      if (range.contains(at)) return true;
    }
    return false;
  }

 private:
  Scratch<std::uintptr_t> records_;
};

Part part_of(const Mapping& m) {
  if (g_process.space.contains(reinterpret_cast<const void*>(m.start))) return kHeap;
  if (is_static_data(m.start) || (m.file && m.write && !m.shared)) return kStatic;
  if (is_code(m.start) || (m.file && m.execute)) return kCode;
  return m.main_stack ? kStacks : kOther;
}

bool read_memory_use() {
  for (Use& use : g_uses) use = Use();
  g_run = Use();
  ThreadRecords records;
  // Advice and guard pages cut a stack into several mappings.
  AddressRange run;
  const auto end_run = [&] {
    g_uses[records.lie_in(run) ? kStacks : kOther].add(g_run);
    g_run = Use();
  };
  NodePages nodes(g_process.topology.heap_count() > 1);
  Mappings mappings;
  for (Mapping m; mappings.next(&m);) {
    g_mapping = Use();
    g_mapping.in_ram = m.resident + m.hugetlb_pages;
    g_mapping.hugetlb = m.hugetlb_pages;
    g_mapping.thp = m.thp;
    nodes.add_to(g_mapping, m.start);
    const Part part = part_of(m);
    const bool in_run = part == kOther && m.write && !m.file;
    if (!in_run || m.start != run.end) {
      end_run();
      run = {m.start, m.start};
    }
    if (in_run) run.end = m.end;
    (in_run ? g_run : g_uses[part]).add(g_mapping);
  }
  end_run();
  return mappings.error() == 0;
}

// Calls visit(index, bytes) for the nodes that have some.
template <typename Visit>
void for_each_node(const Use& use, Visit&& visit) {
  for (unsigned i = 0; i < g_process.topology.node_count(); i++) {
    if (use.on_node[i] != 0) visit(g_process.topology.node(i).node(), use.on_node[i]);
  }
}

}  // namespace

void write_memory_table(TextWriter& out) {
  if (!read_memory_use()) return;
  // As wide as those of the heaps above.
  static constexpr struct {
    const char* title;
    std::size_t width;
  } kColumns[] = {{"in RAM", 11}, {"hugetlb", 11}, {"THP", 11}, {"base pages", 11}, {"huge %", 8}};
  out.text("  memory").pad_to(14);
  for (const auto& column : kColumns) out.right(column.title, column.width);
  out.ch('\n');
  for (unsigned part = 0; part < kParts; part++) {
    const Use& use = g_uses[part];
    const std::size_t huge = use.hugetlb + use.thp;
    out.text("  ").text(kNames[part].label).pad_to(14);
    for (const std::size_t bytes : {use.in_ram, use.hugetlb, use.thp, use.in_ram - huge}) {
      Text<40> value;
      out.right(value.bytes(bytes).view(), kColumns[0].width);
    }
    write_share(out, huge, use.in_ram, kColumns[4].width);
    for_each_node(use, [&](NodeId node, std::size_t bytes) { out.text("  node ").sdec(node.value).text(": ").bytes(bytes); });
    out.ch('\n');
  }
}

void write_memory_json(TextWriter& out) {
  if (!read_memory_use()) return;
  out.text(",\n  \"memory\": [");
  for (unsigned part = 0; part < kParts; part++) {
    const Use& use = g_uses[part];
    out.text(part == 0 ? "\n" : ",\n").text("    {\"part\": ").json_string(kNames[part].key);
    out.text(", \"ram_bytes\": ").dec(use.in_ram).text(", \"hugetlb_bytes\": ").dec(use.hugetlb);
    out.text(", \"thp_bytes\": ").dec(use.thp).text(", \"base_bytes\": ").dec(use.in_ram - use.hugetlb - use.thp);
    out.text(", \"node_bytes\": {");
    bool first = true;
    for_each_node(use, [&](NodeId node, std::size_t bytes) {
      out.text(first ? "\"" : ", \"").sdec(node.value).text("\": ").dec(bytes);
      first = false;
    });
    out.text("}}");
  }
  out.text("\n  ]");
}

}  // namespace nh
