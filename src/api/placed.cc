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

struct Request {
  std::size_t size = 0;
  std::size_t alignment = 0;  // 0 = what malloc promises
  HeapId heap;
  bool strict = false;
  bool zero = false;
  bool noscan = false;
};

// 0 or an errno value.
int find_heap(const numaheap_placement& placement, std::size_t size, HeapId* heap) {
  const Process& p = g_process;
  switch (placement.where) {
    case NUMAHEAP_LOCAL:
      *heap = nearest_heap();
      return 0;
    case NUMAHEAP_ON_NODE: {
      const NodeId node(placement.node);
      if (!p.topology.heap_of_node(node, heap)) return EINVAL;
      return p.nearest.nodes.has(node) ? 0 : EPERM;
    }
    case NUMAHEAP_INTERLEAVED:
      *heap = p.interleaved;
      return 0;
    case NUMAHEAP_FIRST_TOUCH:
      if ((placement.flags & NUMAHEAP_ALLOC_STRICT) != 0) return EINVAL;
      // Smaller objects share their pages: the first to write to one of them would place the others as well.
      *heap = size > kMaxSmallSize ? first_touch_heap(size) : nearest_heap();
      return 0;
  }
  return EINVAL;
}

// The class of a small request; 0 where it takes a span of its own. The least are 16 bytes, which have room for a mark.
SpanClass class_for(const Request& r) {
  if (r.size > kMaxSmallSize) return {};
  const std::size_t size = r.size < 16 ? 16 : r.size;
  if (r.noscan && r.alignment <= 8) return make_placed(noscan_class_for(size));
  const SpanClass c = class_for_aligned(size, r.alignment < 16 ? 16 : r.alignment, r.noscan);
  return c.none() ? c : make_placed(c);
}

void* allocate_small(const Request& r, SpanClass c, bool strict) {
  void* p = g_caches.alloc_from(r.heap, c, strict);
  if (p == nullptr) return nullptr;
  unmark(p);
  return r.zero ? std::memset(p, 0, r.size) : p;
}

void* allocate_large(const Request& r, bool strict) {
  if (r.size > PTRDIFF_MAX) return nullptr;
  HeapSet& heaps = g_process.heaps;
  const std::size_t alignment = r.alignment < kPageSize ? kPageSize : r.alignment;
  MSpan* span =
      heaps.alloc_large(r.heap, r.size == 0 ? 1 : r.size, alignment, r.noscan, strict, current_node(), LargeUse::kPlaced);
  if (span == nullptr) return nullptr;
  if (r.zero && !heaps[HeapId(span->heap)].heap.clear_large(span)) {
    heaps.free_large(span);
    return nullptr;
  }
  return reinterpret_cast<void*>(span->start_addr);
}

// Null where there is no memory. errno is kept.
void* allocate_placed(const Request& r) {
  const bool strict = r.strict || g_process.no_other_node;
  const SpanClass c = class_for(r);
  const auto allocate = [&] { return !c.none() ? allocate_small(r, c, strict) : allocate_large(r, strict); };
  void* p = allocate();
  if (p != nullptr) return p;
  // What CPUs keep is memory, too. Programs try a full node again and again before they go elsewhere: a strict request
  // costs the CPUs their large objects only.
  if (!strict) {
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

void* allocate_beside(const MSpan& span, std::size_t size) {
  Request r;
  r.size = size;
  r.heap = HeapId(span.heap);
  r.noscan = span.noscan();
  const bool first_touch = r.heap == g_process.first_touch || r.heap == paged_twin(g_process.first_touch);
  if (first_touch && size <= kMaxSmallSize) r.heap = nearest_heap();
  void* p = allocate_placed(r);
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
  Request r;
  r.size = size;
  r.alignment = alignment;
  r.strict = (placement->flags & NUMAHEAP_ALLOC_STRICT) != 0;
  r.zero = (placement->flags & NUMAHEAP_ALLOC_ZERO) != 0;
  r.noscan = (placement->flags & NUMAHEAP_ALLOC_NOSCAN) != 0;
  if (const int error = find_heap(*placement, size, &r.heap); error != 0) return fail(error);
  void* p = allocate_placed(r);
  if (p == nullptr) return fail(ENOMEM);
  if (r.strict && r.heap < g_process.first_touch) {
    if (const int error = prove_node(p, size, r.heap); error != 0) {
      release(p);
      return fail(error);
    }
  }
  return p;
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
