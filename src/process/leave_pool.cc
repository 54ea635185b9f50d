// One pass over what lies in pools:
//
//   claim      no thread backs or releases units meanwhile
//   list       the runs of huge pages, cut at the borders of mappings, each with what the program asked of its mapping
//   plan       what is to be moved: as much as there is room and time for, small objects first
//   prepare    a place for the copies of each part, as long as the part and mapped, bound and advised as a whole. Page k goes
//              to place k, so that the mappings of neighbours merge again when the copies are moved over their pages:
//              a run of any length is one mapping afterwards. The copies' memory is there before anybody has to wait.
//   move       os/page_mover.h
//   settle     the heap learns what became ordinary memory; what did not is kept from children
//
// Nothing waits for a lock between the first protected page and the last: a thread that holds one may be waiting for us.
#include "process/leave_pool.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "base/bits.h"
#include "base/check.h"
#include "base/format.h"
#include "base/lock.h"
#include "heap/backing.h"
#include "heap/mheap.h"
#include "os/fork_advice.h"
#include "os/mappings.h"
#include "os/page_mover.h"
#include "os/room.h"
#include "os/thread_places.h"
#include "os/thread_policy.h"
#include "process/pool_runs.h"
#include "process/process.h"
#include "process/scratch.h"
#include "process/signals_blocked.h"

namespace nh {
namespace {

// Why something stays.
enum class Stay : std::uint8_t { kNothing, kTime, kRoom, kThreads, kUnknown };

struct Part {
  PoolRun run;
  bool movable = true;
  bool read_only = false;
  bool inaccessible = false;
  bool not_dumped = false;
  bool not_forked = false;  // the program has seen to it, or an earlier fork
  std::size_t wanted = 0;   // bytes at the start that are to be moved
  char* copy = nullptr;     // a place as long as that
  bool thp = false;
  std::size_t first_move = 0;  // of the order, for those bytes

  char* end() const { return run.start + run.bytes; }
};

class Leaving {
 public:
  void run();

 private:
  void keep(const PoolRun& run);
  void list_runs();
  void cut_at_mappings();
  bool may_stop_stores();
  void plan();
  std::size_t room_for(const PoolRun& run);
  void prepare_copy(Part& part);
  bool is_stack_or_tls(const char* page, std::size_t bytes) const;
  void avoid_thread_records();
  void move();
  // What becomes of a page.
  enum class Fate : std::uint8_t { kMoved, kKeptAlready, kMissing, kLost, kShared };
  Fate fate_of(const Part& part, std::size_t at);
  void settle(Part& part);
  void say() const;

