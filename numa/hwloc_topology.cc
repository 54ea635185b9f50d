#include "numa/hwloc_topology.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <unistd.h>

#include "base/scan.h"
#include "numa/hwloc_calls.h"
#include "numa/sysfs_memory.h"
#include "os/procfs.h"

namespace nh {
namespace {

// glibc 2.32 and later. True means that no other thread exists; false may also mean that others have ended.
extern "C" {
extern char __libc_single_threaded __attribute__((weak));
}

bool is_only_thread() {
  if (&__libc_single_threaded != nullptr && __libc_single_threaded != 0) return true;
  std::uint64_t threads = 0;
  return read_field("/proc/self/status", "Threads", &threads) && threads == 1;
}

// Replaces `environ` while hwloc reads its settings, by the caller's HWLOC_ variables and ours in front of them (getenv
// takes the first). setenv would allocate and leave our settings to the program and its children.
class HwlocEnvironment {
 public:
  explicit HwlocEnvironment(const char* fs_root) : saved_(::environ) {
    // A directory without plugins; the components that we need are built into the library.
    add("HWLOC_PLUGINS_PATH=/nonexistent");
    // Firmware with contradicting tables makes hwloc print a page to stderr, from every process of a job.
    add("HWLOC_HIDE_ERRORS=2");
    // Without this the nodes of GPUs are missing, and hwloc's machine is another one than the kernel's.
    add("HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES=1");
    if (fs_root[0] != '\0') {
      root_.text("HWLOC_FSROOT=").text(fs_root);
      add(root_.c_str());
    }
    for (char** variable = saved_; variable != nullptr && *variable != nullptr; variable++) {
      if (std::strncmp(*variable, "HWLOC_", 6) == 0) add(*variable);
    }
    ::environ = const_cast<char**>(list_);
  }
  ~HwlocEnvironment() { ::environ = saved_; }
  HwlocEnvironment(const HwlocEnvironment&) = delete;
  HwlocEnvironment& operator=(const HwlocEnvironment&) = delete;

 private:
  void add(const char* variable) {
    if (count_ < kMax) list_[count_++] = variable;
  }

