#include "cli/live.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <memory>

#include "base/scan.h"
#include "base/units.h"

namespace nh::cli {
namespace {

constexpr std::size_t kMostClassBytes = 16 * KiB;

// The heaps that are no node's, in the order of the library's. The last two are on some machines only.
struct SharedKind {
  int kind;
  const char* name;
  const char* word;
};
constexpr SharedKind kSharedKinds[] = {{NUMAHEAP_HEAP_FIRST_TOUCH, "first touch", "first_touch"},
                                       {NUMAHEAP_HEAP_INTERLEAVED, "interleaved", "interleaved"},
                                       {NUMAHEAP_HEAP_WEIGHTED, "weighted", "weighted"},
                                       {NUMAHEAP_HEAP_INTERLEAVED_FAST, "interl. fast", "interleaved_fast"}};
constexpr unsigned kFewestShared = 2;

// The bytes of a class of the library that its fields lie in.
template <std::size_t N>
std::size_t extent_of(const LiveField (&fields)[N]) {
  std::size_t end = 0;
  for (const LiveField& f : fields) end = std::max<std::size_t>(end, f.offset + f.bytes);
  return end;
}

template <std::size_t N>
bool are_plausible(const LiveField (&fields)[N], std::size_t most) {
  return extent_of(fields) <= most && std::all_of(std::begin(fields), std::end(fields), [](LiveField f) {
           return f.bytes == 1 || f.bytes == 2 || f.bytes == 4 || f.bytes == 8;
         });
}

LiveField field(const LiveBlock& b, LiveHeapField f) { return b.heap[static_cast<unsigned>(f)]; }
LiveField field(const LiveBlock& b, LiveCentralField f) { return b.central[static_cast<unsigned>(f)]; }
LiveField field(const LiveBlock& b, LiveCpuField f) { return b.cpu[static_cast<unsigned>(f)]; }

bool read_block(LiveProcess& p) {
  LiveBlock& b = p.block;
  if (!p.memory.read(p.block_at, &b) || b.magic != kLiveMagic || !is_plausible(b)) return false;
  p.version = printable({b.library_version, ::strnlen(b.library_version, sizeof b.library_version)});
  p.cache_mode = printable({b.cache_mode, ::strnlen(b.cache_mode, sizeof b.cache_mode)});
  return true;
}

// What CPUs' lists hold of a heap's objects.
struct Cached {
  std::uint64_t bytes = 0;
  std::uint64_t large_objects = 0;
};

void add_list_set(const LiveBlock& b, const std::vector<LiveList>& set, const std::vector<std::uint32_t>& list_bytes,
                  unsigned heap, Cached* sum) {
  for (unsigned i = 2; i < b.lists; i++) {
    if (set[i].capacity <= set[i].room) continue;
    const std::uint64_t objects = set[i].capacity - set[i].room;
    const bool large = i >= b.first_bin;
    if (large) sum->large_objects += objects;
    sum->bytes += objects * (large && heap == b.extent_heap ? (i - b.first_bin + std::uint64_t{1}) * b.unit_bytes
                                                            : list_bytes[i]);
  }
}

// The library itself counts in the same way: CpuCaches::totals() and kept_large().
std::vector<Cached> read_cpu_caches(LiveProcess& p, const std::vector<std::uint32_t>& list_bytes) {
  const LiveBlock& b = p.block;
  std::vector<Cached> sums(b.heap_count);
  std::vector<std::uint64_t> caches(b.cpus);
  p.memory.read(b.caches, caches.data(), b.cpus * sizeof(std::uint64_t));
  const std::size_t cache_bytes = extent_of(b.cpu), set_bytes = b.lists * sizeof(LiveList);
  const unsigned twins = b.heap_count / 2;
  std::vector<char> cache(cache_bytes);
  std::vector<LiveList> set(b.lists);
  for (const std::uint64_t at : caches) {
    if (at == 0 || !p.memory.read(at, cache.data(), cache_bytes)) continue;
    const LiveObject c(cache.data(), cache_bytes);
    const std::uint64_t where = c.get(field(b, LiveCpuField::kLists));
    const std::uint64_t local = c.get(field(b, LiveCpuField::kLocal));
    const bool placed = c.get(field(b, LiveCpuField::kHasPlaced)) != 0;
    const bool others = placed || c.get(field(b, LiveCpuField::kHasOtherHeaps)) != 0;
    // Lists in which this CPU has never put anything are not read: they have no memory yet.
    for (unsigned i = 0; i < 2 * b.heap_count; i++) {
      const unsigned heap = i / 2;
      const bool own = heap == local || heap == local + twins || heap == b.extent_heap;
      if (i % 2 != 0 ? !placed : !others && !own) continue;
      if (!p.memory.read(where + i * set_bytes, set.data(), set_bytes)) continue;
      add_list_set(b, set, list_bytes, heap, &sums[heap]);
    }
  }
  return sums;
}

void add_centrals(LiveProcess& p, const std::vector<char>& heap, const std::vector<std::uint32_t>& list_bytes,
                  LiveHeap* out) {
  const LiveBlock& b = p.block;
  const LiveField first = field(b, LiveHeapField::kCentrals);
  const std::size_t bytes = extent_of(b.central);
  std::vector<char> centrals(b.centrals * bytes);
  std::vector<ProcessMemory::Piece> pieces;
  std::vector<unsigned> classes;
  for (unsigned i = 0; i < b.centrals; i++) {
    std::uint64_t at;
    std::memcpy(&at, &heap[first.offset + i * sizeof at], sizeof at);
    if (at == 0) continue;
    pieces.push_back({at, &centrals[i * bytes], bytes});
    classes.push_back(i);
  }
  p.memory.read_pieces(pieces);
  for (const unsigned i : classes) {
    const LiveObject central(&centrals[i * bytes], bytes);
    const auto get = [&](LiveCentralField f) { return central.get(field(b, f)); };
    // The second half is for placed objects of the same classes.
    out->cached_bytes += get(LiveCentralField::kObjects) * list_bytes[i % (b.centrals / 2)];
    out->refills += get(LiveCentralField::kTakes) + get(LiveCentralField::kFetches);
    out->flushes += get(LiveCentralField::kPuts) + get(LiveCentralField::kFlushes);
  }
}

std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

LiveHeap read_heap(LiveProcess& p, unsigned index, const std::vector<std::uint32_t>& list_bytes, const Cached& cached) {
  const LiveBlock& b = p.block;
  std::vector<char> bytes(b.heap_bytes);
  p.memory.read(b.heaps + std::uint64_t{index} * b.heap_bytes, bytes.data(), bytes.size());
  const LiveObject heap(bytes.data(), bytes.size());
  const auto get = [&](LiveHeapField f) { return heap.get(field(b, f)); };
  LiveHeap h = {};
  h.kind = kind_of_heap(b, index % (b.heap_count / 2));
  h.node = h.kind == NUMAHEAP_HEAP_NODE ? static_cast<std::int32_t>(get(LiveHeapField::kNode)) : -1;
  h.huge_1g_bytes = get(LiveHeapField::kBacked1G) * b.unit_bytes;
  h.hugetlb_bytes = get(LiveHeapField::kBacked2M) * b.unit_bytes + h.huge_1g_bytes;
  h.thp_bytes = get(LiveHeapField::kBackedThp) * b.unit_bytes;
  h.base_bytes = get(LiveHeapField::kBackedBase) * b.unit_bytes;
  h.committed_bytes = h.hugetlb_bytes + h.thp_bytes + h.base_bytes;
  h.free_bytes = less(h.committed_bytes, get(LiveHeapField::kInUse));
  h.released_bytes = get(LiveHeapField::kReleased);
  h.metadata_bytes = get(LiveHeapField::kMetadata);
  h.arenas = get(LiveHeapField::kArenas);
  h.spans = get(LiveHeapField::kSpans);
  h.live_bytes = less(get(LiveHeapField::kSmallBytes) + get(LiveHeapField::kLargeBytes), cached.bytes);
  h.large_objects = less(get(LiveHeapField::kLargeObjects), cached.large_objects);
  h.cached_bytes = cached.bytes;
  h.remote_frees = get(LiveHeapField::kRemoteFrees);
  h.foreign_serves = get(LiveHeapField::kForeignServes);
  h.served_objects = get(LiveHeapField::kServedObjects);
  h.local_objects = get(LiveHeapField::kLocalObjects);
  add_centrals(p, bytes, list_bytes, &h);
  return h;
}

}  // namespace

std::uint64_t LiveObject::get(LiveField f) const {
  std::uint64_t value = 0;
  if (std::size_t{f.offset} + f.bytes <= size_ && f.bytes <= sizeof value)
    std::memcpy(&value, bytes_ + f.offset, f.bytes);
  return value;
}

bool is_plausible(const LiveBlock& b) {
  const LiveField centrals = field(b, LiveHeapField::kCentrals);
  return b.page_bytes == kPageSize && b.unit_bytes == kHugeSize && b.arena_bytes == kArenaSize && b.heap_count >= 6 &&
         b.heap_count % 2 == 0 && b.heap_count <= kMaxHeaps && b.first_touch < kMaxNodes + 1 &&
         b.first_touch + kFewestShared <= b.heap_count / 2 && b.heap_count / 2 <= b.first_touch + std::size(kSharedKinds) &&
         b.lists > b.first_bin && b.lists <= 4096 && b.centrals >= 2 && b.centrals / 2 <= b.lists &&
         b.cpus <= kMaxCpus && b.page_kind_count <= 4096 && b.kind_shift > 0 && b.kind_shift < 32 &&
         b.fallback_count <= 64 && b.heap_bytes <= kMostClassBytes && are_plausible(b.heap, b.heap_bytes) &&
         centrals.offset + b.centrals * sizeof(std::uint64_t) <= b.heap_bytes &&
         are_plausible(b.central, kMostClassBytes) && are_plausible(b.cpu, kMostClassBytes) &&
         are_plausible(b.span, 4096);
}

bool LiveProcess::same() {
  LiveBlock now;
  return memory.read(block_at, &now) && now.magic == kLiveMagic && now.instance == block.instance;
}

bool attach(int pid, LiveProcess* process, std::string* why, bool* no_numaheap) {
  process->memory = ProcessMemory(pid);
  bool ours = false;
  if (no_numaheap == nullptr) no_numaheap = &ours;
  *no_numaheap = false;
  const std::string name = "process " + std::to_string(pid);
  ProcessFacts facts;
  if (!read_process_facts(pid, &facts)) {
    *why = "there is no " + name;
    return false;
  }
  process->command = facts.command;
  if (facts.state == 'Z' || facts.state == 'X') {
    *why = why_not_readable(pid, ESRCH);
    return false;
  }
  std::vector<LivePlace> places;
  if (!find_live_blocks(process->memory, &places, why)) return false;
  if (places.empty()) {
    *no_numaheap = true;
    *why = name + " (" + facts.command +
           ") does not run on numaheap, or on one that cannot be looked into; start it with "
           "`numaheap run`";
    return false;
  }
  *why = name + " (" + facts.command + ") has numaheap loaded, but its heap has not started";
  // A program with a heap inside comes before libraries, and its malloc is the one that counts.
  for (const LivePlace& place : places) {
    if (place.version != kLiveVersion) {
      *why = name + " (" + facts.command + ") runs another version of numaheap (layout " +
             std::to_string(place.version) + ", this tool reads " + std::to_string(kLiveVersion) +
             "); use the tool that was installed with " + printable(place.file);
      continue;
    }
    process->block_at = place.block;
    process->file = printable(place.file);
    if (!read_block(*process)) continue;
    why->clear();
    return true;
  }
  if (process->memory.error() != 0) *why = why_not_readable(pid, process->memory.error());
  return false;
}

std::string why_lost(LiveProcess& process) {
  const int pid = process.memory.pid();
  ProcessFacts facts;
  const std::string name = "process " + std::to_string(pid) + " (" + process.command + ")";
  if (!read_process_facts(pid, &facts) || facts.state == 'Z' || facts.state == 'X') return name + " has ended";
  const int error = process.memory.error();
  if (error != 0 && error != ESRCH) return why_not_readable(pid, error);
  return name + (error == ESRCH ? " has ended" : " runs another program now");
}

int kind_of_heap(const LiveBlock& b, unsigned index) {
  return index < b.first_touch ? NUMAHEAP_HEAP_NODE : kSharedKinds[index - b.first_touch].kind;
}

std::string heap_name(int kind, int node) {
  for (const SharedKind& shared : kSharedKinds) {
    if (shared.kind == kind) return shared.name;
  }
  return "node " + std::to_string(node);
}

const char* heap_kind(int kind) {
  for (const SharedKind& shared : kSharedKinds) {
    if (shared.kind == kind) return shared.word;
  }
  return "node";
}

int heap_kind_of(const std::string& word) {
  for (const SharedKind& shared : kSharedKinds) {
    if (shared.word == word) return shared.kind;
  }
  return word == "node" ? NUMAHEAP_HEAP_NODE : -1;
}

void LiveHeap::add(const LiveHeap& other) {
#define NH_HEAP_STAT(member, label, unit, grows) member += other.member;
#include "base/heap_stats.def"
#undef NH_HEAP_STAT
  huge_1g_bytes += other.huge_1g_bytes;
}

LiveHeap Snapshot::total() const {
  LiveHeap sum = {};
  for (const LiveHeap& h : heaps) sum.add(h);
  return sum;
}

bool take_snapshot(LiveProcess& process, Snapshot* out, std::string* why) {
  const LiveBlock& b = process.block;
  *out = Snapshot();
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  out->time = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  read_process_facts(process.memory.pid(), &out->facts);
  process.memory.read(b.memory_syscalls, &out->memory_syscalls);
  std::vector<std::uint32_t> list_bytes(b.lists);
  process.memory.read(b.list_bytes, list_bytes.data(), b.lists * sizeof list_bytes[0]);
  const std::vector<Cached> cached = read_cpu_caches(process, list_bytes);
  const unsigned twins = b.heap_count / 2;
  for (unsigned i = 0; i < twins; i++) {
    LiveHeap heap = read_heap(process, i, list_bytes, cached[i]);
    heap.add(read_heap(process, i + twins, list_bytes, cached[i + twins]));
    out->heaps.push_back(heap);
  }
  std::vector<std::uint64_t> counts(b.fallback_count);
  process.memory.read(b.fallbacks, counts.data(), counts.size() * sizeof counts[0]);
  for (unsigned i = 0; i < b.fallback_count; i++) {
    std::uint64_t texts[2];
    if (counts[i] == 0 || !process.memory.read(b.fallback_texts + i * sizeof texts, &texts)) continue;
    out->fallbacks.push_back(
        {process.memory.read_text(texts[0], 64), process.memory.read_text(texts[1], 256), counts[i]});
  }
  // What was read between an exec and now may be anything.
  if (process.same()) return true;
  *why = why_lost(process);
  return false;
}

int parse_pid(std::string_view word) {
  std::uint64_t pid = 0;
  return take_decimal(&word, &pid) && word.empty() && pid <= INT_MAX ? static_cast<int>(pid) : 0;
}

}  // namespace nh::cli
