// The memory's part of the start: address space, one heap per node and the two of the whole machine, who helps whom.
#include <sys/resource.h>

#include "base/bits.h"
#include "process/start.h"

namespace nh {
namespace {

constexpr std::size_t kSmallestRegion = kArenaSize;
constexpr std::size_t kUsualRegion = 256 * GiB;
constexpr std::size_t kMostAddressSpace = 16 * TiB;

// One heap per node, the first-touch heap, the interleaved heap.
unsigned heap_count(const Process& p) { return p.topology.heap_count() + 2; }

std::size_t wanted_region(const Options& options, const Topology& topology, unsigned regions) {
  if (options.region != 0) return std::size_t{1} << log2_ceil(options.region < kArenaSize ? kArenaSize : options.region);
  std::uint64_t memory = 0;
  for (unsigned i = 0; i < topology.node_count(); i++) memory += topology.node(i).memory_bytes;
  std::size_t region = kUsualRegion;
  while (region < 4 * memory) region *= 2;
  while (region * regions > kMostAddressSpace && region > kSmallestRegion) region /= 2;
  // Where address space is limited, half of it is left to the program's own mappings.
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    while (region * regions > limit.rlim_cur / 2 && region > kSmallestRegion) region /= 2;
  }
  return region;
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

bool init_heap(Process& p, HeapId id, const InheritedPolicy& inherited) {
  const Topology& topology = p.topology;
  const bool many = topology.heap_count() > 1;
  MHeap::Config config;
  config.id = id;
  config.cpus = topology.possible_cpu_limit();
  config.backing.huge_pages = p.options.hugepages;
  config.backing.source = huge_source(p.options);
  config.backing.strict = p.bound;
  const NodeSet allowed = topology.allowed_nodes(false);
  if (id < p.first_touch) {
    config.node = topology.node_of_heap(id);
    config.backing.nodes = NodeSet::of(config.node);
    config.backing.bind = config.bind_metadata = many;
  } else if (id == p.first_touch) {
    config.whole_units = true;
    config.backing.first_touch = true;
    config.backing.has_small_unit = false;
    config.backing.policy_places = inherited.is_set();
    config.backing.nodes = allowed;
    // The kernel reserves in the machine's pools as a whole: that proves something only where no node is left out.
    config.backing.reservation_counts = !inherited.is_set() && allowed.count() == topology.heap_count();
  } else {
    config.backing.nodes = p.placement.kind == PlacementKind::kInterleave ? p.placement.nodes : interleaved_nodes(p);
    config.backing.bind = many;
    config.backing.bind_mode = BindMode::kInterleave;
  }
  return p.heaps[id].heap.init(linux_os(), p.space, config);
}

void set_fallbacks(Process& p, HeapId id) {
  NodeHeap& n = p.heaps[id];
  const Topology& t = p.topology;
  n.fallbacks = 0;
  n.serves_all_nodes = id >= p.first_touch;
  const unsigned from = n.serves_all_nodes ? 0 : id.value;
  for (unsigned rank = 0; rank < t.allowed_heap_count(); rank++) {
    const HeapId other = t.fallback(from, rank);
    if (p.bound && !p.placement.nodes.has(t.node_of_heap(other))) continue;
    if (other != id && n.fallbacks < kMaxNodes) n.fallback[n.fallbacks++] = static_cast<std::uint16_t>(other.value);
  }
  if (p.bound) return;
  // The last resort where one region is used up: the address space of the others.
  for (const HeapId other : {p.first_touch, p.interleaved}) {
    if (other != id && n.fallbacks < kMaxNodes) n.fallback[n.fallbacks++] = static_cast<std::uint16_t>(other.value);
  }
}

}  // namespace

bool set_up_address_space(Process& p) {
  AddressSpace::Config space;
  space.regions = heap_count(p);
  space.region_bytes = wanted_region(p.options, p.topology, space.regions);
  space.min_region_bytes = kSmallestRegion;
  return p.space.init(linux_os(), space);
}

bool set_up_heaps(Process& p, const InheritedPolicy& inherited) {
  const OsOps& os = linux_os();
  const unsigned nodes = p.topology.heap_count();
  const unsigned count = heap_count(p);
  p.first_touch = HeapId(nodes);
  p.interleaved = HeapId(nodes + 1);
  const std::size_t bytes = align_up(count * sizeof(NodeHeap), kOsPageSize);
  void* memory = os.reserve(bytes, kOsPageSize);
  if (memory == nullptr || os.make_writable(memory, bytes) != 0) return false;
  os.advise_thp(memory, bytes, false);
  auto* heaps = static_cast<NodeHeap*>(memory);
  // Each on its node, though it is this thread that writes to all of them first. A refusal is said by the first arena.
  for (unsigned i = 0; nodes > 1 && i < nodes; i++) {
    os.bind(&heaps[i], sizeof(NodeHeap), BindMode::kPreferred, NodeSet::of(p.topology.node_of_heap(HeapId(i))));
  }
  p.heaps.init(heaps, count, &p.space);
  p.heaps.set_home_of_cpu(home_of_cpu);
  for (unsigned i = 0; i < count; i++) {
    if (!init_heap(p, HeapId(i), inherited)) return false;
    set_fallbacks(p, HeapId(i));
  }
  return true;
}

}  // namespace nh
