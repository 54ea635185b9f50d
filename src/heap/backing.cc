#include "heap/backing.h"

#include <cerrno>

#include "base/bits.h"
#include "base/check.h"
#include "base/format.h"

namespace nh {
namespace {

FallbackCounters g_fallbacks;
bool g_quiet = false;
std::atomic<bool> g_pool_left{false};

struct FallbackInfo {
  const char* name;
  const char* text;
};
constexpr FallbackInfo kFallbacks[] = {
    {"hugetlb_dry", "a huge-page pool is empty; transparent huge pages serve instead (scripts/reserve adds huge pages)"},
    {"hugetlb_refused", "hugetlb memory could not be mapped; transparent huge pages serve instead"},
    {"bind_refused", "mbind is not allowed here; memory is placed by first touch"},
    {"no_populate", "this kernel has no MADV_POPULATE_WRITE (5.14); hugetlb memory cannot be proven, transparent huge pages serve"},
    {"thp_unavailable", "transparent huge pages are switched off; base pages serve instead"},
    {"other_node", "a node ran out of memory; the nearest other node serves"},
    {"node_gone", "a cpuset no longer allows some nodes; others serve, where the policy lets them"},
};
static_assert(sizeof kFallbacks / sizeof kFallbacks[0] == static_cast<unsigned>(Fallback::kCount));

void* at(std::uintptr_t base, unsigned unit) { return reinterpret_cast<void*>(base + unit * kHugeSize); }

}  // namespace

const char* fallback_name(Fallback f) { return kFallbacks[static_cast<unsigned>(f)].name; }
const char* fallback_text(Fallback f) { return kFallbacks[static_cast<unsigned>(f)].text; }

void note_fallback(Fallback f, bool speak) {
  const std::uint64_t before = g_fallbacks.count[static_cast<unsigned>(f)].fetch_add(1, std::memory_order_relaxed);
  if (before == 0 && speak && !g_quiet) warn_line(fallback_text(f));
}
std::uint64_t fallback_count(Fallback f) {
  return g_fallbacks.count[static_cast<unsigned>(f)].load(std::memory_order_relaxed);
}
void set_fallback_quiet(bool quiet) { g_quiet = quiet; }

// relaxed: whoever leaves the pool takes each heap's lock afterwards, and whoever takes pages has had it since.
void leave_pool() { g_pool_left.store(true, std::memory_order_relaxed); }
void return_to_pool() { g_pool_left.store(false, std::memory_order_relaxed); }
bool pool_is_left() { return g_pool_left.load(std::memory_order_relaxed); }

void Backer::init(const OsOps& os, const Config& config) {
  os_ = &os;
  config_ = config;
  had_nodes_ = config.bind && allowed_nodes() != 0;
}

// Whether the pools hold `bytes` in pages of that size: on every allowed node for first touch (any of them may be the
// one that faults), a share of it on each node for interleaving (where a node is dry the kernel takes another node's
// page and says nothing), at least one page on our node otherwise.
bool Backer::pool_has(std::size_t page_bytes, std::size_t bytes) const {
  HugePool pool;
  if (!os_->huge_pool(page_bytes, NodeId(), &pool)) return false;
  const std::size_t machine_free = pool.free + pool.overcommit > pool.reserved ? pool.free + pool.overcommit - pool.reserved : 0;
  const bool interleaved = config_.bind && config_.bind_mode == BindMode::kInterleave;
  const bool everywhere = config_.first_touch || interleaved;
  const std::size_t pages = div_up(bytes, page_bytes);
  const std::size_t wanted = config_.first_touch ? pages : interleaved ? div_up(pages, config_.nodes.count()) : 1;
  if (machine_free < wanted) return false;
  if (!config_.bind && config_.nodes.count() <= 1) return true;
  // Pages added on demand come from whichever node the fault is on, so an overcommitted pool has them everywhere.
  if (pool.overcommit >= wanted) return true;
  for (NodeId n = config_.nodes.first(); n.valid(); n = config_.nodes.next(NodeId(n.value + 1))) {
    HugePool local;
    const bool has = os_->huge_pool(page_bytes, n, &local) && local.free >= wanted;
    if (everywhere && !has) return false;
    if (!everywhere && has) return true;
  }
  return everywhere;
}

bool Backer::reservation_counts(std::size_t page_bytes) const {
  // A cpuset that changed may keep the program's faults from the pages that were reserved.
  return config_.reservation_counts && allowed_nodes() == config_.nodes.count() && !os_->hugetlb_fault_limited(page_bytes);
}

void Backer::bind_arena(HeapArena& arena, std::uintptr_t base) {
  if (!config_.bind) return;
  const int error = os_->bind(reinterpret_cast<void*>(base), kArenaSize, config_.bind_mode, config_.nodes);
  if (error == 0) {
    arena.bound = config_.bind_mode;
    arena.node_gone = false;
  } else {
    arena.node_gone = note_bind_failure(error);
  }
}

// Says and counts why bind() failed. True: because the process may no longer use the nodes.
bool Backer::note_bind_failure(int error) const {
  const bool gone = had_nodes_ && error == EINVAL && allowed_nodes() == 0;
  note_fallback(gone ? Fallback::kNodeGone : Fallback::kBindRefused, true);
  return gone;
}

// How many of our nodes the process may use at the moment.
unsigned Backer::allowed_nodes() const {
  NodeSet allowed;
  if (!os_->allowed_nodes(&allowed)) return config_.nodes.count();
  unsigned count = 0;
  for (NodeId n = config_.nodes.first(); n.valid(); n = config_.nodes.next(NodeId(n.value + 1))) count += allowed.has(n);
  return count;
}

// A cpuset may change while the process runs. The kernel then uses those of a policy's nodes that are left, or, where none
// is, all that the process may use; it refuses new policies without any. A heap that may use other nodes goes on there, and
// is bound to its own again when that is back. ENOMEM: no other node may serve.
int Backer::follow_cpuset(HeapArena& arena, std::uintptr_t base) {
  if (arena.bound == BindMode::kDefault && !arena.node_gone) return 0;
  if (allowed_nodes() != 0) {
    if (arena.node_gone) bind_arena(arena, base);
    return 0;
  }
  arena.node_gone = true;
  note_fallback(Fallback::kNodeGone, true);
  return config_.strict ? ENOMEM : 0;
}

// The first unit is in use long before its arena is decided, and nobody populates it: without a policy it would lie where
// it is first written to, on a node that the policy forbids, even. PREFERRED, since nothing proves that the node has room.
void Backer::bind_small_unit(std::uintptr_t base) {
  if (!config_.bind) return;
  const bool soften = config_.bind_mode == BindMode::kBind && !config_.strict;
  const BindMode mode = soften ? BindMode::kPreferred : config_.bind_mode;
  if (const int error = os_->bind(at(base, 0), kHugeSize, mode, config_.nodes); error != 0) note_bind_failure(error);
}

void Backer::relax(HeapArena& arena, std::uintptr_t base) {
  if (config_.strict || arena.bound != BindMode::kBind) return;
  if (os_->bind(reinterpret_cast<void*>(base), kArenaSize, BindMode::kPreferred, config_.nodes) == 0) {
    arena.bound = BindMode::kPreferred;
  }
}

// What is populated from now on is to lie on the node again, although the arena was full once. A refusal leaves PREFERRED.
void Backer::tighten(HeapArena& arena, std::uintptr_t base) {
  if (config_.bind_mode != BindMode::kBind || arena.bound != BindMode::kPreferred || arena.node_gone) return;
  bind_arena(arena, base);
}

int Backer::map_plain_units(HeapArena& arena, std::uintptr_t base, std::uint32_t units, bool thp) {
  int error = 0;
  for_each_run(units, [&](unsigned first, unsigned count) {
    if (error != 0) return;
    error = os_->make_writable(at(base, first), count * kHugeSize);
    if (error != 0) return;
    const bool advised = os_->advise_thp(at(base, first), count * kHugeSize, thp) == 0 && thp;
    const std::uint32_t bits = unit_bits(first, count);
    arena.mapped |= bits;
    clear_units(arena.hugetlb, bits);
    advised ? set_units(arena.thp, bits) : clear_units(arena.thp, bits);
  });
  return error;
}

bool Backer::map_hugetlb_units(HeapArena& arena, std::uintptr_t base, std::uint32_t units) {
  bool ok = true;
  for_each_run(units, [&](unsigned first, unsigned count) {
    if (!ok) return;
    const std::size_t bytes = count * kHugeSize;
    const Reservation reservation = config_.first_touch ? Reservation::kFull : Reservation::kNone;
    int error = 0;
    void* pages = os_->map_hugetlb(bytes, kHugeSize, kHugeSize, config_.source, reservation, &error);
    if (pages == nullptr) {
      ok = false;
      return;
    }
    error = os_->move_mapping(pages, at(base, first), bytes);
    if (error != 0) {
      os_->unreserve(pages, bytes);
      // Kernels before 5.16 cannot move hugetlb memory.
      if (error == EINVAL) error = os_->map_hugetlb_at(at(base, first), bytes, kHugeSize, config_.source, reservation);
    }
    const std::uint32_t bits = unit_bits(first, count);
    if (error != 0) {
      if (error == EEXIST) arena.lost |= bits;
      ok = false;
      return;
    }
    arena.mapped |= bits;
    set_units(arena.hugetlb, bits);
    clear_units(arena.thp, bits);
  });
  return ok;
}

bool Backer::gets_hugetlb(Extent* extent) const {
  using Answer = Extent::Answer;
  if (pool_is_left()) return false;
  const bool wanted = config_.huge_pages == HugePagesOption::kAuto || config_.huge_pages == HugePagesOption::k2M ||
                      config_.huge_pages == HugePagesOption::k1G;
  if (extent->hugetlb == Answer::kOpen) {
    const bool may = wanted && (!config_.first_touch || reservation_counts(kHugeSize));
    // Elsewhere than in first-touch heaps an arena is mapped as a whole, whatever part of it the extent needs.
    const std::size_t arenas = align_up(extent->bytes, kArenaSize);
    const bool has = may && pool_has(kHugeSize, config_.first_touch ? extent->bytes : arenas);
    extent->hugetlb = has ? Answer::kYes : Answer::kNo;
    if (wanted && !has) note_fallback(Fallback::kHugetlbDry, config_.huge_pages != HugePagesOption::kAuto);
  }
  return extent->hugetlb == Answer::kYes;
}

bool Backer::gets_thp(Extent* extent) const {
  using Answer = Extent::Answer;
  if (extent->thp == Answer::kOpen) {
    const bool wanted = config_.huge_pages != HugePagesOption::kOff;
    const bool has = wanted && os_->thp_mode() != 0;
    extent->thp = has ? Answer::kYes : Answer::kNo;
    if (wanted && !has) note_fallback(Fallback::kThpUnavailable, config_.huge_pages == HugePagesOption::kThp);
  }
  return extent->thp == Answer::kYes;
}

int Backer::map(HeapArena& arena, std::uintptr_t base, bool first_arena, std::uint32_t units, Extent* extent) {
  if ((units & arena.lost) != 0) return EEXIST;
  const std::uint32_t small = first_arena && config_.has_small_unit ? 1 : 0;
  if ((units & small & ~arena.mapped) != 0) {
    if (const int error = map_plain_units(arena, base, small, false); error != 0) return error;
    bind_small_unit(base);
  }
  std::uint32_t wanted = units & ~small & ~arena.mapped;
  if (wanted == 0) return 0;

  const bool fresh = !arena.decided;
  if (fresh || config_.first_touch) {
    // Node heaps lay hugetlb over the whole arena at once: such mappings never merge, and their number is limited.
    const std::uint32_t area = config_.first_touch ? wanted : ~small & ~arena.mapped;
    arena.decided = true;
    if (gets_hugetlb(extent) && !map_hugetlb_units(arena, base, area)) note_fallback(Fallback::kHugetlbRefused, true);
    if (fresh) bind_arena(arena, base);
  }
  if ((wanted & arena.lost) != 0) return EEXIST;
  wanted &= ~arena.mapped;
  return wanted == 0 ? 0 : map_plain_units(arena, base, wanted, gets_thp(extent));
}

int Backer::replace_with_thp(HeapArena& arena, std::uintptr_t base, unsigned unit) {
  const std::uint32_t bit = std::uint32_t{1} << unit;
  if (const int error = os_->map_plain(at(base, unit), kHugeSize); error != 0) return error;
  clear_units(arena.hugetlb, bit);
  const bool advised = os_->thp_mode() != 0 && os_->advise_thp(at(base, unit), kHugeSize, true) == 0;
  advised ? set_units(arena.thp, bit) : clear_units(arena.thp, bit);
  // A fresh mapping forgot the arena's policy.
  if (arena.bound == BindMode::kDefault) return 0;
  const int error = os_->bind(at(base, unit), kHugeSize, arena.bound, config_.nodes);
  if (error != 0 && note_bind_failure(error)) arena.node_gone = true;  // bound as a whole when the node is back
  return 0;
}

int Backer::populate_run(HeapArena& arena, std::uintptr_t base, unsigned first, unsigned count) {
  const std::uint32_t bits = unit_bits(first, count);
  if ((arena.hugetlb & bits) == 0) {
    // Where no node is asked for, the program's own faults do as well, and memory that it never touches costs nothing.
    // With a node a later fault could meet a full one, and the kernel would kill.
    if (!config_.bind) {
      arena.backed |= bits;
      return 0;
    }
    // So would populating (seen on 6.1: CONSTRAINT_MEMORY_POLICY), which is why the node is looked at first.
    const bool bound = arena.bound == BindMode::kBind && !arena.node_gone;
    if (bound && !os_->node_has_room(config_.nodes.first(), count * kHugeSize)) return ENOMEM;
    const int error = os_->populate(at(base, first), count * kHugeSize);
    // Without the call plain memory is faulted in by use: slower the first time, as safe.
    if (error != 0 && error != EINVAL) return error;
    arena.backed |= bits;
    return 0;
  }
  // Where mbind was refused the kernel takes any node's huge page once our pool has none, and says nothing.
  const bool unbound = config_.bind && arena.bound == BindMode::kDefault;
  for (unsigned u = first; u < first + count; u++) {
    int error = unbound && !pool_has(kHugeSize, kHugeSize) ? ENOMEM : os_->populate(at(base, u), kHugeSize);
    arena.backed |= error == 0 ? unit_bits(u, 1) : 0;
    if (error == 0) continue;
    note_fallback(error == EINVAL ? Fallback::kNoPopulate : Fallback::kHugetlbDry, config_.huge_pages != HugePagesOption::kAuto);
    if ((error = replace_with_thp(arena, base, u)) != 0) return error;
    if ((error = populate_run(arena, base, u, 1)) != 0) return error;
  }
  return 0;
}

int Backer::populate(HeapArena& arena, std::uintptr_t base, std::uint32_t units, bool first_arena) {
  const std::uint32_t lazy = config_.first_touch ? units : first_arena && config_.has_small_unit ? 1 : 0;
  arena.backed |= units & lazy;
  units &= ~lazy;
  if (units != 0) {
    if (const int error = follow_cpuset(arena, base); error != 0) return error;
    tighten(arena, base);
  }
  int error = 0;
  for (std::uint32_t kind : {units & arena.hugetlb & ~arena.huge_1g, units & ~arena.hugetlb}) {
    for_each_run(kind, [&](unsigned first, unsigned count) {
      if (error == 0) error = populate_run(arena, base, first, count);
    });
  }
  return error;
}

void Backer::release(HeapArena& arena, std::uintptr_t base, std::uint32_t units, std::uint32_t* released) {
  *released = 0;
  const std::uint32_t huge = units & arena.hugetlb & ~arena.huge_1g;
  for_each_run(units & ~arena.hugetlb, [&](unsigned first, unsigned count) {
    if (os_->discard(at(base, first), count * kHugeSize) == 0) *released |= unit_bits(first, count);
  });
  for_each_run(huge, [&](unsigned first, unsigned count) {
    const std::uint32_t bits = unit_bits(first, count);
    if (config_.first_touch || pool_is_left()) {
      // A dropped page does not get its reservation back; the next fault could find the pool dry. Start over.
      if (os_->reset_to_reserved(at(base, first), count * kHugeSize) != 0) return;
      if (arena.bound != BindMode::kDefault) os_->bind(at(base, first), count * kHugeSize, arena.bound, config_.nodes);
      arena.mapped &= ~bits;
      clear_units(arena.hugetlb, bits);
      clear_units(arena.kept, bits);
      *released |= bits;
      return;
    }
    const bool shared = config_.source == HugeSource::kSharedFile;
    const int error = shared ? os_->punch(at(base, first), count * kHugeSize) : os_->discard(at(base, first), count * kHugeSize);
    if (error == 0) *released |= bits;
  });
  arena.backed &= ~*released;
  for_each_run(*released, [&](unsigned first, unsigned count) {
    for (unsigned u = first; u < first + count; u++) __atomic_store_n(&arena.place[u], std::int16_t{0}, __ATOMIC_RELAXED);
  });
}

void Backer::forget_unbacked(HeapArena& arena, std::uintptr_t base) {
  for_each_run(~arena.backed & ~arena.lost, [&](unsigned first, unsigned count) {
    const std::uint32_t bits = unit_bits(first, count);
    // A part of a page of 1 GiB cannot be taken out.
    if (os_->reset_to_reserved(at(base, first), count * kHugeSize) != 0) arena.lost |= bits;
    arena.mapped &= ~bits;
    clear_units(arena.hugetlb, bits);
    clear_units(arena.thp, bits);
  });
}

bool Backer::map_1g(HeapArena* group, std::uintptr_t base) {
  if (pool_is_left()) return false;
  if (config_.huge_pages != HugePagesOption::k1G || (config_.first_touch && !reservation_counts(GiB))) return false;
  for (std::size_t i = 0; i < kArenasPerGiB; i++) {
    NH_ASSERT(group[i].busy);
    if (group[i].decided || group[i].mapped != 0) return false;
  }
  if (!pool_has(GiB, GiB)) {
    note_fallback(Fallback::kHugetlbDry, true);
    return false;
  }
  const Reservation reservation = config_.first_touch ? Reservation::kFull : Reservation::kNone;
  int error = 0;
  void* pages = os_->map_hugetlb(GiB, GiB, GiB, config_.source, reservation, &error);
  if (pages == nullptr) {
    note_fallback(Fallback::kHugetlbRefused, true);
    return false;
  }
  // Proven before it is moved in, so that a failure leaves no trace.
  const int bind_error = config_.bind ? os_->bind(pages, GiB, config_.bind_mode, config_.nodes) : 0;
  const bool node_gone = bind_error != 0 && note_bind_failure(bind_error);
  if (node_gone && config_.strict) error = ENOMEM;
  if (error == 0 && !config_.first_touch) error = os_->populate(pages, GiB);
  if (error == 0) error = os_->move_mapping(pages, reinterpret_cast<void*>(base), GiB);
  if (error != 0) {
    os_->unreserve(pages, GiB);
    note_fallback(Fallback::kHugetlbDry, true);
    return false;
  }
  for (std::size_t i = 0; i < kArenasPerGiB; i++) {
    group[i].decided = true;
    group[i].mapped = group[i].backed = group[i].hugetlb = group[i].huge_1g = HeapArena::kAll;
    if (config_.bind && bind_error == 0) group[i].bound = config_.bind_mode;
    group[i].node_gone = node_gone;
  }
  return true;
}

}  // namespace nh