  const OsOps& os_ = linux_os();
  const bool share_ = g_process.options.fork == ForkOption::kCow;
  Scratch<PoolRun> runs_;
  Scratch<Part> parts_;
  Scratch<PageMove> moves_;
  PageMap pages_;
  WriteProtection protection_;
  bool other_threads_ = true;
  Stay reason_ = Stay::kNothing;  // why not all was moved: the first reason
  std::size_t left_ = 0;          // what children lose
};

// One thread at a time. Not a Lock: those must not be held while a heap's lock is waited for.
constinit std::atomic<std::uint32_t> g_leaving{0};
std::size_t g_node_room[kMaxHeaps];  // what each heap's node has left, + 1; 0 = not asked yet

// What there is no room to think about.
void Leaving::keep(const PoolRun& run) {
  if (share_ && !run.shared) return;
  if (keep_from_children(run.start, run.bytes) == 0) note_kept(run);
  if (reason_ == Stay::kNothing) reason_ = Stay::kRoom;
  left_ += run.bytes;
}

void Leaving::list_runs() {
  std::size_t count = 0;
  for_each_pool_run([](void* n, const PoolRun&) { ++*static_cast<std::size_t*>(n); }, &count);
  // Objects come and go meanwhile, which may part a run in two.
  const bool ok = runs_.make(2 * count + 64) && parts_.make(4 * count + 1024);
  struct Argument {
    Leaving* self;
    bool ok;
  } argument = {this, ok};
  const auto visit = [](void* argument_, const PoolRun& run) {
    const Argument& a = *static_cast<Argument*>(argument_);
    if (!a.ok || !a.self->runs_.add(run)) a.self->keep(run);
  };
  for_each_pool_run(visit, &argument);
  std::sort(runs_.begin(), runs_.end(), [](const PoolRun& a, const PoolRun& b) { return a.start < b.start; });
}

// Both lists are in the order of addresses.
void Leaving::cut_at_mappings() {
  Mappings mappings;
  PoolRun* run = runs_.begin();
  bool told = false;
  for (Mapping m; mappings.next(&m); told = true) {
    while (run != runs_.end() && address(run->start) + run->bytes <= m.start) run++;
    for (PoolRun* r = run; r != runs_.end() && address(r->start) < m.end; r++) {
      const std::uintptr_t start = std::max(address(r->start), m.start);
      const std::uintptr_t end = std::min(address(r->start) + r->bytes, m.end);
      Part part;
      part.run = *r;
      part.run.start = reinterpret_cast<char*>(start);
      part.run.bytes = end - start;
      part.read_only = m.read && !m.write;
      part.inaccessible = !m.read;
      part.not_dumped = m.not_dumped;
      part.not_forked = m.not_forked;
      // Ordinary memory: a child made behind libc's back while its parent was here.
      if (!m.hugetlb) {
        note_ordinary(part.run, false);
        continue;
      }
      part.movable = m.read && !m.execute && !m.other && !m.not_forked;
      if (!parts_.add(part)) keep(part.run);
    }
  }
  if (told) return;
  // No /proc: memory of small objects is as we made it.
  for (const PoolRun& r : runs_) {
    Part part;
    part.run = r;
    part.movable = r.small;
    if (!parts_.add(part)) keep(r);
  }
}

// Calls that a filter does not know may end the process.
bool Leaving::may_stop_stores() {
  const ProcessFacts facts = process_facts();
  other_threads_ = facts.threads != 1;
  if (!other_threads_) return true;
  if (facts.filtered || !protection_.open()) return false;
  for (Part& part : parts_) {
    if (part.movable && !protection_.add(part.run.start, part.run.bytes)) part.movable = false;
  }
  return true;
}

std::size_t Leaving::room_for(const PoolRun& run) {
  const bool bound = run.bound == BindMode::kBind || run.bound == BindMode::kPreferred;
  if (!bound || g_process.topology.heap_count() < 2) return SIZE_MAX;
  std::size_t& room = g_node_room[run.heap.value];
  if (room == 0) room = room_of_node(nodes_of_heap(run.heap).first()) / 10 * 9 + 1;
  return room - 1;
}

void Leaving::plan() {
  std::fill(std::begin(g_node_room), std::end(g_node_room), 0);
  const std::size_t room = room_of_process() / 10 * 9, most = g_process.options.fork_max;
  std::size_t sum = 0;
  for (const bool small : {true, false}) {
    for (Part& part : parts_) {
      if (!part.movable || part.run.small != small || (share_ && !small && !part.run.shared)) continue;
      const std::size_t here = room_for(part.run);
      const std::size_t left = std::min({room - sum, most - std::min(most, sum), here});
      part.wanted = align_down(std::min(left, part.run.bytes), part.run.page_bytes);
      sum += part.wanted;
      if (here != SIZE_MAX) g_node_room[part.run.heap.value] -= part.wanted;
      if (part.wanted < part.run.bytes && reason_ == Stay::kNothing) reason_ = room < most ? Stay::kRoom : Stay::kTime;
    }
  }
}

void Leaving::prepare_copy(Part& part) {
  const PoolRun& run = part.run;
  void* const copy = os_.reserve(part.wanted, kHugeSize);
  if (copy == nullptr || os_.make_writable(copy, part.wanted) != 0) {
    if (copy != nullptr) os_.unmap(copy, part.wanted);
    if (reason_ == Stay::kNothing) reason_ = Stay::kRoom;
    part.wanted = 0;
    return;
  }
  part.copy = static_cast<char*>(copy);
  if (run.bound != BindMode::kDefault) os_.bind(copy, part.wanted, run.bound, nodes_of_heap(run.heap));
  bool proven = true;
  part.thp = os_.thp_mode() != 0 && os_.advise_thp(copy, part.wanted, true) == 0;
  // Flags travel with the mapping.
  if (part.not_dumped && keep_from_dumps(copy, part.wanted) != 0) part.movable = false;
  part.first_move = moves_.size();
  // Where no policy says it, a copy is to lie where its page does. Nothing is asked of a machine with one node.
  const bool by_page = run.bound == BindMode::kDefault && g_process.topology.heap_count() > 1;
  ThreadPolicy policy;
  for (std::size_t at = 0; at < part.wanted; at += run.page_bytes) {
    PageMove move = {run.start + at, part.copy + at, run.page_bytes, run.small, !run.shared, part.read_only, MoveResult::kPlanned};
    // A page that is not there yet needs no copy. A kernel without the call faults the copy in by use.
    const PageFacts facts = pages_.facts(move.page);
    int node = -1;
    if (by_page && facts.present) {
      const void* const page = move.page;
      if (os_.nodes_of(&page, 1, &node) == 0 && node >= 0) policy.prefer(NodeId(node));
    }
    const int error = facts.known && !facts.present ? 0 : os_.populate(move.copy, move.bytes);
    if (!part.movable || (error != 0 && error != EINVAL)) move.result = MoveResult::kFailed;
    proven &= error == 0;
    moves_.add(move);
  }
  const BindMode lasting = lasting_policy_of(run);
  if (proven && run.bound != lasting && os_.bind(copy, part.wanted, lasting, nodes_of_heap(run.heap)) == 0) {
    part.run.bound = lasting;
  }
}

// The kernel stores into a thread's area of restartable sequences whenever the thread changes its CPU. Where it may not wait
// for us there, it ends the process instead.
void Leaving::avoid_thread_records() {
  if (!other_threads_ || protection_.stops_system_calls()) return;
  const auto avoid = [](void* argument, std::uintptr_t at) {
    if (!may_lie_on_pool(reinterpret_cast<const void*>(at))) return;
    for (PageMove& move : *static_cast<Scratch<PageMove>*>(argument)) {
      const std::uintptr_t start = address(move.page);
      if (start < at + 8 * KiB && at < start + move.bytes + 64 * KiB) move.result = MoveResult::kFailed;
    }
  };
  if (for_each_thread_record(avoid, &moves_)) return;
  for (PageMove& move : moves_) move.result = MoveResult::kFailed;
}

void Leaving::move() {
  std::size_t pages = 0;
  for (Part& part : parts_) pages += part.wanted / part.run.page_bytes;
  if (pages == 0) return;
  if (!moves_.make(pages)) {
    for (Part& part : parts_) part.wanted = 0;
    if (reason_ == Stay::kNothing) reason_ = Stay::kRoom;
    return;
  }
  for (const bool small : {true, false}) {
    for (Part& part : parts_) {
      if (part.run.small == small && part.wanted != 0) prepare_copy(part);
    }
  }
  avoid_thread_records();
  MoveOrder order = {moves_.begin(), moves_.size(), other_threads_ ? &protection_ : nullptr, &pages_};
  const bool on_own_stack =
      !may_lie_on_pool(__builtin_frame_address(0)) && !may_lie_on_pool(__builtin_thread_pointer());
  move_pages(order, on_own_stack);
}

bool Leaving::is_stack_or_tls(const char* page, std::size_t bytes) const {
  const auto has = [&](const void* p) { return address(p) - address(page) < bytes; };
  const char* const frame = static_cast<const char*>(__builtin_frame_address(0));
  return has(frame) || has(frame - 16 * KiB) || has(frame + 16 * KiB) || has(__builtin_thread_pointer());
}

Leaving::Fate Leaving::fate_of(const Part& part, std::size_t at) {
  const MoveResult result =
      at < part.wanted ? moves_[part.first_move + at / part.run.page_bytes].result : MoveResult::kPlanned;
  if (result == MoveResult::kMoved) return Fate::kMoved;
  if (part.not_forked) return Fate::kKeptAlready;
  if (share_ && !part.run.shared) return Fate::kShared;
  // A child cannot live without its own stack.
  if (is_stack_or_tls(part.run.start + at, part.run.page_bytes)) return Fate::kShared;
  // Nobody misses them: devices use them, or nobody may.
  if (result == MoveResult::kPinned || part.inaccessible) return Fate::kMissing;
  if (result == MoveResult::kUnknown && reason_ == Stay::kNothing) reason_ = Stay::kUnknown;
  return Fate::kLost;
}

// Neighbours that fare alike are dealt with in one call.
void Leaving::settle(Part& part) {
  const std::size_t step = part.run.page_bytes;
  for (std::size_t first = 0; first < part.run.bytes;) {
    const Fate fate = fate_of(part, first);
    const bool has_copy = first < part.wanted;
    std::size_t end = first + step;
    while (end < part.run.bytes && (end < part.wanted) == has_copy && fate_of(part, end) == fate) end += step;
    PoolRun piece = part.run;
    piece.start += first;
    piece.bytes = end - first;
    if (fate == Fate::kMoved) {
      note_ordinary(piece, part.thp);
      tell_of_new_pages(piece.start, piece.bytes);
    } else if (has_copy) {
      os_.unmap(part.copy + first, piece.bytes);
    }
    const bool keep = fate == Fate::kLost || fate == Fate::kMissing;
    if (fate == Fate::kKeptAlready || (keep && keep_from_children(piece.start, piece.bytes) == 0)) note_kept(piece);
    if (fate == Fate::kLost) left_ += piece.bytes;
    first = end;
  }
}

void Leaving::say() const {
  static bool said = false;
  if (left_ == 0 || said || g_process.options.quiet) return;
  said = true;
  Text<500> line;
  line.text("fork: ").bytes(left_).text(" on huge pages of a pool are not there in children, which get SIGSEGV there: ");
  switch (reason_) {
    case Stay::kTime: line.text("more than NUMAHEAP_FORK_MAX is in use"); break;
    case Stay::kRoom: line.text("there is no memory for a copy"); break;
    case Stay::kThreads: line.text("other threads cannot be stopped here (no userfaultfd, or a seccomp filter)"); break;
    case Stay::kUnknown: line.text("whether devices use it could not be found out"); break;
    default: line.text("it could not be copied");
  }
  line.text(". NUMAHEAP_FORK_MAX raises what is copied, NUMAHEAP_FORK=cow shares it, NUMAHEAP_HUGEPAGES=thp avoids it");
  warn_line(line.c_str());
}

void Leaving::run() {
  list_runs();
  const auto concerns_us = [this](const PoolRun& run) { return !share_ || run.small || run.shared; };
  if (std::none_of(runs_.begin(), runs_.end(), concerns_us)) return say();
  cut_at_mappings();
  if (may_stop_stores()) {
    plan();
    move();
  } else {
    reason_ = Stay::kThreads;
  }
  protection_.close();
  for (Part& part : parts_) settle(part);
  say();
}

void wait_for_turn() {
  while (g_leaving.exchange(1, std::memory_order_acquire) != 0) {
    about_to_wait();
    linux_os().futex_wait(&g_leaving, 1, 1'000'000);
  }
}

}  // namespace

void leave_pool_before_fork() {
  if (holds_a_heap()) return;
  leave_pool();
  if (!pool_in_use()) return;
  // No handler of the program may run meanwhile: it could store into protected memory, or fork.
  const SignalsBlocked signals_blocked;
  wait_for_turn();
  release_idle_pool_pages();
  {
    // What is claimed is ours: a library's hook in place of mmap that allocates must not wait for it in this thread.
    const OsWork os_work;
    // Without the claims the child shares what lies there, as if a handler had forked inside a heap.
    if (claim_pool_units()) Leaving().run();
    unclaim_pool_units();
  }
  g_leaving.store(0, std::memory_order_release);
  linux_os().futex_wake(&g_leaving, 1);
}

void repair_leave_pool_in_child() {
  if (g_leaving.exchange(0, std::memory_order_relaxed) != 0) forget_claims();
}

}  // namespace nh
