#include "api/verify.h"

#include <numaheap/numaheap.h>

#include <cerrno>

#include "base/bits.h"
#include "os/residency.h"
#include "process/process.h"

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]

namespace nh {
namespace {

// Pages of so many bytes more or less than its share a node may hold of memory that is spread: the pages may be huge ones.
constexpr std::uint64_t kSlackPages = kHugeSize / kOsPageSize;

// The share of each node in memory that is spread, in parts of the sum; 0: none.
struct Shares {
  unsigned part[kMaxNodes] = {};
  std::uint64_t sum = 0;
};

void share_evenly(const NodeSet& nodes, Shares* shares) {
  const Topology& t = g_process.topology;
  for (unsigned h = 0; h < t.heap_count(); h++) shares->sum += shares->part[h] = nodes.has(t.node(h).node());
}

void share_by_weight(Shares* shares) {
  const Process& p = g_process;
  const BindMode policy = g_process.heaps[p.weighted].heap.backer().config().policy;
  if (policy != BindMode::kWeighted && p.turns.count == 0) return share_evenly(p.weighted_nodes, shares);
  for (unsigned h = 0; h < p.topology.heap_count(); h++) {
    const NodeId node = p.topology.node(h).node();
    if (!p.weighted_nodes.has(node)) continue;
    shares->part[h] = policy == BindMode::kWeighted ? kernel_weight(SysfsRoot(), node) : p.turns.turns_of(node);
    shares->sum += shares->part[h];
  }
}

bool is_spread(const Survey& pages, const Shares& shares) {
  const std::uint64_t all = pages.present(), slack = kSlackPages + all / 16;
  for (unsigned h = 0; h < g_process.topology.heap_count(); h++) {
    const std::uint64_t share = all * shares.part[h] / shares.sum;
    if (shares.part[h] == 0 ? pages.on_heap[h] != 0 : pages.on_heap[h] > share + slack) return false;
    if (pages.on_heap[h] + slack < share) return false;
  }
  return pages.elsewhere == 0;
}

bool is_on(const Survey& pages, const NodeSet& nodes) {
  for (unsigned h = 0; h < g_process.topology.heap_count(); h++) {
    if (pages.on_heap[h] != 0 && !nodes.has(g_process.topology.node(h).node())) return false;
  }
  return pages.elsewhere == 0;
}

NodeSet best_nodes(NodeQuality quality, bool strict) {
  const Topology& t = g_process.topology;
  const NodeInfo& best = t.node(best_heap(quality).value);
  NodeSet nodes = NodeSet::of(best.node());
  for (unsigned h = 0; !strict && h < t.heap_count(); h++) {
    const NodeInfo& node = t.node(h);
    if (node.kind == best.kind && node.tier == best.tier && g_process.nearest.nodes.has(node.node())) nodes.add(node.node());
  }
  return nodes;
}

int fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

std::uint64_t Survey::present() const {
  std::uint64_t pages = elsewhere;
  for (const std::uint64_t n : on_heap) pages += n;
  return pages;
}

int survey(const void* p, std::size_t size, Survey* out) {
  constexpr std::size_t kBatch = 64;
  const void* pages[kBatch];
  int nodes[kBatch];
  std::uintptr_t at = align_down(address(p), kOsPageSize);
  const std::uintptr_t end = address(p) + size;
  if (end < at) return EFAULT;
  while (at < end) {
    std::size_t n = 0;
    for (; n < kBatch && at < end; n++, at += kOsPageSize) pages[n] = reinterpret_cast<const void*>(at);
    if (const int error = linux_os().nodes_of(pages, n, nodes); error != 0) return error;
    for (std::size_t i = 0; i < n; i++) {
      HeapId heap;
      if (nodes[i] >= 0) {
        (g_process.topology.heap_of_node(NodeId(nodes[i]), &heap) ? out->on_heap[heap.value] : out->elsewhere)++;
        continue;
      }
      // The kernel says the same of memory that was only read so far (the zero page) and of none at all.
      if (nodes[i] == -EFAULT && page_state(pages[i]) == PageState::kUnmapped) return EFAULT;
      if (nodes[i] != -ENOENT && nodes[i] != -EFAULT) return -nodes[i];
      out->untouched++;
    }
  }
  return 0;
}

}  // namespace nh

using namespace nh;

NH_EXPORT int numaheap_verify(const void* p, size_t size, const numaheap_placement* placement) {
  constexpr unsigned kFlags = NUMAHEAP_ALLOC_STRICT | NUMAHEAP_ALLOC_ZERO | NUMAHEAP_ALLOC_NOSCAN;
  if (placement == nullptr || (placement->flags & ~kFlags) != 0 || size == 0) return fail(EINVAL);
  if (!ensure_started()) return fail(ENOMEM);
  const bool strict = (placement->flags & NUMAHEAP_ALLOC_STRICT) != 0;
  const Topology& t = g_process.topology;
  const NodeId node(placement->node);
  NodeSet wanted;
  Shares shares;
  HeapId heap;
  switch (placement->where) {
    case NUMAHEAP_LOCAL: wanted.add(t.node_of_heap(nearest_heap())); break;
    case NUMAHEAP_ON_NODE:
      if (!t.heap_of_node(node, &heap)) return fail(EINVAL);
      wanted.add(node);
      break;
    case NUMAHEAP_BANDWIDTH: wanted = best_nodes(NodeQuality::kBandwidth, strict); break;
    case NUMAHEAP_LATENCY: wanted = best_nodes(NodeQuality::kLatency, strict); break;
    case NUMAHEAP_CAPACITY: wanted = best_nodes(NodeQuality::kCapacity, strict); break;
    case NUMAHEAP_INTERLEAVED: share_evenly(g_process.heaps[g_process.interleaved].heap.backer().config().nodes, &shares); break;
    case NUMAHEAP_WEIGHTED: share_by_weight(&shares); break;
    default: return fail(EINVAL);
  }
  Survey pages;
  if (const int error = survey(p, size, &pages); error != 0) return fail(error);
  if (pages.present() == 0) return fail(ENOENT);
  return shares.sum != 0 ? is_spread(pages, shares) : is_on(pages, wanted);
}
