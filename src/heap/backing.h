// What the memory of an arena is made of: the huge-page ladder.
//
// An arena is 32 units of 2 MiB. A unit is, in this order: reserved (address space only), mapped (accessible, of some
// kind), backed (its pages are there, or the program may fault them in). Backing takes the best rung that can be had:
// hugetlb 1 GiB (asked for), hugetlb 2 MiB, transparent huge pages, base pages. It never leads to a signal later: node
// heaps prove every huge page with populate() before anyone may touch it, first-touch memory keeps its reservation.
//
// Each rule was forced by a failure seen on Linux 6.1 or 6.18; the comments name it where it is followed.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/node_set.h"
#include "base/options.h"
#include "base/units.h"
#include "os/os.h"

namespace nh {

// The metadata of one arena (the runtime's heapArena). All of it changes only while `busy` is set, and by the thread
// that set it: set and cleared under the heap's lock, which is released in between for the system calls. So whoever
// holds the lock and sees busy clear may read everything.
struct HeapArena {
  static constexpr std::uint32_t kAll = ~std::uint32_t{0};

  std::uint32_t mapped;    // units that are accessible
  std::uint32_t backed;    // units whose memory may be used
  std::uint32_t hugetlb;   // mapped units that are hugetlb memory (2 MiB or 1 GiB)
  std::uint32_t huge_1g;   // of those, the ones inside a 1 GiB page
  std::uint32_t thp;       // mapped units advised to be transparent huge pages
  std::uint32_t lost;      // units whose addresses another mapping of the process got hold of: never to be touched
  std::uint32_t kept;      // hugetlb units that children of fork do not get
  bool decided;            // the kind of mapping has been chosen
  bool busy;               // some thread maps, populates or releases units of it
  BindMode bound;          // the policy in force; kDefault: none
  bool node_gone;          // when this was last looked at, the process might not use the node
  const void* worker;      // while busy: the thread that works on it, by its thread pointer (for fork)
  std::uint32_t freed_tick[kHugePerArena];  // when a page of the unit was last freed, in scavenger ticks
  // First-touch memory of several nodes: the node on which all pages of the unit are known to lie, + 1; 0 = not known.
  // Belongs to whoever owns the unit; atomic, because a fork makes all of them forgotten (MHeap::forget_places).
  std::int16_t place[kHugePerArena];

  void begin_work() {
    busy = true;
    worker = __builtin_thread_pointer();
  }
  bool is_mine() const { return busy && worker == __builtin_thread_pointer(); }

  Backing backing_of(unsigned unit) const {
    const std::uint32_t bit = std::uint32_t{1} << unit;
    if ((backed & bit) == 0) return Backing::kNone;
    if ((huge_1g & bit) != 0) return Backing::kHuge1G;
    if ((hugetlb & bit) != 0) return Backing::kHuge2M;
    return (thp & bit) != 0 ? Backing::kThp : Backing::kBase;
  }
};

// Changes of single bits in a word of an arena. Atomic, because a fork in a signal handler that interrupted a thread which
// works on the arena changes those of other units.
inline void set_units(std::uint32_t& word, std::uint32_t units) { __atomic_fetch_or(&word, units, __ATOMIC_RELAXED); }
inline void clear_units(std::uint32_t& word, std::uint32_t units) { __atomic_fetch_and(&word, ~units, __ATOMIC_RELAXED); }

// From its first fork on a process takes no more pages of hugetlb pools. A child may again.
void leave_pool();
void return_to_pool();
bool pool_is_left();

inline constexpr std::size_t kArenasPerGiB = GiB / kArenaSize;  // 16

// Why something less than asked for had to do; counted, and the first of each kind said on stderr.
enum class Fallback : std::uint8_t {
  kHugetlbDry,       // a pool had no page left: THP instead
  kHugetlbRefused,   // mapping hugetlb memory failed
  kBindRefused,      // mbind not allowed here: first touch from the right CPU
  kNoPopulate,       // kernel without MADV_POPULATE_WRITE
  kThpUnavailable,   // transparent huge pages are off: base pages
  kOtherNode,        // a node was full: the next nearest served
  kNodeGone,         // a cpuset no longer allows a node: the kernel chooses among those that are left
  kCount,
};
const char* fallback_name(Fallback f);
const char* fallback_text(Fallback f);  // one sentence for stderr

struct FallbackCounters {
  std::atomic<std::uint64_t> count[static_cast<unsigned>(Fallback::kCount)];
};
// Counts; says it once on stderr unless quiet or not worth a line (speak = false).
void note_fallback(Fallback f, bool speak);
std::uint64_t fallback_count(Fallback f);
void set_fallback_quiet(bool quiet);

class Backer {
 public:
  struct Config {
    HugePagesOption huge_pages = HugePagesOption::kAuto;
    HugeSource source = HugeSource::kAnonymous;
    bool first_touch = false;       // the program faults the pages in; never populate, keep reservations
    bool policy_places = false;     // first touch: a policy of the process decides on which node, not who touches
    bool reservation_counts = true;  // no policy or cpuset makes a reservation worthless
    bool bind = false;              // more than one node and mbind is allowed
    BindMode bind_mode = BindMode::kBind;
    NodeSet nodes;                  // where the memory is to be; for first touch the nodes that may be used
    bool has_small_unit = true;     // the heap's very first unit stays on base pages
    bool strict = false;            // never soften BIND to PREFERRED
  };

