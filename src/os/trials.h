// Tries what the allocator needs of the kernel, on memory of its own, and tells what came of it: version numbers do not
// say what a distribution has added, a sandbox refuses, or fragmentation makes impossible.
//
// For the tool; not part of the library. Each trial runs in a child process, so that a filter that kills for a system
// call, or the kernel's killer, ends the trial and not the caller. At most one huge page is held at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/node_set.h"
#include "base/units.h"
#include "os/rseq.h"

namespace nh {

enum class Ability : unsigned {
  kRestartable,    // restartable sequences, libc's or ours
  kInterruptCpus,  // membarrier for them: caches of other CPUs can be emptied
  kBind,           // mbind
  kAskPolicy,      // get_mempolicy
  kAskPlaces,      // move_pages
  kPopulate,       // MADV_POPULATE_WRITE, without which pages of a pool cannot be proven
  kCollapse,       // MADV_COLLAPSE
  kPreferMany,     // MPOL_PREFERRED_MANY
  kStopStores,     // userfaultfd write-protects hugetlb memory: forks can leave the pool
  kMapPool,        // MAP_HUGETLB with 2 MiB, taking no page
  kMovePool,       // mremap of such a mapping
  kDiscardPool,    // MADV_DONTNEED of one
  kTakePool,       // one page of the pool of 2 MiB, reserved and written
  kCount
};
inline constexpr unsigned kAbilities = static_cast<unsigned>(Ability::kCount);

// What stands for an errno value: there was nothing to try it on (no free page in the pool); the trial was killed.
inline constexpr int kNotTried = -1;
inline constexpr int kTrialKilled = -2;

// A transparent huge page was asked for near a node and written to.
struct HugePageTrial {
  bool tried = false;
  int node = -1;          // where it lies; -1: not known
  std::size_t bytes = 0;  // of memory that one store brought: 2 MiB if all went well
};

struct Trials {
  int error[kAbilities];  // by Ability: 0 it works, an errno value, or one of the two above
  RseqMode rseq = RseqMode::kOff;
  bool thp_forbidden = false;    // prctl(PR_SET_THP_DISABLE), inherited from whoever started us
  HugePageTrial thp[kMaxNodes];  // by the order of `nodes`
  int of(Ability a) const { return error[static_cast<unsigned>(a)]; }
};

// nodes: those from which this process may take memory.
void try_abilities(const NodeSet& nodes, Trials* out);

}  // namespace nh
