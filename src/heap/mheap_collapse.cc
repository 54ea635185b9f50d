// Touched pages that have come to rest become huge pages.
//
// Base pages are what lets each page of an array lie where its thread is. Once they lie there, nothing is lost by a huge page
// where all of them are on one node. So the scavenger looks at units that nobody has taken or freed pages of for a while,
// asks the kernel for the nodes of all their pages, and has those collapsed that lie on one. Arrays begin within a page, so
// that where two threads' parts meet at a unit its first page is both's: that one may lie elsewhere.
//
// Not while a child lives, which may share the pages. Where the kernel refuses (prctl, locked memory) it is not asked again
// and again.
#include <cerrno>

#include "heap/mheap.h"

namespace nh {
namespace {

constexpr std::size_t kPagesOfUnit = kHugeSize / kOsPageSize;
constexpr std::size_t kAddressesPerCall = 64;
// So many rounds without a unit that could be collapsed are made before the heap waits for new objects: programs fill their
// arrays when they like.
constexpr unsigned kLooks = 16;
constexpr unsigned kMostRefusals = 8;
// Units looked at under the lock in one step.
constexpr std::size_t kUnitsPerStep = 4096;

enum class Rest : std::uint8_t { kOnOneNode, kMixed, kNotYet };

// Where the pages of a unit lie.
Rest rest_of(const OsOps& os, std::uintptr_t start) {
  const void* addresses[kAddressesPerCall];
  int nodes[kAddressesPerCall];
  int node = -1;
  std::size_t hidden = 0;
  for (std::size_t page = 0; page < kPagesOfUnit; page += kAddressesPerCall) {
    for (std::size_t i = 0; i < kAddressesPerCall; i++) {
      addresses[i] = reinterpret_cast<const void*>(start + (page + i) * kOsPageSize);
    }
    if (os.nodes_of(addresses, kAddressesPerCall, nodes) != 0) return Rest::kMixed;
    for (std::size_t i = 0; i < kAddressesPerCall; i++) {
      if (nodes[i] == -ENOENT) {
        hidden++;
      } else if (nodes[i] < 0) {
        return Rest::kNotYet;  // it was only read so far
      } else if (page + i != 0) {
        if (node < 0) node = nodes[i];
        if (nodes[i] != node) return Rest::kMixed;
      }
    }
    if (hidden > kPagesOfUnit / 2) return Rest::kNotYet;
  }
  const bool complete = hidden == 0 || os.all_exist(reinterpret_cast<void*>(start), kHugeSize);
  return complete ? Rest::kOnOneNode : Rest::kNotYet;
}

}  // namespace

// Pages have to rest from now on.
void MHeap::note_taken_L(PageId first, PageCount pages) {
  note_freed_L(first, pages);
  if (refusals_ < kMostRefusals && config_.backing.huge_pages != HugePagesOption::kOff) {
    looks_left_.store(kLooks, std::memory_order_relaxed);
  }
}

bool MHeap::may_rest_L(UnitId u) {
  const Unit& unit = arenas_.unit(u);
  if (!unit.backed() || unit.busy() || unit.kind != UnitKind::kBase) return false;
  return __atomic_load_n(&unit.place, __ATOMIC_RELAXED) != kMixed &&
         !arenas_.pages().is_free(u.first_page(), PageCount(kPagesPerHuge));
}

MHeap::Collapsed MHeap::collapse(unsigned most, std::uint32_t rest_ticks) {
  Collapsed done;
  if (!may_collapse()) return done;
  if (os_->thp_mode() <= 0) {
    looks_left_.store(0, std::memory_order_relaxed);
    return done;
  }
  if (os_->has_children()) return {0, false, rest_ticks};
  LockGuard guard(lock_);
  unsigned tried = 0;
  UnitId u = next_look_;
  const UnitId stop = u + UnitCount(kUnitsPerStep);
  for (; u < stop && u < arenas_.unit_end() && tried < most && refusals_ < kMostRefusals; ++u) {
    if (!may_rest_L(u)) continue;
    Unit& unit = arenas_.unit(u);
    std::uint32_t left = rest_ticks;
    if (const std::uint32_t age = age_of_L(unit); age < rest_ticks) {
      left = rest_ticks - age;
    } else {
      tried++;
      Rest rest = Rest::kNotYet;
      int error = 0;
      work_on_L({u, u + UnitCount(1)}, [&](const Backer::Run& run) {
        rest = rest_of(*os_, run.start);
        if (rest == Rest::kOnOneNode) error = backer_.collapse(run);
      });
      if (rest == Rest::kMixed) __atomic_store_n(&unit.place, kMixed, __ATOMIC_RELAXED);
      refusals_ = error == EINVAL ? refusals_ + 1 : error == 0 && rest == Rest::kOnOneNode ? 0 : refusals_;
      if (rest == Rest::kOnOneNode && error == 0) done.units++;
      if (rest == Rest::kMixed || (rest == Rest::kOnOneNode && error == 0)) continue;
      unit.freed_tick = tick();  // it begins to rest anew
    }
    if (next_rest_ == 0 || left < next_rest_) next_rest_ = left;
  }
  has_collapsed_ |= done.units != 0;
  next_look_ = u;
  if (refusals_ >= kMostRefusals) {
    looks_left_.store(0, std::memory_order_relaxed);
  } else if (u < arenas_.unit_end()) {
    done.more = true;
  } else {
    // A round is over.
    const unsigned looks = looks_left_.load(std::memory_order_relaxed);
    if (!has_collapsed_ && looks != 0) looks_left_.store(next_rest_ == 0 ? 0 : looks - 1, std::memory_order_relaxed);
    if (may_collapse()) done.wait = next_rest_;
    next_look_ = UnitId(0);
    next_rest_ = 0;
    has_collapsed_ = false;
  }
  return done;
}

}  // namespace nh
