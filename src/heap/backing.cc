#include "heap/backing.h"

#include <atomic>
#include <cerrno>

#include "base/bits.h"
#include "base/check.h"

namespace nh {
namespace {

bool is_reserved(const Unit& u) { return u.state == UnitState::kReserved; }
bool is_mapped_hugetlb(const Unit& u) { return u.state == UnitState::kMapped && u.hugetlb(); }
bool is_mapped_plain(const Unit& u) { return u.state == UnitState::kMapped && !u.hugetlb(); }

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

// ---- policies ----------------------------------------------------------------------------------------------------

// How many of these nodes the process may use at the moment.
unsigned Backer::allowed_of(const NodeSet& nodes) const {
  NodeSet allowed;
  if (!os_->allowed_nodes(&allowed)) return nodes.count();
  unsigned count = 0;
  for (NodeId n = nodes.first(); n.valid(); n = nodes.next(NodeId(n.value + 1))) count += allowed.has(n);
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
  const bool bound = config_.turns == nullptr && bind(run.at(0), bytes, config_.policy) == 0;
  const int error = config_.turns != nullptr ? populate_in_turns(run) : os_->populate(run.at(0), bytes);
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

int Backer::populate_in_turns(const Run& run) const {
  const auto node_of = [&](std::size_t i) { return config_.turns->of((run.start >> kHugeShift) + i); };
  int error = 0;
  for (std::size_t i = 0, end; i < run.count && error == 0; i = end) {
    for (end = i + 1; end < run.count && node_of(end) == node_of(i);) end++;
    error = os_->populate_on(run.at(i), (end - i) * kHugeSize, node_of(i));
  }
  return error;
}

void Backer::loosen(const Run& run) const {
  // What lies on the nodes whose turn it is has no policy.
  if (config_.turns != nullptr) return;
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
