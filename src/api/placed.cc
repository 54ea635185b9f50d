#include "api/placed.h"

#include <numaheap/numaheap.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "api/heap_calls.h"
#include "process/memory_limit.h"
#include "process/process.h"
#include "base/bits.h"
#include "os/residency.h"

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]

namespace nh {
namespace {

// 0 or an errno value.
int find_heap(const numaheap_placement& placement, std::size_t size, HeapChoice* from) {
  const Process& p = g_process;
  const bool strict = (placement.flags & NUMAHEAP_ALLOC_STRICT) != 0;
  const auto choose = [&](HeapId heap, Help help) {
    *from = {heap, strict ? Help::kNobody : help};
    return 0;
  };
  switch (placement.where) {
    case NUMAHEAP_LOCAL: return choose(nearest_heap(), neighbours());
    case NUMAHEAP_ON_NODE: {
      HeapId heap;
      const NodeId node(placement.node);
      if (!p.topology.heap_of_node(node, &heap)) return EINVAL;
      return p.nearest.nodes.has(node) ? choose(heap, neighbours()) : EPERM;
    }
    case NUMAHEAP_INTERLEAVED: return choose(p.interleaved, neighbours());
    case NUMAHEAP_WEIGHTED: return choose(p.weighted, neighbours());
    case NUMAHEAP_FIRST_TOUCH:
      // Smaller objects share their pages: the first to write to one of them would place the others as well.
      return strict ? EINVAL : choose(size > kMaxSmallSize ? first_touch_heap(size) : nearest_heap(), neighbours());
    case NUMAHEAP_BANDWIDTH: return choose(best_heap(NodeQuality::kBandwidth), Help::kBandwidth);
    case NUMAHEAP_LATENCY: return choose(best_heap(NodeQuality::kLatency), Help::kLatency);
    case NUMAHEAP_CAPACITY: return choose(best_heap(NodeQuality::kCapacity), Help::kCapacity);
  }
  return EINVAL;
}

// The class of a small request; 0 where it takes a span of its own. The least are 16 bytes, which have room for a mark.
SpanClass class_for(const PlacedRequest& r) {
  if (r.size > kMaxSmallSize) return {};
  const std::size_t size = r.size < 16 ? 16 : r.size;
  if (r.noscan && r.alignment <= 8) return make_placed(noscan_class_for(size));
  const SpanClass c = class_for_aligned(size, r.alignment < 16 ? 16 : r.alignment, r.noscan);
  return c.none() ? c : make_placed(c);
}

void* allocate_small(const PlacedRequest& r, SpanClass c) {
  void* p = g_caches.alloc_from(r.from.heap, c, r.from.help);
  if (p == nullptr) return nullptr;
  unmark(p);
  return r.zero ? std::memset(p, 0, r.size) : p;
}

void* allocate_large(const PlacedRequest& r) {
  if (r.size > PTRDIFF_MAX) return nullptr;
  HeapSet& heaps = g_process.heaps;
  const std::size_t alignment = r.alignment < kPageSize ? kPageSize : r.alignment;
  MSpan* span =
      heaps.alloc_large(r.from.heap, r.size == 0 ? 1 : r.size, alignment, r.noscan, r.from.help, current_node(), LargeUse::kPlaced);
  if (span == nullptr) return nullptr;
  if (r.zero && !heaps[HeapId(span->heap)].heap.clear_large(span)) {
    heaps.free_large(span);
    return nullptr;
  }
  return reinterpret_cast<void*>(span->start_addr);
}

// Null where there is no memory. errno is kept.
void* try_allocate(const PlacedRequest& r) {
  const SpanClass c = class_for(r);
  const auto allocate = [&] { return !c.none() ? allocate_small(r, c) : allocate_large(r); };
  void* p = allocate();
  if (p != nullptr) return p;
  // What CPUs keep is memory, too. Programs try a full node again and again before they go elsewhere: a strict request
  // costs the CPUs their large objects only.
  if (r.from.help != Help::kNobody) {
    release_kept();
  } else if (!g_caches.drain_large()) {
    return nullptr;
  }
  return allocate();
}

// Memory of a node's heap is proven to lie on the node before it is handed out, but for the heap's first unit, which a
// small process faults in as it goes and for which the node is a preference only. While a cpuset does not allow the node
// nothing of it is handed out. 0 or an errno value.
int prove_node(void* p, std::size_t size, HeapId heap) {
  MHeap& node_heap = g_process.heaps[heap].heap;
  if (!node_heap.backer().has_policy()) return 0;  // one node: there is no other
  if (fallback_count(Fallback::kBindRefused) != 0) return EPERM;
  NodeSet allowed;
  const bool asks = fallback_count(Fallback::kNodeGone) != 0 && linux_os().allowed_nodes(&allowed);
  if (asks && !allowed.has(node_heap.node())) return ENOMEM;
  const std::uintptr_t end = address(p) + (size == 0 ? 1 : size);
  const auto in_small_unit = [&](std::uintptr_t at) { return node_heap.in_small_unit(reinterpret_cast<void*>(at)); };
  for (std::uintptr_t at = address(p); at < end && in_small_unit(at); at = align_down(at, kOsPageSize) + kOsPageSize) {
    auto* byte = reinterpret_cast<volatile char*>(at);
    *byte = *byte;
    const void* page = reinterpret_cast<const void*>(align_down(at, kOsPageSize));
    int node = -1;
    if (linux_os().nodes_of(&page, 1, &node) != 0) return EPERM;
    if (node != node_heap.node().value) return ENOMEM;
  }
  return 0;
}

void* fail(int error) {
  errno = error;
  return nullptr;
}

}  // namespace

Help neighbours() { return g_process.help == Help::kNobody ? Help::kNobody : Help::kNeighbours; }

void* allocate_placed(const PlacedRequest& r) {
  void* p = try_allocate(r);
  if (p == nullptr) return fail(ENOMEM);
  if (r.proven && r.from.heap < g_process.first_touch) {
    if (const int error = prove_node(p, r.size, r.from.heap); error != 0) {
      release(p);
      return fail(error);
    }
  }
  return p;
}

void* allocate_beside(const MSpan& span, std::size_t size) {
  PlacedRequest r;
  r.size = size;
  r.from = {HeapId(span.heap), neighbours()};
  r.noscan = span.noscan();
  const bool first_touch = r.from.heap == g_process.first_touch || r.from.heap == paged_twin(g_process.first_touch);
  if (first_touch && size <= kMaxSmallSize) r.from.heap = nearest_heap();
  void* p = try_allocate(r);
  return p != nullptr ? p : fail(ENOMEM);
}

}  // namespace nh

