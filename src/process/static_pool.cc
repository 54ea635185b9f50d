// The program's arrays become a mapping of a pool by mremap, of the whole mapping at once, which keeps its reservation.
// Mapping the pool straight over them would lose them where it fails. Nothing here lies in the memory that is moved: a
// program that numaheap is linked into keeps its static data (advise_program_memory()).
#include "process/static_pool.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "heap/backing.h"
#include "heap/mheap.h"
#include "os/fork_advice.h"
#include "os/pagemap.h"
#include "process/process.h"
#include "process/stores_stopped.h"

namespace nh {
namespace {

constexpr unsigned kMaxParts = 16;
// Written by the constructor; never shorter, although a fork takes memory off the pool.
constinit AddressRange g_parts[kMaxParts];
constinit unsigned g_part_count = 0;
constinit std::atomic<std::size_t> g_left{0};  // bytes that may be on a pool and that children would miss
constinit bool g_kept = false;     // a fork has kept some from children

// As for first-touch memory of the heap: the reservation has to mean something. And a fork must be able to take it off.
bool pool_serves(std::size_t bytes) {
  if (!linux_os().can_leave_hugetlb()) {
    note_fallback(Fallback::kNoLeaving, true);
    return false;
  }
  Backer::Config config = g_process.heaps[g_process.first_touch].heap.backer().config();
  config.huge_pages = HugePagesOption::k2M;
  Backer backer;
  backer.init(linux_os(), config);
  Backer::Request request;
  request.bytes = bytes;
  return backer.decide(&request, true) == 0 && request.hugetlb;
}

// Copies what is there. ENOMEM, EFAULT: it is not to be had.
int copy_to(char* place, const AddressRange& range, bool zeroes) {
  const PageMap pages;
  const char* const from = static_cast<const char*>(range.begin());
  for (std::size_t at = 0; at < range.bytes(); at += kHugeSize) {
    if (zeroes && !pages.may_hold(from + at, kHugeSize)) continue;
    if (const int error = linux_os().populate(place + at, kHugeSize); error != 0) return error;
    std::memcpy(place + at, from + at, kHugeSize);
  }
  return 0;
}

// Where so much can be mapped that lies within its GiB as the range does. The kernel's mremap of hugetlb memory passes over
// parts that have no page tables by going on at the end of the GiB, of the old place and of the new one each for itself (6.18).
// Where these lie otherwise, pages come to lie beside the mapping: what they hold is lost, and they are lost to the machine.
char* place_like(const AddressRange& range) {
  const std::size_t span = range.bytes() + GiB;
  void* const start = linux_os().reserve(span, GiB);
  if (start == nullptr) return nullptr;
  linux_os().unmap(start, span);
  return static_cast<char*>(start) + range.start % GiB;
}

template <typename Visit>
void for_each_part(Visit&& visit) {
  for (unsigned i = 0; i < g_part_count; i++) visit(g_parts[i]);
}

}  // namespace

bool move_static_data_to_pool(const AddressRange& range, bool zeroes) {
  const OsOps& os = linux_os();
  if (g_part_count == kMaxParts || !pool_serves(range.bytes())) return false;
  char* const place = place_like(range);
  int error = ENOMEM;
  if (place != nullptr) {
    error = os.map_new_hugetlb(place, range.bytes(), kHugeSize, HugeSource::kAnonymous, Reservation::kFull);
  }
  if (error != 0) {
    note_fallback(Fallback::kHugetlbRefused, true);
    return false;
  }
  {
    const StoresStopped stopped;
    error = copy_to(place, range, zeroes);
    if (error == 0) error = os.move_mapping(place, range.begin(), range.bytes());
  }
  if (error != 0) {
    os.unmap(place, range.bytes());
    note_fallback(Fallback::kHugetlbDry, true);
    return false;
  }
  g_parts[g_part_count++] = range;
  g_left += range.bytes();
  return true;
}

bool static_data_on_pool() { return g_left != 0; }

bool is_static_on_pool(const void* p) {
  bool is = false;
  for_each_part([&](const AddressRange& part) { is |= part.contains(address(p)); });
  return is;
}

// What an earlier fork has moved or kept is seen by its mappings, and noted again.
void for_each_static_run(void (*visit)(void* argument, const PoolRun& run), void* argument) {
  if (g_left == 0) return;
  std::size_t all = 0;
  for_each_part([&](const AddressRange& part) { all += part.bytes(); });
  g_left = all;
  for_each_part([&](const AddressRange& part) {
    PoolRun run;
    run.start = static_cast<char*>(part.begin());
    run.bytes = part.bytes();
    run.page_bytes = kHugeSize;
    run.small = true;  // a child needs its variables
    visit(argument, run);
  });
}

void note_static_ordinary(std::size_t bytes) { g_left -= std::min(bytes, g_left.load()); }

void note_static_kept(std::size_t bytes) {
  note_static_ordinary(bytes);
  g_kept = true;
}

void lose_kept_static_data() {
  if (!g_kept) return;
  for_each_part([](const AddressRange& part) {
    for (std::size_t at = 0; at < part.bytes(); at += kHugeSize) close_hole(static_cast<char*>(part.begin()) + at, kHugeSize);
  });
  g_kept = false;
}

}  // namespace nh
