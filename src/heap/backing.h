// What the memory of units is made of: the huge-page ladder.
//
// Backing takes the best rung that can be had: hugetlb 1 GiB (asked for), hugetlb 2 MiB, transparent huge pages, base pages.
// It never leads to a signal later: what is bound to a node is proven with populate() before anyone may touch it, and
// hugetlb memory that the program faults in keeps its reservation.
//
// Each rule was forced by a failure seen on Linux 6.1 or 6.18; the comments name it where it is followed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/node_set.h"
#include "base/options.h"
#include "base/units.h"
#include "heap/fallback.h"
#include "heap/unit.h"
#include "numa/weights.h"
#include "os/os.h"

namespace nh {

// A process that has forked takes no more pages of the pools, and pages of them that it gives up are unmapped: they would
// be served from the pool again. Its children start anew.
void leave_pool();
void return_to_pool();
bool pool_is_left();

enum class HeapKind : std::uint8_t {
  kNode,         // bound to a node and proven to lie there; the pool first
  kFirstTouch,   // lies where the program first writes; objects of whole units, so that no two owners meet in one
  kTouchedPages,  // the same page by page: base pages, and objects that share units
  kInterleaved,  // unit by unit over several nodes, evenly or by weights, proven
  // For memory on which programs make calls that take single OS pages (mprotect, madvise): never hugetlb. Otherwise as the
  // heap whose twin it is.
  kPaged,
};

// Where a process that is bound to one node has its first-touch memory. No node: where the program first writes.
struct Home {
  NodeId node;
  BindMode mode = BindMode::kDefault;  // what the memory is told: kPreferred, or kBind where nothing else is allowed
  bool is_set() const { return mode != BindMode::kDefault; }
};

class Backer {
 public:
  struct Config {
    HeapKind kind = HeapKind::kNode;
    HugePagesOption huge_pages = HugePagesOption::kAuto;
    HugeSource source = HugeSource::kAnonymous;
    // The policy of its memory, over `nodes`. kDefault: no policy, because there is one node or the program's faults decide.
    BindMode policy = BindMode::kDefault;
    NodeSet nodes;                   // of the policy; first touch: those on whose CPUs the process runs
    NodeSet serving;                 // where the memory may come to lie; empty: `nodes`
    std::uint64_t most_bytes = UINT64_MAX;  // what these hold in all, as far as it is known
    // kInterleave without weights of the kernel: units lie on the nodes whose turn it is, by who faults them in and without a
    // policy of their own. Never hugetlb then.
    const UnitTurns* turns = nullptr;
    bool strict = false;             // never from another node
    bool policy_places = false;      // first touch: a policy of the process decides on which node, not who touches
    bool keeps_to_nodes = false;     // no policy, but bound to `nodes`: others that the kernel would take are left out
    bool reservations_hold = true;   // first touch: no policy or cpuset makes a reservation worthless
    bool cpuset_limits = false;      // the process may not use all nodes, whatever policy memory has
  };

  void init(const OsOps& os, const Config& config);

  // Of kFirstTouch: holds for what is backed from now on. A process that is bound no longer keeps the node, without a mode,
  // since memory that was bound is still there. Any thread, at any time.
  void set_home(Home home) { home_.store(home, std::memory_order_relaxed); }
  Home home() const { return home_.load(std::memory_order_relaxed); }

  // Neighbouring units that the caller has marked as being worked on, the first at `start`. No lock is held.
  struct Run {
    Unit* units;
    std::uintptr_t start;
    std::size_t count;
    void* at(std::size_t i) const { return reinterpret_cast<void*>(start + i * kHugeSize); }
    Run part(std::size_t first, std::size_t n) const { return {units + first, start + first * kHugeSize, n}; }
  };