using namespace nh;

// ---- allocation --------------------------------------------------------------------------------------------------

NH_EXPORT void* numaheap_alloc(size_t size, size_t alignment, const numaheap_placement* placement) {
  constexpr unsigned kFlags = NUMAHEAP_ALLOC_STRICT | NUMAHEAP_ALLOC_ZERO | NUMAHEAP_ALLOC_NOSCAN;
  if (placement == nullptr || (placement->flags & ~kFlags) != 0) return fail(EINVAL);
  if (alignment != 0 && !is_pow2(alignment)) return fail(EINVAL);
  if (!ensure_started()) return fail(ENOMEM);
  PlacedRequest r;
  r.size = size;
  r.alignment = alignment;
  r.proven = (placement->flags & NUMAHEAP_ALLOC_STRICT) != 0;
  r.zero = (placement->flags & NUMAHEAP_ALLOC_ZERO) != 0;
  r.noscan = (placement->flags & NUMAHEAP_ALLOC_NOSCAN) != 0;
  if (const int error = find_heap(*placement, size, &r.from); error != 0) return fail(error);
  return allocate_placed(r);
}

NH_EXPORT void* numaheap_malloc_on_node(size_t size, int node) {
  const numaheap_placement placement = {NUMAHEAP_ON_NODE, node, 0};
  return numaheap_alloc(size, 0, &placement);
}

NH_EXPORT void* numaheap_malloc_on_node_strict(size_t size, int node) {
  const numaheap_placement placement = {NUMAHEAP_ON_NODE, node, NUMAHEAP_ALLOC_STRICT};
  return numaheap_alloc(size, 0, &placement);
}

NH_EXPORT void* numaheap_malloc_interleaved(size_t size) {
  const numaheap_placement placement = {NUMAHEAP_INTERLEAVED, -1, 0};
  return numaheap_alloc(size, 0, &placement);
}

NH_EXPORT void* numaheap_malloc_first_touch(size_t size) {
  const numaheap_placement placement = {NUMAHEAP_FIRST_TOUCH, -1, 0};
  return numaheap_alloc(size, 0, &placement);
}

NH_EXPORT void* numaheap_malloc_local(size_t size) {
  const numaheap_placement placement = {NUMAHEAP_LOCAL, -1, 0};
  return numaheap_alloc(size, 0, &placement);
}

// ---- nodes -------------------------------------------------------------------------------------------------------

// Whoever allocates on each node in turn does not mean devices. They are listed where there is nothing else.
static NodeSet listed_nodes() {
  const Topology& topology = g_process.topology;
  NodeSet listed = g_process.nearest.nodes;
  for (unsigned h = 0; h < topology.heap_count(); h++) {
    if (topology.node(h).kind == NodeKind::kDevice) listed.remove(topology.node(h).node());
  }
  return listed.empty() ? g_process.nearest.nodes : listed;
}

NH_EXPORT unsigned numaheap_node_count() { return ensure_started() ? listed_nodes().count() : 0; }

NH_EXPORT int numaheap_node_id(unsigned index) {
  if (index >= numaheap_node_count()) {
    errno = EINVAL;
    return -1;
  }
  const NodeSet nodes = listed_nodes();
  NodeId node = nodes.first();
  while (index-- > 0) node = nodes.next(NodeId(node.value + 1));
  return node.value;
}

NH_EXPORT int numaheap_local_node() {
  if (ensure_started()) return g_process.topology.node_of_heap(nearest_heap()).value;
  errno = ENOMEM;
  return -1;
}

NH_EXPORT int numaheap_node_of(const void* p) {
  const void* page = reinterpret_cast<const void*>(align_down(address(p), kOsPageSize));
  int node = -1;
  int error = linux_os().nodes_of(&page, 1, &node);
  if (error == 0 && node >= 0) return node;
  if (error == 0) error = -node;
  // The kernel says the same of memory that was only read so far (the zero page) and of none at all.
  if (error == EFAULT && page_state(page) != PageState::kUnmapped) error = ENOENT;
  errno = error;
  return -1;
}
