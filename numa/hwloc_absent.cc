// Stands in for hwloc_topology.cc where the library is built without hwloc's header.
#include "numa/hwloc_topology.h"

namespace nh {

bool load_hwloc_topology(HwlocInput, const char*, Topology*, TextWriter* why) {
  why->text("built without hwloc");
  return false;
}

}  // namespace nh
