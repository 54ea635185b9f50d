#include "process/stats.h"

#include <unistd.h>

#include "process/memory_use.h"
#include "process/process.h"
#include "os/os.h"

namespace nh {
namespace {

enum class FieldUnit { kBytes, kCount };

// JSON key, and what it is called for people.
struct Field {
  const char* key;
  std::uint64_t numaheap_heap_stats::*member;
  const char* label;
  bool is_bytes;
};
constexpr Field kFields[] = {
#define NH_HEAP_STAT(member, label, unit, grows) \
  {#member, &numaheap_heap_stats::member, label, FieldUnit::unit == FieldUnit::kBytes},
#include "base/heap_stats.def"
#undef NH_HEAP_STAT
};

const char* kind_name(int kind) {
  static constexpr const char* kNames[] = {"node", "first_touch", "interleaved", "weighted", "interleaved_fast"};
  return kNames[kind];
}

// Calls visit(const numaheap_heap_stats&) for every heap; not at all before start.
template <typename Visit>
void for_each_heap(Visit&& visit) {
  if (!started()) return;
  std::uint64_t cached[kMaxHeaps];
  g_caches.totals(cached);
  for (unsigned i = 0; i < reported_heaps(); i++) visit(collect_heap(i, cached));
}

bool is_used(const numaheap_heap_stats& s) { return s.kind == NUMAHEAP_HEAP_NODE || s.arenas != 0; }

void write_heap_name(TextWriter& out, const numaheap_heap_stats& s) {
  if (s.kind == NUMAHEAP_HEAP_NODE) {
    out.text("node ").sdec(s.node);
  } else {
    static constexpr const char* kLabels[] = {"", "first touch", "interleaved", "weighted", "interl. fast"};
    out.text(kLabels[s.kind]);
  }
}

template <typename Write>
void write_fallbacks(Write&& write) {
  for (unsigned f = 0; f < static_cast<unsigned>(Fallback::kCount); f++) {
    if (const std::uint64_t n = fallback_count(static_cast<Fallback>(f)); n != 0) write(static_cast<Fallback>(f), n);
  }
}

}  // namespace

HeapUse heap_use(unsigned index, std::uint64_t cached_bytes) {
  NodeHeap& n = g_process.heaps[HeapId(index)];
  const CpuCaches::Kept kept = g_caches.kept_large(HeapId(index));
  const std::uint64_t out = n.small_bytes.load(std::memory_order_relaxed);
  const HeapStats h = n.heap.stats();
  HeapUse use = {};
  use.committed_bytes = h.committed_bytes;
  use.hugetlb_bytes = h.hugetlb_bytes;
  use.idle_bytes = h.free_bytes;
  use.small_bytes = out > cached_bytes ? out - cached_bytes : 0;
  use.large_bytes = h.large_bytes > kept.bytes ? h.large_bytes - kept.bytes : 0;
  use.large_objects = h.large_objects > kept.objects ? h.large_objects - kept.objects : 0;
  return use;
}

namespace {

int kind_of(HeapId heap) {
  const Process& p = g_process;
  if (heap.value >= p.originals) heap = HeapId(heap.value - p.originals);
  if (heap < p.first_touch) return NUMAHEAP_HEAP_NODE;
  if (heap == p.first_touch) return NUMAHEAP_HEAP_FIRST_TOUCH;
  if (heap == p.interleaved) return NUMAHEAP_HEAP_INTERLEAVED;
  return heap == p.weighted ? NUMAHEAP_HEAP_WEIGHTED : NUMAHEAP_HEAP_INTERLEAVED_FAST;
}

numaheap_heap_stats collect_one(unsigned index, std::uint64_t cached_bytes) {
  NodeHeap& n = g_process.heaps[HeapId(index)];
  const HeapStats h = n.heap.stats();
  numaheap_heap_stats s = {};
  s.kind = kind_of(HeapId(index));
  s.node = s.kind == NUMAHEAP_HEAP_NODE ? n.heap.node().value : -1;
  for (auto& slot : n.central) {
    Central* central = slot.load(std::memory_order_acquire);
    if (central == nullptr) continue;
    const CentralStats stats = central->stats();
    const std::uint64_t size = size_class(central->span_class()).bytes;
    s.cached_bytes += stats.objects_transfer * size;
    s.refills += stats.fetches;
    s.flushes += stats.flushes;
  }
  s.cached_bytes += cached_bytes;
  s.cached_bytes += g_caches.kept_large(HeapId(index)).bytes;
  const HeapUse use = heap_use(index, cached_bytes);
  s.live_bytes = use.small_bytes + use.large_bytes;
  s.free_bytes = h.free_bytes;
  s.committed_bytes = h.committed_bytes;
  s.released_bytes = h.released_bytes;
  s.hugetlb_bytes = h.hugetlb_bytes;
  s.thp_bytes = h.thp_bytes;
  s.base_bytes = h.base_bytes;
  s.metadata_bytes = h.metadata_bytes;
  s.arenas = h.arenas;
  s.spans = h.spans;
  s.large_objects = use.large_objects;
  s.remote_frees = n.remote_frees.load(std::memory_order_relaxed);
  s.foreign_serves = n.foreign_serves.load(std::memory_order_relaxed);
  s.served_objects = n.served_objects.load(std::memory_order_relaxed);
  s.local_objects = n.local_objects.load(std::memory_order_relaxed);
  return s;
}

}  // namespace

unsigned reported_heaps() { return g_process.originals; }

numaheap_heap_stats collect_heap(unsigned index, const std::uint64_t* cached) {
  const unsigned twin = paged_twin(HeapId(index)).value;
  numaheap_heap_stats s = collect_one(index, cached[index]);
  const numaheap_heap_stats more = collect_one(twin, cached[twin]);
  for (const Field& f : kFields) s.*f.member += more.*f.member;
  return s;
}

// A column of the report: part of whole in percent, "-" where there is no whole.
void write_share(TextWriter& out, std::uint64_t part, std::uint64_t whole, std::size_t width) {
  Text<40> share;
  if (whole == 0) {
    share.ch('-');
  } else {
    share.fixed(100 * static_cast<double>(part) / static_cast<double>(whole), 1);
  }
  out.right(share.view(), width);
}

void write_stats_json(TextWriter& out, Moment moment) {
  out.text("{\n  \"version\": ").json_string(numaheap_version());
  out.text(",\n  \"pid\": ").sdec(getpid());
  out.text(",\n  \"cache_mode\": ").json_string(numaheap_cache_mode());
  out.text(",\n  \"topology\": ").json_string(topology_source_name(g_process.topology.source()));
  out.text(",\n  \"memory_syscalls\": ").dec(memory_syscalls());
  out.text(",\n  \"fallbacks\": {");
  bool first = true;
  write_fallbacks([&](Fallback f, std::uint64_t n) {
    out.text(first ? "" : ", ").json_string(fallback_name(f)).text(": ").dec(n);
    first = false;
  });
  out.text("},\n  \"nodes\": [");
  first = true;
  for_each_heap([&](const numaheap_heap_stats& s) {
    out.text(first ? "\n" : ",\n").text("    {\"id\": ").sdec(s.node).text(", \"kind\": ").json_string(kind_name(s.kind));
    for (const Field& f : kFields) out.text(", ").json_string(f.key).text(": ").dec(s.*f.member);
    out.ch('}');
    first = false;
  });
  out.text("\n  ]");
  if (moment == Moment::kExit) write_memory_json(out);
  out.text("\n}\n");
}

void write_stats_text(TextWriter& out, Moment moment) {
  out.text("numaheap ").text(numaheap_version()).text(", process ").sdec(getpid());
  out.text(": caches ").text(numaheap_cache_mode());
  out.text(", topology from ").text(topology_source_name(g_process.topology.source()));
  out.text(", ").dec(memory_syscalls()).text(" memory system calls\n");
  for_each_heap([&](const numaheap_heap_stats& s) {
    if (!is_used(s)) return;
    write_heap_name(out, s);
    out.ch('\n');
    for (const Field& f : kFields) {
      if (s.*f.member == 0) continue;
      out.text("  ").text(f.label).pad_to(18);
      Text<40> value;
      f.is_bytes ? value.bytes(s.*f.member) : value.dec(s.*f.member);
      out.right(value.view(), 12).ch('\n');
    }
  });
  if (moment == Moment::kExit) write_memory_table(out);
  write_fallbacks([&](Fallback f, std::uint64_t n) {
    out.text("had to do without: ").text(fallback_text(f)).text(" (").dec(n).text(n == 1 ? " time)\n" : " times)\n");
  });
}

void write_report(TextWriter& out) {
  // 100 columns in all.
  static constexpr struct {
    const char* title;
    std::size_t width;
  } kColumns[] = {{"allocated", 11}, {"committed", 11}, {"hugetlb", 11}, {"THP", 11},
                  {"base pages", 11}, {"huge %", 8},    {"local %", 9},  {"remote frees", 14}};
  out.text("numaheap: process ").sdec(getpid()).text(", caches ").text(numaheap_cache_mode()).ch('\n');
  out.text("  heap").pad_to(14);
  for (const auto& column : kColumns) out.right(column.title, column.width);
  out.ch('\n');
  for_each_heap([&](const numaheap_heap_stats& s) {
    if (!is_used(s)) return;
    out.text("  ");
    write_heap_name(out, s);
    out.pad_to(14);
    for (const std::uint64_t bytes : {s.live_bytes, s.committed_bytes, s.hugetlb_bytes, s.thp_bytes, s.base_bytes}) {
      Text<40> value;
      out.right(value.bytes(bytes).view(), kColumns[0].width);
    }
    write_share(out, s.hugetlb_bytes + s.thp_bytes, s.committed_bytes, kColumns[5].width);
    write_share(out, s.local_objects, s.kind == NUMAHEAP_HEAP_NODE ? s.served_objects : 0, kColumns[6].width);
    Text<40> remote;
    out.right(remote.dec(s.remote_frees).view(), kColumns[7].width).ch('\n');
  });
  write_memory_table(out);
  write_fallbacks([&](Fallback f, std::uint64_t n) {
    out.text("  had to do without: ").text(fallback_text(f)).text(" (").dec(n).text(n == 1 ? " time)\n" : " times)\n");
  });
}

}  // namespace nh
