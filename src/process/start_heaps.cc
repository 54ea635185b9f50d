// The memory's part of the start: address space, one heap per node and those of the whole machine, their twins, who helps
// whom.
#include "base/bits.h"
#include "process/large_home.h"
#include "process/start.h"

namespace nh {
namespace {

// The window of address space: twice the memory, since what was freed leaves gaps, and as much as programs take that
// allocate far more than they touch.
constexpr std::size_t kLeastWindow = 16 * TiB;
constexpr std::size_t kMostWindow = 48 * TiB;
// Where processes have less address space than usual.
constexpr std::size_t kSmallestWindow = 64 * GiB;

NodeSet fast_nodes(const Process& p) {
  NodeSet fast;
  for (unsigned h = 0; h < p.topology.heap_count(); h++) {
    const NodeInfo& node = p.topology.node(h);
    if (node.kind == NodeKind::kFast && p.nearest.nodes.has(node.node())) fast.add(node.node());
  }
  return fast;
}

// One heap per node, the first-touch heap, those that spread memory; and a twin of each.
void number_heaps(Process& p) {
  unsigned next = p.topology.heap_count();
  p.first_touch = HeapId(next++);
  p.interleaved = HeapId(next++);
  p.weighted = p.topology.heap_count() > 1 ? HeapId(next++) : p.interleaved;
  p.interleaved_fast = fast_nodes(p).count() > 1 ? HeapId(next++) : p.interleaved;
  p.originals = next;
}
unsigned heap_count(const Process& p) { return 2 * p.originals; }

std::size_t wanted_window(const Topology& topology) {
  std::uint64_t memory = 0;
  for (unsigned i = 0; i < topology.node_count(); i++) memory += topology.node(i).memory_bytes;
  const std::size_t wanted = align_up(2 * memory, TiB);
  return wanted < kLeastWindow ? kLeastWindow : wanted > kMostWindow ? kMostWindow : wanted;
}

HugeSource huge_source(const Options& o) {
  if (o.shared) return HugeSource::kSharedFile;
  if (o.huge_source == HugeSourceOption::kHugetlbfs || !o.hugetlbfs.empty()) return HugeSource::kHugetlbfs;
  return o.huge_source == HugeSourceOption::kMemfd ? HugeSource::kMemfd : HugeSource::kAnonymous;
}

// Where no policy says otherwise: the nodes that requests may name, without the memory-only ones if there are others.
NodeSet interleaved_nodes(const Process& p) {
  NodeSet ordinary = p.topology.allowed_nodes(false);
  for (NodeId n = ordinary.first(); n.valid(); n = ordinary.next(NodeId(n.value + 1))) {
    if (!p.nearest.nodes.has(n)) ordinary.remove(n);
  }
  return ordinary.empty() ? p.nearest.nodes : ordinary;
}

// UINT64_MAX where it is not known.
std::uint64_t memory_of(const Topology& topology, const NodeSet& nodes) {
  std::uint64_t sum = 0;
  for (unsigned i = 0; i < topology.node_count(); i++) {
    if (!nodes.has(topology.node(i).node())) continue;
    if (topology.node(i).memory_bytes == 0) return UINT64_MAX;
    sum += topology.node(i).memory_bytes;
  }
  return sum;
}

// Of a twin the heap that it is the twin of.
HeapId original_of(const Process& p, HeapId id) {
  return id.value >= p.originals ? HeapId(id.value - p.originals) : id;
}

// A heap's own data lies on its node, but for memory of devices, where there is to be nothing that nobody asked for.
bool keeps_own_data(const Topology& topology, HeapId node_heap) {
  return topology.node(node_heap.value).kind != NodeKind::kDevice;
}

void init_heap(Process& p, HeapId id, const InheritedPolicy& inherited) {
  const Topology& topology = p.topology;
  const bool many = topology.heap_count() > 1;
  MHeap::Config config;
  config.id = id;
  config.cpus = topology.possible_cpu_limit();
  Backer::Config& backing = config.backing;
  backing.huge_pages = p.options.hugepages;
  backing.source = huge_source(p.options);
  backing.strict = p.bound;
  const HeapId like = original_of(p, id);
  if (like < p.first_touch) {
    backing.kind = HeapKind::kNode;
    config.node = topology.node_of_heap(like);
    config.bind_metadata = many && keeps_own_data(topology, like);
    backing.nodes = NodeSet::of(config.node);
    if (many) backing.policy = BindMode::kBind;
  } else if (like == p.first_touch) {
    backing.kind = like == id ? HeapKind::kFirstTouch : HeapKind::kTouchedPages;
    backing.policy_places = policy_places(inherited);
    backing.nodes = topology.allowed_nodes(false);
    backing.serving = p.nearest.nodes;
    backing.keeps_to_nodes = topology.leaves_out_nodes();
    // The kernel reserves in the machine's pools as a whole: that proves something only where no node is left out.
    backing.cpuset_limits = topology.requestable_nodes().count() != topology.heap_count();
    backing.reservations_hold = !inherited.is_set() && !backing.keeps_to_nodes && !backing.cpuset_limits;
  } else {
    backing.kind = HeapKind::kInterleaved;
    const bool by_kernel = like == p.weighted && kernel_has_weights();
    if (many) backing.policy = by_kernel ? BindMode::kWeighted : BindMode::kInterleave;
    if (like == p.interleaved) {
      backing.nodes = p.placement.kind == PlacementKind::kInterleave ? p.placement.nodes : interleaved_nodes(p);
    } else if (like == p.weighted) {
      backing.nodes = p.weighted_nodes;
      if (p.turns.count != 0) backing.turns = &p.turns;
    } else {
      backing.nodes = fast_nodes(p);
    }
  }
  if (like != id && like != p.first_touch) backing.kind = HeapKind::kPaged;
  backing.most_bytes = memory_of(topology, backing.serving.empty() ? backing.nodes : backing.serving);
  p.heaps[id].heap.init(linux_os(), p.space, config);
}

void set_fallbacks(Process& p, HeapId id) {
  NodeHeap& n = p.heaps[id];
  const Topology& t = p.topology;
  n.fallbacks = 0;
  const bool touched = original_of(p, id) == p.first_touch;
  n.serves_all_nodes = touched || (id >= p.first_touch && id.value < p.originals);
  // Twins help twins.
  const unsigned first = id.value < p.originals || touched ? 0 : p.originals;
  const unsigned from = id.value - first < t.heap_count() ? id.value - first : 0;
  for (unsigned rank = 0; rank < t.heap_count(); rank++) {
    const HeapId other = t.fallback(from, rank);
    // A binding names nodes: they help each other, of whatever kind they are.
    if (p.bound ? !p.placement.nodes.has(t.node_of_heap(other)) : rank >= t.fallback_count(from)) continue;
    const unsigned helper = first + other.value;
    if (helper != id.value && n.fallbacks < kMaxNodes) n.fallback[n.fallbacks++] = static_cast<std::uint16_t>(helper);
  }
}

}  // namespace

void set_up_fallbacks(Process& p) {
  for (unsigned i = 0; i < heap_count(p); i++) set_fallbacks(p, HeapId(i));
}

bool set_up_address_space(Process& p) {
  number_heaps(p);
  AddressSpace::Config config;
  config.heaps = heap_count(p);
  for (config.bytes = wanted_window(p.topology); config.bytes >= kSmallestWindow; config.bytes /= 4) {
    config.heap_table_bytes = HeapArenas::table_bytes(config.bytes);
    if (p.space.init(linux_os(), config)) return true;
  }
  return false;
}

bool set_up_heaps(Process& p, const InheritedPolicy& inherited) {
  const OsOps& os = linux_os();
  const unsigned nodes = p.topology.heap_count();
  const unsigned count = heap_count(p);
  const std::size_t bytes = align_up(count * sizeof(NodeHeap), kOsPageSize);
  void* memory = os.reserve(bytes, kOsPageSize);
  if (memory == nullptr || os.make_writable(memory, bytes) != 0) return false;
  os.advise_thp(memory, bytes, false);
  auto* heaps = static_cast<NodeHeap*>(memory);
  // Each on its node, though it is this thread that writes to all of them first. A refusal is said by the first arena.
  for (unsigned i = 0; nodes > 1 && i < count; i++) {
    const HeapId like = original_of(p, HeapId(i));
    if (!(like < p.first_touch) || !keeps_own_data(p.topology, like)) continue;
    os.bind(&heaps[i], sizeof(NodeHeap), BindMode::kPreferred, NodeSet::of(p.topology.node_of_heap(like)));
  }
  p.heaps.init(heaps, count, &p.space);
  p.heaps.set_home_of_cpu(home_of_cpu);
  p.heaps.set_helpers(helpers_of);
  for (unsigned i = 0; i < count; i++) init_heap(p, HeapId(i), inherited);
  set_up_fallbacks(p);
  return true;
}

}  // namespace nh
