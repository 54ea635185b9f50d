#include "process/upkeep.h"

#include <pthread.h>

#include "process/background.h"
#include "process/fork.h"
#include "process/leaks.h"
#include "process/memory_limit.h"
#include "process/process.h"
#include "process/profile.h"
#include "process/program_memory.h"
#include "process/start.h"
#include "base/format.h"
#include "numa/hwloc_topology.h"

namespace nh {
namespace {

// hwloc's second opinion is worth its milliseconds only where there is more than one node.
void confirm_topology() {
  Topology& topology = g_process.topology;
  if (topology.heap_count() < 2 || topology.source() != TopologySource::kSysfs) return;
  const OsOps& os = linux_os();
  const std::size_t bytes = (sizeof(Topology) + kOsPageSize - 1) / kOsPageSize * kOsPageSize;
  void* scratch = os.reserve(bytes, kOsPageSize);
  if (scratch == nullptr) return;
  if (os.make_writable(scratch, bytes) == 0) {
    Text<200> why;
    // Without hwloc the kernel's own word stands; the statistics say where the topology is from.
    if (refine_with_hwloc(SysfsRoot(), &topology, static_cast<Topology*>(scratch), &why)) set_up_fallbacks(g_process);
  }
  os.unmap(scratch, bytes);
}

}  // namespace

void start_upkeep() {
  confirm_topology();
  init_memory_limit();
  init_background();
  advise_program_memory();
  prepare_report();
  init_fork();
}

std::size_t trim_all() {
  HeapSet& heaps = g_process.heaps;
  release_kept();
  std::size_t released = 0;
  for (unsigned i = 0; i < heaps.count(); i++) released += heaps[HeapId(i)].heap.scavenge(SIZE_MAX, 0);
  return released;
}

// Later than the rest: in a static program the unwinder knows no code before the constructors with a number have run.
[[gnu::constructor]] static void start_profile() {
  if (started()) init_profile();
}

// The library's destructor: after the program's atexit functions and static destructors, whose frees it counts.
[[gnu::destructor(101)]] static void at_exit() {
  report_at_exit();
  leaks_at_exit();
  profile_at_exit();
}

}  // namespace nh