  static constexpr unsigned kMax = 64;
  char** saved_;
  Text<512> root_;
  unsigned count_ = 0;
  const char* list_[kMax + 1] = {};
};

KindReason kind_named(const char* name) {
  if (name == nullptr) return KindReason::kNone;
  const std::string_view s(name);
  if (s == "HBM" || s == "MCDRAM") return KindReason::kHighBandwidth;
  if (s == "NVM") return KindReason::kPersistent;
  if (s == "GPUMemory") return KindReason::kGpu;
  if (head(s, 3) == "CXL") return KindReason::kCxl;
  return KindReason::kNone;
}

KindReason name_of_memory(hwloc_obj_t node) {
  KindReason named = kind_named(node->subtype);
  for (unsigned i = 0; i < node->infos_count && named == KindReason::kNone; i++) {
    const std::string_view name(node->infos[i].name), value(node->infos[i].value);
    if (name == "MemoryTier") named = kind_named(value.data());  // hwloc 2.10 and later
    if (name == "DAXType" && value == "NVM") named = KindReason::kPersistent;
    if (name == "DAXParent") named = name_of_dax(value);
  }
  return named;
}

class Loader {
 public:
  Loader(const HwlocCalls& calls, Topology* out) : calls_(calls), out_(out) {}
  ~Loader() {
    if (topology_ != nullptr) calls_.topology_destroy(topology_);
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  bool load(HwlocInput input, const char* text, TextWriter* why) {
    if (!start(input, text, why)) return false;
    out_->clear();
    add_nodes();
    if (out_->node_count() == 0) {
      why->text("hwloc found no NUMA node");
      return false;
    }
    add_cpus();
    add_performance();
    const bool distances_known = add_distances();
    // A synthetic description has no distances: go by what the nodes have in common. The machine's are never guessed.
    if (!distances_known && input != HwlocInput::kMachine) guess_distances();
    out_->finish(input == HwlocInput::kMachine ? TopologySource::kHwloc
                 : input == HwlocInput::kXml   ? TopologySource::kXml
                                               : TopologySource::kSynthetic);
    return true;
  }

 private:
  bool start(HwlocInput input, const char* text, TextWriter* why) {
    if (calls_.topology_init(&topology_) != 0) {
      topology_ = nullptr;
      why->text("hwloc cannot start");
      return false;
    }
    // Beside the device components: x86 binds the calling thread to one CPU after the other to ask each for its caches.
    for (const char* const name : {"pci", "opencl", "cuda", "nvml", "rsmi", "levelzero", "gl", "x86"}) {
      calls_.topology_set_components(topology_, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, name);
    }
    calls_.topology_set_all_types_filter(topology_, HWLOC_TYPE_FILTER_KEEP_NONE);
    // What guess_distances() looks at. (NUMA nodes and PUs cannot be filtered out.)
    calls_.topology_set_type_filter(topology_, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    calls_.topology_set_type_filter(topology_, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    // In a description a node has the CPUs of the object that it is attached to. Were that left out, it would get those
    // of the next larger one, and share them with its neighbours.
    for (const hwloc_obj_type_t type : {HWLOC_OBJ_DIE, HWLOC_OBJ_L5CACHE, HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L3CACHE,
                                        HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L1CACHE, HWLOC_OBJ_CORE}) {
      if (input == HwlocInput::kMachine) break;
      calls_.topology_set_type_filter(topology_, type, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    }
    // A cpuset may change while we run; what it forbids now is kept apart in Topology::set_allowed().
    calls_.topology_set_flags(topology_, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    if (input == HwlocInput::kXml && calls_.topology_set_xml(topology_, text) != 0) {
      why->text("hwloc cannot read the XML file");
      return false;
    }
    if (input == HwlocInput::kSynthetic && calls_.topology_set_synthetic(topology_, text) != 0) {
      why->text("hwloc does not understand the synthetic description");
      return false;
    }
    if (calls_.topology_load(topology_) != 0) {
      why->text(input == HwlocInput::kXml ? "hwloc cannot read the XML file" : "hwloc cannot load the topology");
      return false;
    }
    return true;
  }

  static NodeId id_of(hwloc_obj_t node) { return NodeId(static_cast<int>(node->os_index)); }
  hwloc_obj_t numa_node(unsigned i) { return calls_.get_obj_by_depth(topology_, HWLOC_TYPE_DEPTH_NUMANODE, i); }

  void add_nodes() {
    const auto count = static_cast<unsigned>(calls_.get_nbobjs_by_depth(topology_, HWLOC_TYPE_DEPTH_NUMANODE));
    // A description may leave sizes out altogether; that is no machine without memory.
    bool sizes_known = false;
    for (unsigned i = 0; i < count; i++) sizes_known |= numa_node(i)->attr->numanode.local_memory != 0;
    // Nodes with memory before the others, should there be too many.
    for (const bool has_memory : {true, false}) {
      for (unsigned i = 0; i < count; i++) {
        const hwloc_obj_t object = numa_node(i);
        NodeInfo node;
        node.id = static_cast<int>(object->os_index);
        node.memory_bytes = object->attr->numanode.local_memory;
        node.has_memory = !sizes_known || node.memory_bytes != 0;
        node.named = name_of_memory(object);
        if (node.has_memory == has_memory && out_->add_node(node)) nodes_[node_count_++] = object;
      }
    }
  }

  // hwloc gives a node without CPUs the CPUs near it. A CPU belongs to the node that has the fewest CPUs of those that
  // name it; among equals to the ordinary kind, then to the lower number: special memory is numbered after the rest.
  void add_cpus() {
    hwloc_obj_t by_claim[kMaxNodes];
    std::copy(nodes_, nodes_ + node_count_, by_claim);
    std::sort(by_claim, by_claim + node_count_, [this](hwloc_obj_t a, hwloc_obj_t b) {
      const int cpus_a = calls_.bitmap_weight(a->cpuset);
      const int cpus_b = calls_.bitmap_weight(b->cpuset);
      if (cpus_a != cpus_b) return cpus_a < cpus_b;
      const bool special_a = name_of_memory(a) != KindReason::kNone;
      const bool special_b = name_of_memory(b) != KindReason::kNone;
      if (special_a != special_b) return special_b;
      return a->os_index < b->os_index;
    });
    for (unsigned i = 0; i < node_count_; i++) {
      const NodeId node = id_of(by_claim[i]);
      for_each_cpu(by_claim[i]->cpuset, [&](CpuId cpu) { out_->add_cpu(cpu, node); });  // the first claim stays
    }
    if (out_->truncated()) add_cpus_of_nodes_left_out();
    const hwloc_obj_t machine = calls_.get_obj_by_depth(topology_, 0, 0);
    for_each_cpu(machine->complete_cpuset, [&](CpuId cpu) { out_->add_possible_cpu(cpu); });
  }

  // To the nearest node that is kept. hwloc numbers neighbours one after the other.
  void add_cpus_of_nodes_left_out() {
    const auto count = static_cast<unsigned>(calls_.get_nbobjs_by_depth(topology_, HWLOC_TYPE_DEPTH_NUMANODE));
    NodeId nearest = id_of(nodes_[0]);
    for (unsigned i = 0; i < count; i++) {
      const NodeId node = id_of(numa_node(i));
      if (out_->index_of(node) < out_->node_count()) {
        nearest = node;
      } else {
        for_each_cpu(numa_node(i)->cpuset, [&](CpuId cpu) { out_->add_cpu(cpu, nearest); });
      }
    }
  }

  void add_performance() {
#if HWLOC_API_VERSION >= 0x00020300
    if (calls_.memattr_get_best_initiator == nullptr) return;
    const auto best = [this](hwloc_obj_t node, hwloc_memattr_id_t attribute) {
      hwloc_location initiator;
      hwloc_uint64_t value = 0;
      const bool known = calls_.memattr_get_best_initiator(topology_, attribute, node, 0, &initiator, &value) == 0;
      return known && value <= ~0u ? static_cast<std::uint32_t>(value) : 0;
    };
    for (unsigned i = 0; i < node_count_; i++) {
      out_->describe_memory(id_of(nodes_[i]), {.bandwidth = best(nodes_[i], HWLOC_MEMATTR_ID_BANDWIDTH),
                                               .latency = best(nodes_[i], HWLOC_MEMATTR_ID_LATENCY)});
    }
#endif
  }

  template <typename Visit>
  void for_each_cpu(hwloc_const_cpuset_t set, Visit visit) {
    if (set == nullptr) return;
    // bitmap_next ends with -1, which no set holds.
    for (CpuId c(calls_.bitmap_next(set, -1)); CpuSet::holds(c); c = CpuId(calls_.bitmap_next(set, c.value))) visit(c);
  }

  bool add_distances() {
    unsigned count = 1;
    struct hwloc_distances_s* matrix = nullptr;
    const int result = calls_.distances_get_by_depth(topology_, HWLOC_TYPE_DEPTH_NUMANODE, &count, &matrix,
                                                     HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0);
    if (result != 0 || count == 0 || matrix == nullptr) return false;
    const std::size_t n = matrix->nbobjs;
    // Measured latencies (in ns) can be stored in the same place; they do not fit our scale.
    bool usable = true;
    for (std::size_t i = 0; i < n * n; i++) usable &= matrix->values[i] >= 1 && matrix->values[i] <= 255;
    for (std::size_t i = 0; usable && i < n * n; i++) {
      out_->set_distance(id_of(matrix->objs[i / n]), id_of(matrix->objs[i % n]),
                         static_cast<std::uint8_t>(matrix->values[i]));
    }
    calls_.distances_release(topology_, matrix);
    return usable;
  }

  void guess_distances() {
    constexpr std::uint8_t kSameCpus = 13, kSamePackage = 15, kElsewhere = 20;
    for (unsigned i = 0; i < node_count_; i++) {
      for (unsigned j = 0; j < node_count_; j++) {
        if (i == j) continue;
        // A node may be near no CPU at all; such a set is part of every other.
        const bool near_cpus = calls_.bitmap_weight(nodes_[i]->cpuset) != 0 && calls_.bitmap_weight(nodes_[j]->cpuset) != 0;
        const bool nested = near_cpus && (calls_.bitmap_isincluded(nodes_[i]->cpuset, nodes_[j]->cpuset) != 0 ||
                                          calls_.bitmap_isincluded(nodes_[j]->cpuset, nodes_[i]->cpuset) != 0);
        std::uint8_t distance = kElsewhere;
        if (share_more_than_machine(nodes_[i], nodes_[j])) distance = kSamePackage;
        if (nested) distance = kSameCpus;
        out_->set_distance(id_of(nodes_[i]), id_of(nodes_[j]), distance);
      }
    }
  }

  static bool share_more_than_machine(hwloc_obj_t a, hwloc_obj_t b) {
    for (hwloc_obj_t x = a->parent; x != nullptr && x->parent != nullptr; x = x->parent) {
      for (hwloc_obj_t y = b->parent; y != nullptr; y = y->parent) {
        if (x == y) return true;
      }
    }
    return false;
  }

  const HwlocCalls& calls_;
  Topology* out_;
  hwloc_topology_t topology_ = nullptr;
  unsigned node_count_ = 0;
  hwloc_obj_t nodes_[kMaxNodes];
};

}  // namespace

bool load_hwloc_topology(HwlocInput input, const char* text, Topology* topology, TextWriter* why) {
  if (!is_only_thread()) {
    why->text("the process has several threads, which might read the environment just then");
    return false;
  }
  const int saved = errno;
  HwlocCalls calls;
  bool loaded = false;
  if (open_hwloc(&calls, why)) {
    {
      const HwlocEnvironment environment(input == HwlocInput::kMachine ? text : "");
      loaded = Loader(calls, topology).load(input, text, why);
    }
    close_hwloc(&calls);
  }
  errno = saved;
  return loaded;
}

}  // namespace nh
