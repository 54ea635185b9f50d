// What a Backer finds out before it backs a request: whether pools and nodes have room for it.
#include <cerrno>

#include "base/bits.h"
#include "heap/backing.h"

namespace nh {
namespace {

bool wants_hugetlb(HugePagesOption o) {
  return o == HugePagesOption::kAuto || o == HugePagesOption::k2M || o == HugePagesOption::k1G;
}

template <typename Visit>
void for_each_node(const NodeSet& nodes, Visit&& visit) {
  for (NodeId n = nodes.first(); n.valid(); n = nodes.next(NodeId(n.value + 1))) visit(n);
}

}  // namespace

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
  // nothing; by weights that may be nearly all of it. At least one page on our node otherwise. What is added on demand comes
  // from whichever node the fault is on.
  const bool weighted = config_.policy == BindMode::kWeighted;
  const bool everywhere = weighted || config_.policy == BindMode::kInterleave;
  const std::size_t pages = everywhere ? div_up(bytes, page_bytes) : 1;
  if (pool.available() + pool.overcommit < pages) return Fallback::kHugetlbShort;
  const std::size_t wanted = everywhere && !weighted ? div_up(pages, config_.nodes.count()) : pages;
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
  const bool plain = config_.kind == HeapKind::kPaged || config_.kind == HeapKind::kTouchedPages || config_.turns != nullptr;
  return !plain && wants_hugetlb(config_.huge_pages);
}

void Backer::note_off_pool(Fallback why) const {
  note_fallback(why, config_.huge_pages != HugePagesOption::kAuto && why != Fallback::kHugetlbLeft);
}

bool Backer::pool_serves(std::size_t bytes) const {
  if (!may_use_pool()) return false;
  const Fallback why = off_pool(kHugeSize, bytes);
  if (why != kNoFallback) note_off_pool(why);
  return why == kNoFallback;
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
    if (!request->hugetlb) note_off_pool(why);
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

}  // namespace nh
