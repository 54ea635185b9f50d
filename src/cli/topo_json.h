// The topology as JSON, and the words that it shares with the tables.
#pragma once

#include "base/format.h"
#include "numa/topology.h"

namespace nh::cli {

inline constexpr NodeQuality kQualities[] = {NodeQuality::kBandwidth, NodeQuality::kLatency, NodeQuality::kCapacity};
const char* quality_name(NodeQuality quality);

// For whom the memory of a node is there.
const char* role_text(const Topology& topology, unsigned index);

void write_topology_json(TextWriter& out, const Topology& topology);

}  // namespace nh::cli