  void init(const OsOps& os, const Config& config);

  // A request for memory and what it gets, settled at its first arena: a request of a TiB spans 16 384 of them, and the
  // answers take a dozen files of /sys and /proc.
  struct Extent {
    std::size_t bytes;  // a first-touch extent must get this from the pools as a whole
    enum class Answer : std::uint8_t { kOpen, kNo, kYes } hugetlb = Answer::kOpen, thp = Answer::kOpen;
  };

  // In all that follows the caller has marked the arena, which starts at `base`, busy, and holds no lock.

  // Maps the units of `units` that are not yet mapped. Returns 0 or an errno value; EEXIST: some of the units are lost.
  int map(HeapArena& arena, std::uintptr_t base, bool first_arena, std::uint32_t units, Extent* extent);

  // Backs mapped units: populates them where that is ours to do. Returns 0 or an errno value.
  int populate(HeapArena& arena, std::uintptr_t base, std::uint32_t units, bool first_arena);

  // Gives the pages of backed units back to the OS. On return `*released` holds the units that were.
  void release(HeapArena& arena, std::uintptr_t base, std::uint32_t units, std::uint32_t* released);

  // Maps and backs 16 undecided arenas, 1 GiB aligned, with one 1 GiB page. False: nothing changed.
  bool map_1g(HeapArena* group, std::uintptr_t base);

  // In a fork child, for an arena that another thread of the parent was busy with: what is not backed becomes a
  // reservation again, since nobody knows what that thread had mapped there by then.
  void forget_unbacked(HeapArena& arena, std::uintptr_t base);

  // When an arena is full: later copy-on-write may go to other nodes rather than kill.
  void relax(HeapArena& arena, std::uintptr_t base);

  const Config& config() const { return config_; }

 private:
  bool reservation_counts(std::size_t page_bytes) const;
  bool gets_hugetlb(Extent* extent) const;
  bool gets_thp(Extent* extent) const;
  bool pool_has(std::size_t page_bytes, std::size_t bytes) const;
  int map_plain_units(HeapArena& arena, std::uintptr_t base, std::uint32_t units, bool thp);
  bool map_hugetlb_units(HeapArena& arena, std::uintptr_t base, std::uint32_t units);
  int populate_run(HeapArena& arena, std::uintptr_t base, unsigned first, unsigned count);
  int replace_with_thp(HeapArena& arena, std::uintptr_t base, unsigned unit);
  void bind_arena(HeapArena& arena, std::uintptr_t base);
  void bind_small_unit(std::uintptr_t base);
  void tighten(HeapArena& arena, std::uintptr_t base);
  unsigned allowed_nodes() const;
  bool note_bind_failure(int error) const;
  int follow_cpuset(HeapArena& arena, std::uintptr_t base);

  const OsOps* os_ = nullptr;
  Config config_;
  bool had_nodes_ = false;  // the process might use some of the nodes at the start; a described machine has none of them
};

// Calls f(first unit, number of units) for every run of set bits.
template <typename F>
void for_each_run(std::uint32_t units, F&& f) {
  while (units != 0) {
    const unsigned first = static_cast<unsigned>(__builtin_ctz(units));
    const std::uint32_t shifted = units >> first;
    const unsigned count = shifted == ~std::uint32_t{0} ? 32 : static_cast<unsigned>(__builtin_ctz(~shifted));
    f(first, count);
    units &= count == 32 ? 0 : ~(((std::uint32_t{1} << count) - 1) << first);
  }
}

constexpr std::uint32_t unit_bits(unsigned first, unsigned count) {
  return count == 32 ? ~std::uint32_t{0} : ((std::uint32_t{1} << count) - 1) << first;
}

}  // namespace nh
