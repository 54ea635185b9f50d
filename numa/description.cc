// What NUMAHEAP_TOPOLOGY can hold, and how hwloc's view joins that of /sys: the part that does not know hwloc's types.
#include "base/scan.h"
#include "numa/hwloc_topology.h"
#include "numa/topology_text.h"

namespace nh {

TopologyDescription kind_of_description(const char* description) {
  const std::string_view s(description);
  if (head(s, kTopologyTextPrefix.size()) == kTopologyTextPrefix) return TopologyDescription::kSerialised;
  const bool xml = s.size() >= 4 && equal_ignoring_case(tail(s, s.size() - 4), ".xml");
  return xml || s.find('/') != s.npos ? TopologyDescription::kXmlFile : TopologyDescription::kSynthetic;
}

bool load_described_topology(const char* description, const SysfsRoot& root, Topology* topology, TextWriter* why) {
  switch (kind_of_description(description)) {
    case TopologyDescription::kXmlFile: return load_hwloc_topology(HwlocInput::kXml, description, topology, why);
    case TopologyDescription::kSynthetic:
      return load_hwloc_topology(HwlocInput::kSynthetic, description, topology, why);
    case TopologyDescription::kSerialised: break;
  }
  return load_serialised_topology(description, root, topology, why);
}

bool refine_with_hwloc(const SysfsRoot& root, Topology* topology, Topology* scratch, TextWriter* why) {
  scratch->leave_out(topology->left_out());
  if (!load_hwloc_topology(HwlocInput::kMachine, root.path, scratch, why)) return false;
  if (topology->refine(*scratch)) return true;
  why->text("hwloc and /sys name different nodes or CPUs; /sys counts");
  return false;
}

}  // namespace nh
