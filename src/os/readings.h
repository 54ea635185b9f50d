// What the files of /proc and /sys say at this moment about pools, nodes and THP. Each function reads its files anew;
// machine_state.h keeps what they say for a while. None needs more than 2 KiB of stack.
//
// Private to src/os/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/os.h"

namespace nh::readings {

// The counters of a pool; node invalid = the whole machine. false where there is no such pool.
bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out);

// THP mode as in OsOps::thp_mode.
int thp_mode();

// The memory of a node, in bytes.
struct NodeMemory {
  std::uint64_t total = 0;      // 0: the kernel does not tell
  std::uint64_t to_be_had = 0;  // free, and half of what is clean pages of files
};
void node_memory(NodeId node, NodeMemory* out);

// Whether the kernel maps memory without asking whether there is any (vm.overcommit_memory=1).
bool promises_anything();

// What the kernel tries to keep free on all nodes together, in bytes.
std::uint64_t min_free();

}  // namespace nh::readings
