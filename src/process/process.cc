#include "process/process.h"

#include <cerrno>
#include <cstdint>

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

#include "process/upkeep.h"
#include "base/bits.h"
#include "base/check.h"
#include "base/scan.h"
#include "central/free_mark.h"
#include "numa/hwloc_topology.h"
#include "numa/sysfs_topology.h"
#include "numa/topology_text.h"
#include "large/route.h"
#include "os/procfs.h"

namespace nh {

constinit Process g_process;

namespace {

enum class State : int { kNone, kReady, kFailed };
std::atomic<State> g_state{State::kNone};
Lock g_start_lock{LockRank::kInit};

constexpr std::size_t kSmallestRegion = kArenaSize;
constexpr std::size_t kUsualRegion = 256 * GiB;
constexpr std::size_t kMostAddressSpace = 16 * TiB;

// The environment, from libc where it has one, else as the kernel gave it. NUMAHEAP_ variables that begin after the
// first 64 KiB of a /proc environment are missed.
void read_options(Options* options, OptionProblems* problems) {
  const bool secure = getauxval(AT_SECURE) != 0;
  if (environ != nullptr) return parse_options(environ, secure, options, problems);
  static char text[64 * KiB];
  static const char* list[64];
  const long n = read_file("/proc/self/environ", text, sizeof text);
  unsigned count = 0;
  for (long at = 0; at < n && count < 63;) {
    const std::string_view variable(text + at);
    if (head(variable, 9) == "NUMAHEAP_") list[count++] = text + at;
    at += static_cast<long>(variable.size()) + 1;
  }
  parse_options(list, secure, options, problems);
}

void load_topology(const Options& options, Topology* topology) {
  // Only our own form can be read this early. Files and synthetic descriptions take hwloc, which allocates: they are for
  // the tool, which hands them on in our form.
  if (!options.topology.empty()) {
    Text<200> why;
    const std::string_view text(options.topology.text);
    if (kind_of_description(text.data()) == TopologyDescription::kSerialised &&
        load_serialised_topology(text, SysfsRoot(), topology, &why)) return;
    Text<400> line;
    line.text("NUMAHEAP_TOPOLOGY cannot be used by a program itself");
    if (why.size() != 0) line.text(" (").text(why.view()).ch(')');
    line.text("; the machine's own topology counts (`numaheap run` hands descriptions on)");
    if (!options.quiet) warn_line(line.c_str());
  }
  load_sysfs_topology(SysfsRoot(), topology);
}

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
  const unsigned from = id.value < t.heap_count() ? id.value : 0;
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

HeapId heap_of_cpu(CpuId cpu) {
  const Process& p = g_process;
  if (p.placement.kind == PlacementKind::kLocal) return p.topology.heap_of_cpu(cpu);
  if (p.placement.kind == PlacementKind::kInterleave) return p.interleaved;
  return first_heap(p.placement, p.topology, cpu, 0);  // nothing takes turns here
}

CacheMode start_rseq(const Options& options) {
  if (options.cpu_cache == 0) return CacheMode::kOff;
  if (options.rseq == RseqOption::kOff) return CacheMode::kFallback;
  switch (rseq_init()) {
    case RseqMode::kGlibc: return CacheMode::kRseq;
    case RseqMode::kOwn: return CacheMode::kOwnRseq;
    case RseqMode::kOff: return CacheMode::kFallback;
  }
  return CacheMode::kFallback;
}

// Which sizes the CPU caches are asked for.
void route_large_objects() {
  const HeapId heap = heap_for_large(SIZE_MAX);
  // Under NUMAHEAP_POLICY=interleave every CPU's own heap is the interleaved one.
  const bool own = heap != g_process.first_touch && (heap != g_process.interleaved || heap_for_large(0) == heap);
  g_large_route.bin_max = own || g_process.large_min > kMaxBinBytes ? kMaxBinBytes : g_process.large_min - 1;
  if (heap != g_process.first_touch) return;
  g_large_route.extent_min = g_process.large_min;
  g_large_route.extent_max = kMaxKeptUnits * kHugeSize;
}

bool start() {
  Process& p = g_process;
  static OptionProblems problems;
  read_options(&p.options, &problems);
  const OsOps& os = linux_os();
  if (!p.options.hugetlbfs.empty()) {
    OsConfig config;
    static_assert(sizeof config.hugetlbfs_path == sizeof p.options.hugetlbfs.text);
    __builtin_memcpy(config.hugetlbfs_path, p.options.hugetlbfs.text, sizeof config.hugetlbfs_path);
    configure_linux_os(config);
  }
  set_lock_waiter({[](std::atomic<std::uint32_t>* word, std::uint32_t value) { linux_os().futex_wait(word, value, 0); },
                   [](std::atomic<std::uint32_t>* word) { linux_os().futex_wake(word, 1); }});
  set_fallback_quiet(p.options.quiet);
  if (report_option_problems(p.options, problems)) ::_exit(2);

  // 16 random bytes from the kernel; a fork child keeps the key, exec draws a new one.
  if (const auto* random = reinterpret_cast<const std::uint64_t*>(getauxval(AT_RANDOM)); random != nullptr) {
    g_free_key = (random[0] ^ (random[1] << 1)) | 1;
  } else {
    g_free_key = (os.now_ns() * 0x9e3779b97f4a7c15u) | 1;
  }

  load_topology(p.options, &p.topology);
  InheritedPolicy inherited;
  if (p.topology.heap_count() > 1) inherited = read_inherited_policy();
  Text<300> problem;
  p.placement = settle_placement(p.options.policy, p.options.given(OptionId::kPolicy), inherited, p.topology, &problem);
  if (problem.size() != 0 && !p.options.quiet) warn_line(problem.c_str());
  p.bound = p.placement.kind == PlacementKind::kBind;
  p.no_other_node = p.bound && p.placement.nodes.count() == 1;
  p.nearest.kind = PlacementKind::kPreferred;
  p.nearest.nodes = nodes_for_requests(p.placement, inherited, p.topology);
  p.large_min = p.options.large_min;

  const unsigned nodes = p.topology.heap_count();
  const unsigned count = nodes + 2;
  p.first_touch = HeapId(nodes);
  p.interleaved = HeapId(nodes + 1);
  AddressSpace::Config space;
  space.regions = count;
  space.region_bytes = wanted_region(p.options, p.topology, count);
  space.min_region_bytes = kSmallestRegion;
  if (!p.space.init(os, space)) return false;

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
  p.heaps.set_home_of_cpu([](CpuId cpu) { return g_process.topology.heap_of_cpu(cpu); });
  for (unsigned i = 0; i < count; i++) {
    if (!init_heap(p, HeapId(i), inherited)) return false;
    set_fallbacks(p, HeapId(i));
  }

  CacheConfig cache;
  // The fast path indexes its slots by the kernel's cpu_id without looking at it. The topology may know fewer CPUs: /sys
  // is missing in many a container, and a description may be of another machine.
  const unsigned kernel_cpus = cpu_number_limit();
  cache.cpus = p.topology.possible_cpu_limit();
  if (cache.cpus < kernel_cpus) cache.cpus = kernel_cpus;
  cache.bytes_per_cpu = p.options.cpu_cache;
  cache.strict = p.no_other_node;
  // Extents that got into that heap because another had no address space left are not asked for again.
  if (heap_for_large(SIZE_MAX) == p.first_touch) cache.extent_heap = p.first_touch.value;
  if (!g_caches.init(os, p.heaps, cache, heap_of_cpu)) return false;
  const CacheMode mode = start_rseq(p.options);
  g_caches.set_mode(mode);
  // While the process has one thread this is cheap; later it would take milliseconds.
  if (mode == CacheMode::kRseq || mode == CacheMode::kOwnRseq) g_caches.set_fences(membarrier_rseq_register() == 0);
  route_large_objects();
  return true;
}

}  // namespace

bool started() { return g_state.load(std::memory_order_acquire) == State::kReady; }

bool ensure_started() {
  const State state = g_state.load(std::memory_order_acquire);
  if (state != State::kNone) return state == State::kReady;
  // A hook in place of mmap that calls malloc while this thread is starting is refused: nobody else could go on.
  if (g_start_lock.held_by_me()) return false;
  LockGuard guard(g_start_lock);
  if (g_state.load(std::memory_order_relaxed) != State::kNone) return started();
  const int saved = errno;
  const bool ok = start();
  errno = saved;
  if (!ok) warn_line("no address space for the heap (ulimit -v?); every allocation will fail");
  g_state.store(ok ? State::kReady : State::kFailed, std::memory_order_release);
  return ok;
}

NodeId current_node() {
  const Topology& t = g_process.topology;
  return t.node_of_heap(t.heap_of_cpu(g_caches.current_cpu()));
}

HeapId heap_for_large(std::size_t bytes) {
  const Process& p = g_process;
  if (bytes >= p.large_min) {
    switch (p.options.large) {
      case LargeOption::kFirstTouch:
        // A placement that was asked for by name counts for large objects too, unless NUMAHEAP_LARGE was given.
        if (p.placement.kind != PlacementKind::kLocal && !p.placement.inherited && !p.options.given(OptionId::kLarge)) break;
        return p.first_touch;
      case LargeOption::kInterleave: return p.interleaved;
      case LargeOption::kLocal: break;
    }
  }
  return heap_of_cpu(g_caches.current_cpu());
}

// Before the program's own constructors where the linker lets us; the first allocation may have come earlier still.
[[gnu::constructor(101)]] static void construct() {
  if (!ensure_started()) return;
  start_upkeep();
}

}  // namespace nh
