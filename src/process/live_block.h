// What other processes read of this one (base/live_block.h).
#pragma once

#include "base/live_block.h"

namespace nh {

// Fills the block in, once the heaps and caches are set up.
void publish_live_block();
const LiveBlock& live_block();

}  // namespace nh
