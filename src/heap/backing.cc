#include "heap/backing.h"

#include <atomic>
#include <cerrno>

#include "base/bits.h"
#include "base/check.h"

namespace nh {
namespace {

bool wants_hugetlb(HugePagesOption o) {
  return o == HugePagesOption::kAuto || o == HugePagesOption::k2M || o == HugePagesOption::k1G;
}
bool is_reserved(const Unit& u) { return u.state == UnitState::kReserved; }
bool is_mapped_hugetlb(const Unit& u) { return u.state == UnitState::kMapped && u.hugetlb(); }
bool is_mapped_plain(const Unit& u) { return u.state == UnitState::kMapped && !u.hugetlb(); }

template <typename Visit>
void for_each_node(const NodeSet& nodes, Visit&& visit) {
  for (NodeId n = nodes.first(); n.valid(); n = nodes.next(NodeId(n.value + 1))) visit(n);
}

void set_all(const Backer::Run& run, UnitState state) {
  for (std::size_t i = 0; i < run.count; i++) run.units[i].state = state;
}
void set_mapped(const Backer::Run& run, UnitKind kind) {
  for (std::size_t i = 0; i < run.count; i++) {
    run.units[i].kind = kind;
    run.units[i].bound = BindMode::kDefault;
    run.units[i].kept = false;
    run.units[i].state = UnitState::kMapped;
  }
}
void set_bound(const Backer::Run& run, BindMode mode) {
  for (std::size_t i = 0; i < run.count; i++) run.units[i].bound = mode;
}

std::atomic<bool> g_pool_left{false};

}  // namespace

// relaxed: whoever leaves the pool takes each heap's lock afterwards, and whoever takes pages has had it since.
void leave_pool() { g_pool_left.store(true, std::memory_order_relaxed); }
void return_to_pool() { g_pool_left.store(false, std::memory_order_relaxed); }
bool pool_is_left() { return g_pool_left.load(std::memory_order_relaxed); }

void Backer::init(const OsOps& os, const Config& config) {
  os_ = &os;
  config_ = config;
  if (config_.serving.empty()) config_.serving = config_.nodes;
  had_nodes_ = has_policy() && allowed_of(config_.nodes) != 0;
}

// ---- answers -----------------------------------------------------------------------------------------------------

// Why pages of the pools cannot serve `bytes`, or kNoFallback. most_pages: as for off_pool_first_touch().
Fallback Backer::off_pool(std::size_t page_bytes, std::size_t bytes, std::size_t* most_pages) const {
  HugePool pool;
  const bool exists = os_->huge_pool(page_bytes, NodeId(), &pool);
  if (!exists || pool.available() + pool.overcommit == 0) return Fallback::kHugetlbDry;
  if (pool_is_left()) return Fallback::kHugetlbLeft;
  if (const Home home = this->home(); home.is_set()) {
    return os_->huge_pool(page_bytes, home.node, &pool) && pool.free != 0 ? kNoFallback : Fallback::kHugetlbDry;
  }
  if (first_touch()) return off_pool_first_touch(pool, page_bytes, bytes, most_pages);
  // A share of it on each node for interleaving, since where a node is dry the kernel takes another node's page and says
  // nothing; at least one page on our node otherwise. What is added on demand comes from whichever node the fault is on.
  const bool everywhere = config_.policy == BindMode::kInterleave;
  const std::size_t pages = everywhere ? div_up(bytes, page_bytes) : 1;
  if (pool.available() + pool.overcommit < pages) return Fallback::kHugetlbShort;
  const std::size_t wanted = everywhere ? div_up(pages, config_.nodes.count()) : 1;
  if (pool.overcommit >= wanted || (!has_policy() && config_.nodes.count() <= 1)) return kNoFallback;
  bool all = true, any = false;
  for_each_node(config_.nodes, [&](NodeId n) {
    HugePool local;
    const bool has = os_->huge_pool(page_bytes, n, &local) && local.free >= wanted;
    all &= has;
    any |= has;
  });
  return (everywhere ? all : any) ? kNoFallback : any ? Fallback::kHugetlbUneven : Fallback::kHugetlbDry;
}

// Memory that the program faults in needs a reservation, and the kernel reserves in all pools together: a fault may take any
// node's page. So no node need hold all of it, but each is to have an equal share, or threads that divide it among
// themselves would find their pages on other nodes. Of two evils, lying there is better than a visit of the kernel's
// killer, which ordinary memory would end with where it has no room; then *most_pages says how much the pools may give.
Fallback Backer::off_pool_first_touch(const HugePool& pool, std::size_t page_bytes, std::size_t bytes,
                                      std::size_t* most_pages) const {
  if (!pool.reservations_work) return Fallback::kHugetlbCount;
  if (!config_.reservations_hold || allowed_of(config_.serving) != config_.serving.count()) return Fallback::kHugetlbPolicy;
  if (os_->hugetlb_fault_limited(page_bytes)) return Fallback::kHugetlbGroup;
  const std::size_t pages = div_up(bytes, page_bytes), count = config_.nodes.count();
  std::size_t spare = pool.available() + pool.overcommit;
  bool even = true, room_to_spare = true;
  if (config_.serving.count() > 1 && pool.overcommit < pages) {
    std::size_t free = 0;
    for_each_node(config_.nodes, [&](NodeId n) {
      HugePool local;
      if (!os_->huge_pool(page_bytes, n, &local)) local.free = 0;
      free += local.free;
      even &= local.free >= div_up(pages + pool.reserved, count);
    });
    free = free > pool.reserved ? free - pool.reserved : 0;
    if (free < spare) spare = free;
    // Threads do not divide it quite evenly.
    room_to_spare = spare >= pages + pages / 16;
  }
  if (spare >= pages && even && room_to_spare) return kNoFallback;
  if (most_pages != nullptr && spare != 0 && !os_->nodes_have_room(config_.nodes, bytes)) {
    *most_pages = spare;
    return kNoFallback;
  }
  return spare < pages || even ? Fallback::kHugetlbShort : Fallback::kHugetlbUneven;
}

// First-touch memory of a bound process. The kernel reserves in the machine's pools as a whole. Where our node could serve
// everybody who was promised pages, and a fault may fall back to other nodes, a reservation is enough and the program
// faults its pages in. Otherwise they are proven, as far as the pool goes.
Fallback Backer::off_pool_of_home(Request* request, NodeId node) const {
  HugePool all, local;
  if (!os_->huge_pool(kHugeSize, NodeId(), &all) || !os_->huge_pool(kHugeSize, node, &local)) return Fallback::kHugetlbDry;
  if (local.free + all.overcommit == 0) return Fallback::kHugetlbDry;
  if (pool_is_left()) return Fallback::kHugetlbLeft;
  const std::size_t pages = div_up(request->bytes, kHugeSize);
  const bool falls_back = !config_.cpuset_limits && allowed_of(config_.serving) == config_.serving.count();
  const bool sure = all.reservations_work && local.free >= all.reserved + pages && falls_back &&
                    !os_->hugetlb_fault_limited(kHugeSize);
  request->proves = !sure;
  if (!sure) request->hugetlb_units = local.free + all.overcommit;
  return kNoFallback;
}

bool Backer::may_use_pool() const {
  return config_.kind != HeapKind::kPaged && config_.kind != HeapKind::kTouchedPages && wants_hugetlb(config_.huge_pages);
}

// Whether our nodes cannot hold so much beside what their pools may give. Populating memory that is bound to a full node ends
// in the kernel's killer, not in an error (6.1: CONSTRAINT_MEMORY_POLICY).
bool Backer::nodes_lack_room(std::size_t bytes) const {
  if (const Home home = this->home(); home.is_set()) {
    return home.mode == BindMode::kBind && !os_->nodes_have_room(NodeSet::of(home.node), bytes);
  }
  return has_policy() && !node_is_gone() && !os_->nodes_have_room(config_.nodes, bytes);
}

bool Backer::exceeds_memory(std::size_t bytes) const {
  if (bytes <= config_.most_bytes) return false;
  NodeSet nodes = config_.serving;
  // A cpuset may be wider by now.
  if (!has_policy() && !config_.strict) os_->allowed_nodes(&nodes);
  return bytes > os_->memory_of(nodes);
}

int Backer::decide(Request* request, bool unmapped) const {
  const Home home = this->home();
  if (unmapped && may_use_pool()) {
    Fallback why = home.is_set() ? off_pool_of_home(request, home.node)
                                 : off_pool(kHugeSize, request->bytes, &request->hugetlb_units);
    // Children lose what a fork cannot take off the pool, and must not lose the small objects that their next step needs.
    if (why == kNoFallback && !first_touch() && !os_->can_leave_hugetlb()) why = Fallback::kNoLeaving;
    request->hugetlb = why == kNoFallback;
    if (!request->hugetlb) note_fallback(why, config_.huge_pages != HugePagesOption::kAuto && why != Fallback::kHugetlbLeft);
    // Hugetlb mappings never merge, and their number is limited. Where every mapping counts they are as long as needed.
    request->steps = request->hugetlb && !first_touch() && !os_->mappings_are_scarce();
  }
  if (unmapped && config_.huge_pages != HugePagesOption::kOff && config_.kind != HeapKind::kTouchedPages) {
    request->thp = !request->no_thp && os_->thp_mode() != 0;
    if (!request->thp && !request->no_thp) note_fallback(Fallback::kThpUnavailable, config_.huge_pages == HugePagesOption::kThp);
  }
  // All of it or nothing: a request that fails half-way has filled the node for nothing.
  std::size_t from_pool = 0;
  if (request->hugetlb && (has_policy() || home.is_set())) {
    for_each_node(home.is_set() ? NodeSet::of(home.node) : config_.nodes, [&](NodeId n) {
      HugePool pool;
      if (os_->huge_pool(kHugeSize, n, &pool)) from_pool += pool.free * kHugeSize;
    });
  }
  return request->bytes > from_pool && nodes_lack_room(request->bytes - from_pool) ? ENOMEM : 0;
}

// ---- policies ----------------------------------------------------------------------------------------------------

// How many of these nodes the process may use at the moment.
unsigned Backer::allowed_of(const NodeSet& nodes) const {
  NodeSet allowed;
  if (!os_->allowed_nodes(&allowed)) return nodes.count();
  unsigned count = 0;
  for_each_node(nodes, [&](NodeId n) { count += allowed.has(n); });
  return count;
}

// A cpuset may change while the process runs. The kernel then uses those of a policy's nodes that are left, or, where none
// is, all that the process may use; it refuses new policies without any.
bool Backer::node_is_gone() const { return had_nodes_ && allowed_of(config_.nodes) == 0; }

// Returns what bind() does, and says and counts why it failed.
int Backer::bind(void* p, std::size_t bytes, BindMode mode) const {
  const int error = os_->bind(p, bytes, mode, config_.nodes);
  if (error != 0) {
    const bool gone = error == EINVAL && node_is_gone();
    note_fallback(gone ? Fallback::kNodeGone : Fallback::kBindRefused, true);
  }
  return error;
}

// ---- mapping -----------------------------------------------------------------------------------------------------

bool Backer::map_hugetlb(const Run& run, bool proves) const {
  const Reservation reservation = first_touch() && !proves ? Reservation::kFull : Reservation::kNone;
  const std::size_t bytes = run.count * kHugeSize;
  if (os_->map_new_hugetlb(run.at(0), bytes, kHugeSize, config_.source, reservation) != 0) return false;
  const int error = has_policy() ? bind(run.at(0), bytes, config_.policy) : 0;
  if (error == EINVAL && node_is_gone()) {
    // It could not be bound later without cutting the mapping. Plain memory can.
    os_->unmap(run.at(0), bytes);
    return true;
  }
  set_mapped(run, UnitKind::kHuge2M);
  if (has_policy() && error == 0) set_bound(run, config_.policy);
  // Never bound where the pages were only promised: a fault that may not go to another node would end in SIGBUS.
  if (const Home home = this->home(); home.is_set()) bind_home(run, home, proves ? BindMode::kBind : BindMode::kPreferred);
  return true;
}

int Backer::map_plain(const Run& run, bool thp) const {
  const std::size_t bytes = run.count * kHugeSize;
  const int error = os_->map_new(run.at(0), bytes);
  if (error == EEXIST) {
    // Somebody mapped something between the look at the window and now.
    if (run.count == 1) {
      run.units[0].state = UnitState::kLost;
      return EEXIST;
    }
    const std::size_t half = run.count / 2;
    const int first = map_plain(run.part(0, half), thp);
    const int second = map_plain(run.part(half, run.count - half), thp);
    return first != 0 ? first : second;
  }
  if (error != 0) return error;
  // Advice that says no is in the way of huge pages later on (MADV_COLLAPSE), so it is given only where it is needed.
  const bool advises = config_.kind != HeapKind::kTouchedPages || os_->thp_mode() == 2;
  const bool advised = advises && os_->advise_thp(run.at(0), bytes, thp) == 0 && thp;
  set_mapped(run, advised ? UnitKind::kThp : UnitKind::kBase);
  // Each fault then takes the nearest of the nodes.
  if (config_.keeps_to_nodes && !has_policy()) bind(run.at(0), bytes, BindMode::kBind);
  return 0;
}

int Backer::replace_with_thp(const Run& unit) const {
  if (const int error = os_->map_plain(unit.at(0), kHugeSize); error != 0) return error;
  const bool advised = os_->thp_mode() != 0 && os_->advise_thp(unit.at(0), kHugeSize, true) == 0;
  set_mapped(unit, advised ? UnitKind::kThp : UnitKind::kBase);
  return 0;
}

// ---- proving -----------------------------------------------------------------------------------------------------

int Backer::prove_hugetlb(const Run& run) const {
  if (node_is_gone()) {
    note_fallback(Fallback::kNodeGone, true);
    if (config_.strict) return ENOMEM;
  }
  for (std::size_t i = 0; i < run.count; i++) {
    const Run unit = run.part(i, 1);
    // Where mbind was refused the kernel takes any node's huge page once our pool has none, and says nothing.
    const bool unbound = has_policy() && unit.units->bound == BindMode::kDefault;
    int error = unbound && off_pool(kHugeSize, kHugeSize) != kNoFallback ? ENOMEM : os_->populate(unit.at(0), kHugeSize);
    if (error == 0) {
      unit.units->state = UnitState::kBacked;
      continue;
    }
    note_fallback(error == EINVAL ? Fallback::kNoPopulate : Fallback::kHugetlbDry, config_.huge_pages != HugePagesOption::kAuto);
    if ((error = replace_with_thp(unit)) != 0) return error;
    if ((error = prove_plain(unit, false)) != 0) return error;
  }
  return 0;
}

// Bound while it is proven, so that its pages lie where they should.
//
// has_room: the node was found to have room for it.
int Backer::prove_plain(const Run& run, bool has_room) const {
  const std::size_t bytes = run.count * kHugeSize;
  if (!has_policy()) {
    // The program's own faults do as well, and memory that it never touches costs nothing. What was mapped for another home
    // may have its policy still.
    const Home home = this->home();
    const auto differs = [&](const Unit& u) { return home.is_set() || u.bound != BindMode::kDefault; };
    for_each_run(run.units, run.count, differs,
                 [&](std::size_t first, std::size_t n) { bind_home(run.part(first, n), home, home.mode); });
    set_all(run, UnitState::kBacked);
    return 0;
  }
  if (node_is_gone()) {
    note_fallback(Fallback::kNodeGone, true);
    if (config_.strict) return ENOMEM;
  }
  if (!has_room && nodes_lack_room(bytes)) return ENOMEM;
  const bool bound = bind(run.at(0), bytes, config_.policy) == 0;
  const int error = os_->populate(run.at(0), bytes);
  // Without the call plain memory is faulted in by use: slower the first time, as safe.
  if (error != 0 && error != EINVAL) {
    os_->discard(run.at(0), bytes);  // what was to be had would be nobody's
    return error;
  }
  if (bound) {
    set_bound(run, config_.policy);
    loosen(run);
  }
  set_all(run, UnitState::kBacked);
  return 0;
}

void Backer::loosen(const Run& run) const {
  const BindMode policy = lasting_policy();
  if (run.units[0].bound == policy || os_->bind(run.at(0), run.count * kHugeSize, policy, config_.nodes) != 0) return;
  set_bound(run, policy);
}

void Backer::prefer_copies(const Run& run) const {
  if (!has_policy() || lasting_policy() != BindMode::kDefault) return;
  if (os_->bind(run.at(0), run.count * kHugeSize, BindMode::kPreferred, config_.nodes) == 0) set_bound(run, BindMode::kPreferred);
}

int Backer::back(const Run& run, std::size_t needed, Request* request) const {
  bool refused = false;
  // Asked again: the process may have forked since the request was decided.
  if (request->hugetlb && !pool_is_left()) {
    const std::size_t span = request->steps ? run.count : needed;
    for_each_run(run.units, span, is_reserved, [&](std::size_t first, std::size_t n) {
      const std::size_t taken = n < request->hugetlb_units ? n : request->hugetlb_units;
      request->hugetlb_units -= taken;
      if (taken != 0) refused |= !map_hugetlb(run.part(first, taken), request->proves);
    });
  }
  int error = 0;
  const auto keep_first = [&error](int e) { error = error != 0 ? error : e; };
  for_each_run(run.units, needed, is_reserved, [&](std::size_t first, std::size_t n) {
    keep_first(map_plain(run.part(first, n), request->thp));
  });
  if (error != 0) return error;
  // Where plain memory cannot be mapped either, it is the process's limit that refuses.
  if (refused) note_fallback(Fallback::kHugetlbRefused, true);
  for_each_run(run.units, needed, is_mapped_hugetlb, [&](std::size_t first, std::size_t n) {
    if (first_touch() && !request->proves) {
      set_all(run.part(first, n), UnitState::kBacked);
    } else if (error == 0) {
      keep_first(prove_hugetlb(run.part(first, n)));
    }
  });
  for_each_run(run.units, needed, is_mapped_plain, [&](std::size_t first, std::size_t n) {
    if (error == 0) keep_first(prove_plain(run.part(first, n), true));
  });
  return error;
}

// Tells memory where the program's faults shall put it. Where that is refused the kernel puts it where the program runs,
// which is there.
void Backer::bind_home(const Run& run, Home home, BindMode mode) const {
  const NodeSet nodes = home.is_set() ? NodeSet::of(home.node) : NodeSet();
  if (os_->bind(run.at(0), run.count * kHugeSize, mode, nodes) != 0) note_fallback(Fallback::kBindRefused, true);
  set_bound(run, home.mode);
  const auto place = static_cast<std::int16_t>(home.is_set() ? home.node.value + 1 : 0);
  for (std::size_t i = 0; i < run.count; i++) __atomic_store_n(&run.units[i].place, place, __ATOMIC_RELAXED);
}

// Nobody populates it: without a policy it would lie where it is first written to, on a node that the policy forbids, even.
// PREFERRED, since nothing proves that the node has room.
int Backer::back_small(const Run& unit) const {
  if (is_reserved(*unit.units)) {
    if (const int error = map_plain(unit, false); error != 0) return error;
    const BindMode mode = lasting_policy() == BindMode::kDefault ? BindMode::kPreferred : config_.policy;
    if (has_policy() && bind(unit.at(0), kHugeSize, mode) == 0) set_bound(unit, mode);
  }
  set_all(unit, UnitState::kBacked);
  return 0;
}

// ---- giving back -------------------------------------------------------------------------------------------------

bool Backer::unmap(const Run& run) const {
  if (os_->unmap(run.at(0), run.count * kHugeSize) != 0) return false;
  set_all(run, UnitState::kReserved);
  return true;
}

void Backer::release(const Run& run) const {
  const bool scarce = os_->mappings_are_scarce();
  const auto is_plain = [](const Unit& u) { return u.backed() && !u.hugetlb(); };
  const auto is_2m = [](const Unit& u) { return u.backed() && u.kind == UnitKind::kHuge2M; };
  const auto give_back = [&](std::size_t first, std::size_t n, bool unmaps, bool file) {
    const Run part = run.part(first, n);
    const std::size_t bytes = n * kHugeSize;
    const auto drop = [&] { return (file ? os_->punch(part.at(0), bytes) : os_->discard(part.at(0), bytes)) == 0; };
    // Locked memory keeps its pages while it is mapped, and so does hugetlb memory before Linux 5.18.
    if (!unmaps && drop()) return set_all(part, UnitState::kMapped);
    // A file that is mapped shared keeps the pages of what is no longer mapped.
    if (unmaps && file) drop();
    // Where there are too many mappings the pages alone can go. If their reservation goes with them, a store of the
    // program could find the pool dry: nobody may use these addresses any more.
    if (unmap(part) || !unmaps || !drop()) return;
    set_all(part, first_touch() && part.units->hugetlb() ? UnitState::kLost : UnitState::kMapped);
  };
  // Touched pages may have been collapsed, and begin anew with base pages.
  const bool unmaps = scarce || config_.kind == HeapKind::kTouchedPages;
  for_each_run(run.units, run.count, is_plain, [&](std::size_t first, std::size_t n) { give_back(first, n, unmaps, false); });
  // A page that is dropped does not get its reservation back; the next fault could find the pool dry.
  for_each_run(run.units, run.count, is_2m, [&](std::size_t first, std::size_t n) {
    give_back(first, n, scarce || first_touch() || pool_is_left(), config_.source == HugeSource::kSharedFile);
  });
  for (std::size_t i = 0; i < run.count; i++) {
    if (!run.units[i].backed()) __atomic_store_n(&run.units[i].place, std::int16_t{0}, __ATOMIC_RELAXED);
  }
}

int Backer::collapse(const Run& unit) const {
  // Where all memory gets huge pages unless it is told otherwise, ours was told.
  const bool told = os_->thp_mode() == 2;
  if (told) os_->advise_thp(unit.at(0), kHugeSize, true);
  int error = os_->collapse(unit.at(0), kHugeSize);
  if (error == ENOSYS) {
    // Then the kernel does it in its own time, and the advice has to stay.
    error = told ? 0 : os_->advise_thp(unit.at(0), kHugeSize, true);
  } else if (told) {
    os_->advise_thp(unit.at(0), kHugeSize, false);
  }
  if (error == 0) unit.units->kind = UnitKind::kThp;
  return error;
}

void Backer::forget_unbacked(const Run& run) const {
  const auto is_open = [](const Unit& u) { return !u.backed() && u.state != UnitState::kLost; };
  for_each_run(run.units, run.count, is_open, [&](std::size_t first, std::size_t n) {
    // A part of a page of 1 GiB cannot be taken out.
    if (!unmap(run.part(first, n))) set_all(run.part(first, n), UnitState::kLost);
  });
}

// ---- pages of 1 GiB ----------------------------------------------------------------------------------------------

bool Backer::map_1g(const Run& group) const {
  NH_ASSERT(group.count * kHugeSize == GiB && is_aligned(group.start, GiB));
  if (config_.huge_pages != HugePagesOption::k1G || !may_use_pool()) return false;
  const Home home = this->home();
  const bool proves = !first_touch() || home.is_set();
  if (const Fallback why = off_pool(GiB, GiB); why != kNoFallback) {
    note_fallback(why, true);
    return false;
  }
  const Reservation reservation = proves ? Reservation::kNone : Reservation::kFull;
  if (os_->map_new_hugetlb(group.at(0), GiB, GiB, config_.source, reservation) != 0) {
    note_fallback(Fallback::kHugetlbRefused, true);
    return false;
  }
  const bool bound = has_policy() && bind(group.at(0), GiB, config_.policy) == 0;
  int error = !bound && config_.strict && node_is_gone() ? ENOMEM : 0;
  if (home.is_set()) bind_home(group, home, BindMode::kBind);
  if (error == 0 && proves) error = os_->populate(group.at(0), GiB);
  if (error != 0) {
    os_->unmap(group.at(0), GiB);
    note_fallback(Fallback::kHugetlbDry, true);
    return false;
  }
  set_mapped(group, UnitKind::kHuge1G);
  if (bound) set_bound(group, config_.policy);
  if (home.is_set()) set_bound(group, home.mode);
  set_all(group, UnitState::kBacked);
  return true;
}

}  // namespace nh
