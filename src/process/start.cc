// The start of the heap as a list of steps. What lies in memory of its own is in start_heaps.cc.
#include "process/start.h"

#include <cerrno>
#include <cstdint>

#include <linux/magic.h>
#include <sys/auxv.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/check.h"
#include "base/scan.h"
#include "base/stderr.h"
#include "central/free_mark.h"
#include "numa/hwloc_topology.h"
#include "numa/topology_text.h"
#include "os/procfs.h"
#include "os/random.h"
#include "process/large_home.h"
#include "process/live_block.h"

namespace nh {
namespace {

// The environment, from libc where it has one, else as the kernel gave it. NUMAHEAP_ variables that begin after the
// first 64 KiB of a /proc environment are missed.
void parse_environment(Options* options, OptionProblems* problems) {
  const bool secure = getauxval(AT_SECURE) != 0;
  if (environ != nullptr) return parse_options(environ, secure, options, problems);
  // Kept, since options point into it.
  constexpr std::size_t kMost = 64 * KiB;
  auto* const text = static_cast<char*>(linux_os().reserve(kMost, kOsPageSize));
  if (text == nullptr || linux_os().make_writable(text, kMost) != 0) return;
  static const char* list[64];
  const long n = read_file("/proc/self/environ", text, kMost);
  unsigned count = 0;
  for (long at = 0; at < n && count < 63;) {
    const std::string_view variable(text + at);
    if (head(variable, 9) == "NUMAHEAP_") list[count++] = text + at;
    at += static_cast<long>(variable.size()) + 1;
  }
  parse_options(list, secure, options, problems);
}

// Mistakes are said; under NUMAHEAP_STRICT they end the process.
void read_options(Options* options) {
  static OptionProblems problems;
  parse_environment(options, &problems);
  set_fallback_quiet(options->quiet);
  if (report_option_problems(*options, problems)) ::_exit(2);
}

void set_up_os(const Options& options) {
  if (!options.hugetlbfs.empty()) {
    OsConfig config;
    static_assert(sizeof config.hugetlbfs_path == sizeof options.hugetlbfs.text);
    __builtin_memcpy(config.hugetlbfs_path, options.hugetlbfs.text, sizeof config.hugetlbfs_path);
    configure_linux_os(config);
  }
  const auto wait = [](std::atomic<std::uint32_t>* word, std::uint32_t value) {
    constexpr std::uint64_t kLongestSleepNs = 100'000'000;
    linux_os().futex_wait(word, value, kLongestSleepNs);
  };
  set_lock_waiter({wait, [](std::atomic<std::uint32_t>* word) { linux_os().futex_wake(word, 1); }});
}

// What the heaps would say only when they need the pages: under NUMAHEAP_STRICT it is found out now.
void refuse_missing_pages(const Options& options) {
  if (!options.strict) return;
  if (struct statfs mount; !options.hugetlbfs.empty() &&
      (::statfs(options.hugetlbfs.c_str(), &mount) != 0 || mount.f_type != HUGETLBFS_MAGIC)) {
    cannot_honour(options, "NUMAHEAP_HUGETLBFS: no hugetlbfs is mounted in that directory");
  }
  const auto has_pool = [](std::size_t page_bytes) {
    HugePool pool;
    return linux_os().huge_pool(page_bytes, NodeId(), &pool) && pool.total + pool.overcommit != 0;
  };
  switch (options.hugepages) {
    case HugePagesOption::k2M:
      if (!has_pool(kHugeSize)) cannot_honour(options, "NUMAHEAP_HUGEPAGES=2m: the machine has no huge pages of 2 MiB");
      return;
    case HugePagesOption::k1G:
      if (!has_pool(GiB)) cannot_honour(options, "NUMAHEAP_HUGEPAGES=1g: the machine has no huge pages of 1 GiB");
      return;
    case HugePagesOption::kThp:
      if (linux_os().thp_mode() == 0) cannot_honour(options, "NUMAHEAP_HUGEPAGES=thp: transparent huge pages are off");
      return;
    case HugePagesOption::kAuto:
    case HugePagesOption::kOff: return;
  }
}

// A fork child keeps the key, exec draws a new one. Odd, so that no mark is a null pointer or the address of an object.
void draw_free_key() { g_free_key = random_word() | 1; }

void load_topology(const Options& options, Topology* topology) {
  // Only our own form can be read this early. Files and synthetic descriptions take hwloc, which allocates: they are for
  // the tool, which hands them on in our form.
  if (!options.topology.empty() && !is_of_another_machine(options.topology.text, SysfsRoot())) {
    Text<200> why;
    const std::string_view text(options.topology.text);
    if (kind_of_description(text.data()) == TopologyDescription::kSerialised &&
        load_serialised_topology(text, SysfsRoot(), topology, &why)) return;
    Text<400> line;
    line.text("NUMAHEAP_TOPOLOGY cannot be used by a program itself");
    if (why.size() != 0) line.text(" (").text(why.view()).ch(')');
    line.text("; the machine's own topology counts (`numaheap run` hands descriptions on)");
    cannot_honour(options, line.c_str());
  }
  load_sysfs_topology(SysfsRoot(), topology);
}

void find_topology(const Options& options, Topology* topology) {
  topology->leave_out(nodes_left_out(options.nodes));
  load_topology(options, topology);
  Text<300> problem;
  if (!settle_nodes(options.nodes, *topology, &problem)) {
    topology->leave_out(NodeSet());
    load_topology(options, topology);
  }
  if (problem.size() != 0) cannot_honour(options, problem.c_str());
  if (!topology->truncated() || options.quiet) return;
  problem.clear();
  problem.text("the machine has more than ").dec(kMaxNodes).text(" nodes or ").dec(kMaxCpus);
  problem.text(" CPUs; the nodes beyond are left out, and their CPUs use the nearest of the others");
  warn_line(problem.c_str());
}

InheritedPolicy settle_policy(Process& p) {
  InheritedPolicy inherited;
  if (p.topology.heap_count() > 1) inherited = read_inherited_policy();
  Text<300> problem;
  p.placement = settle_placement(p.options.policy, p.options.given(OptionId::kPolicy), inherited, p.topology, &problem);
  if (problem.size() != 0) cannot_honour(p.options, problem.c_str());
  p.bound = p.placement.kind == PlacementKind::kBind;
  const bool ordered = p.placement.kind >= PlacementKind::kBind;
  p.help = p.bound && p.placement.nodes.count() == 1 ? Help::kNobody : ordered ? Help::kPolicy : Help::kNeighbours;
  p.nearest.kind = PlacementKind::kPreferred;
  p.nearest.nodes = nodes_for_requests(p.placement, inherited, p.topology);
  return inherited;
}

// What NUMAHEAP_LARGE asks for and this machine does not have.
void settle_large(Process& p) {
  if (p.options.large.kind < LargeKind::kBandwidth || differ(p.nearest.nodes, p.topology)) return;
  Text<200> problem;
  problem.text("NUMAHEAP_LARGE=");
  write_large(problem, p.options.large);
  problem.text(": the memory that this process may use is all of one kind (`numaheap topo`); large objects lie as by default");
  cannot_honour(p.options, problem.c_str());
  p.options.large = LargeOption();
  p.options.forget(OptionId::kLarge);
}

void settle_weights(Process& p) {
  p.weighted_nodes = p.placement.nodes;
  if (p.placement.kind != PlacementKind::kWeighted) {
    // All that requests may name, but memory of devices if there is other.
    p.weighted_nodes = p.nearest.nodes;
    const NodeSet usual = p.topology.allowed_nodes(true);
    for (NodeId n = p.nearest.nodes.first(); n.valid(); n = p.nearest.nodes.next(NodeId(n.value + 1))) {
      if (!usual.has(n) && p.weighted_nodes.count() > 1) p.weighted_nodes.remove(n);
    }
  }
  if (p.topology.heap_count() == 1 || kernel_has_weights()) return;
  if (turns_by_bandwidth(p.weighted_nodes, p.topology, &p.turns)) return;
  const bool policy = p.options.given(OptionId::kPolicy) && p.options.policy.kind == PolicyKind::kWeighted;
  if (!policy && p.options.large.kind != LargeKind::kWeighted) return;
  Text<200> line;
  line.text(policy ? "NUMAHEAP_POLICY" : "NUMAHEAP_LARGE");
  line.text("=weighted: neither has the kernel weights (Linux 6.9) nor does the machine tell bandwidths; memory is spread evenly");
  cannot_honour(p.options, line.c_str());
}

CacheMode start_rseq(const Options& options) {
  if (options.cpu_cache == 0) return CacheMode::kOff;
  if (options.rseq == RseqOption::kOff) return CacheMode::kFallback;
  const bool own = options.rseq == RseqOption::kOwn;
  const RseqMode mode = rseq_init(own);
  if (own && mode == RseqMode::kOff) {
    cannot_honour(options, rseq_registered_by_libc()
        ? "NUMAHEAP_RSEQ=own: libc has registered restartable sequences before us, and a thread can have them once; locks are "
          "used instead. Start the program with GLIBC_TUNABLES=glibc.pthread.rseq=0, as `numaheap run` does"
        : "NUMAHEAP_RSEQ=own: the kernel does not register restartable sequences for us; locks are used instead");
  }
  switch (mode) {
    case RseqMode::kGlibc: return CacheMode::kRseq;
    case RseqMode::kOwn: return CacheMode::kOwnRseq;
    case RseqMode::kOff: return CacheMode::kFallback;
  }
  return CacheMode::kFallback;
}

bool set_up_caches(Process& p) {
  CacheConfig cache;
  // The fast path indexes its slots by the kernel's cpu_id without looking at it. The topology may know fewer CPUs: /sys
  // is missing in many a container, and a description may be of another machine.
  const unsigned kernel_cpus = cpu_number_limit();
  cache.cpus = p.topology.possible_cpu_limit();
  if (cache.cpus < kernel_cpus) cache.cpus = kernel_cpus;
  cache.bytes_per_cpu = p.options.cpu_cache;
  cache.help = p.help;
  cache.twins = p.originals;
  if (has_first_touch()) {
    cache.extent_heap = p.first_touch.value;
    if (p.topology.heap_count() > 1) cache.pages_heap = paged_twin(p.first_touch).value;
  }
  if (!g_caches.init(linux_os(), p.heaps, cache, heap_of_cpu)) return false;
  const CacheMode mode = start_rseq(p.options);
  g_caches.set_mode(mode);
  // While the process has one thread this is cheap; later it would take milliseconds.
  if (mode == CacheMode::kRseq || mode == CacheMode::kOwnRseq) g_caches.set_fences(membarrier_rseq_register() == 0);
  return true;
}

}  // namespace

void cannot_honour(const Options& options, const char* line) {
  if (!options.quiet || options.strict) warn_line(line);
  if (options.strict) ::_exit(2);
}

bool start_process() {
  Process& p = g_process;
  note_stderr();
  read_options(&p.options);
  set_up_os(p.options);
  refuse_missing_pages(p.options);
  draw_free_key();
  find_topology(p.options, &p.topology);
  const InheritedPolicy inherited = settle_policy(p);
  settle_large(p);
  settle_weights(p);
  if (!set_up_address_space(p) || !set_up_heaps(p, inherited) || !set_up_caches(p)) return false;
  decide_large(inherited);
  publish_live_block();
  return true;
}

}  // namespace nh