  // A request for memory and the answers to it, which hold for all of it: a request of a TiB is served in many pieces, and
  // the answers take a dozen files of /sys and /proc.
  struct Request {
    std::size_t bytes = 0;     // not backed yet
    bool hugetlb = false;
    bool thp = false;
    bool proves = false;       // hugetlb memory is proven even where the program faults it in otherwise
    std::size_t hugetlb_units = SIZE_MAX;  // no more than so many of them, where ordinary memory cannot hold all the rest
    bool steps = false;        // hugetlb memory is mapped in long runs, beyond what is asked for
    bool no_thp = false;       // memory is short (heap/growth.h)
  };
  // Whether first-touch memory for so many bytes would be taken from a pool. Why not is counted.
  bool pool_serves(std::size_t bytes) const;
  // Finds the other answers. unmapped: some of it is not even mapped. 0, or ENOMEM: there is no room for all of it.
  int decide(Request* request, bool unmapped) const;

  // Backs the first `needed` units, none of which is backed or lost; the others are reserved, and may be mapped along with
  // them. Returns 0 or an errno value; EEXIST: some of the units are lost. What was done before a failure stays.
  int back(const Run& run, std::size_t needed, Request* request) const;
  // Backs a unit with base pages that the program faults in: the first of a heap, so that a small process stays small.
  int back_small(const Run& unit) const;
  // For memory whose pages are there, where they should be: see lasting_policy().
  void loosen(const Run& run) const;
  // In a fork child: copies of pages that it shares with its parent are to lie on our node, whoever writes to them.
  void prefer_copies(const Run& run) const;
  // The policy of memory from when its pages are there. None if nobody asked for a binding: the kernel's balancing and
  // its promotion from slow memory pass over mappings that have one, a preferred node included, and a copy after a fork may
  // lie elsewhere rather than kill.
  BindMode lasting_policy() const {
    return config_.policy == BindMode::kBind && !config_.strict ? BindMode::kDefault : config_.policy;
  }
  // Whether the nodes that may serve could not hold so much even if they held nothing else. Where nothing binds a process
  // the kernel refuses the same to glibc; it does not know what is bound.
  bool exceeds_memory(std::size_t bytes) const;

  // Gives the pages of backed units back to the OS: those that are no longer backed afterwards.
  void release(const Run& run) const;

  // Makes one transparent huge page of the base pages of a unit, all of which exist. 0 or an errno value; EINVAL: refused.
  int collapse(const Run& unit) const;

  // Maps and backs a GiB of reserved units, 1 GiB aligned, with one page. False: nothing changed.
  bool map_1g(const Run& group) const;

  // In a fork child, for units that another thread of the parent was busy with: what is not backed becomes reserved again,
  // since nobody knows what that thread had mapped there by then.
  void forget_unbacked(const Run& run) const;

  bool first_touch() const { return config_.kind == HeapKind::kFirstTouch || config_.kind == HeapKind::kTouchedPages; }
  bool has_policy() const { return config_.policy != BindMode::kDefault; }
  const Config& config() const { return config_; }

 private:
  Fallback off_pool(std::size_t page_bytes, std::size_t bytes, std::size_t* most_pages = nullptr) const;
  Fallback off_pool_first_touch(const HugePool& pool, std::size_t page_bytes, std::size_t bytes,
                                std::size_t* most_pages) const;
  Fallback off_pool_of_home(Request* request, NodeId node) const;
  bool may_use_pool() const;
  void note_off_pool(Fallback why) const;
  bool nodes_lack_room(std::size_t bytes) const;
  int bind(void* p, std::size_t bytes, BindMode mode) const;
  void bind_home(const Run& run, Home home, BindMode mode) const;
  bool map_hugetlb(const Run& run, bool proves) const;  // false: refused
  int map_plain(const Run& run, bool thp) const;
  int replace_with_thp(const Run& unit) const;
  int prove_hugetlb(const Run& run) const;
  int prove_plain(const Run& run, bool has_room) const;
  int populate_in_turns(const Run& run) const;
  bool unmap(const Run& run) const;
  unsigned allowed_of(const NodeSet& nodes) const;
  bool node_is_gone() const;

  const OsOps* os_ = nullptr;
  Config config_;
  std::atomic<Home> home_{};
  bool had_nodes_ = false;  // the process might use some of the nodes at the start; a described machine has none of them
};

}  // namespace nh
