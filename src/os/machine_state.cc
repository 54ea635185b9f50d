#include "os/machine_state.h"

#include <atomic>
#include <cstring>
#include <type_traits>

#include <sched.h>
#include <sys/sysinfo.h>

#include "os/cgroup.h"
#include "os/linux_calls.h"
#include "os/readings.h"

namespace nh::linux_os_detail {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kCountersAge = 10 * kMillisecond;
constexpr std::uint64_t kCloseAge = kMillisecond;  // where a node has just enough left
constexpr std::uint64_t kSettingsAge = 1000 * kMillisecond;
constexpr std::uint64_t kForever = ~std::uint64_t{0};

// Other processes and the program's own page faults take memory between the reading and the use of it.
constexpr std::uint64_t kMarginShare = 64;  // of the node's memory
constexpr std::uint64_t kCloseShare = 16;

// How often each kind of event has happened. An answer is of use as long as the counts of those that concern it are what
// they were before it was read. They only rise, so equal sums mean equal counts.
std::atomic<std::uint32_t> g_forgotten{0};
std::atomic<std::uint32_t> g_given_back{0};
std::atomic<std::uint32_t> g_populated{0};

// acquire: the reading that follows comes after the system calls whose count was seen.
std::uint32_t setting_events() { return g_forgotten.load(std::memory_order_acquire); }
std::uint32_t counter_events() { return setting_events() + g_given_back.load(std::memory_order_acquire); }
std::uint32_t pool_events() { return counter_events() + g_populated.load(std::memory_order_acquire); }
// release: see above.
void count(std::atomic<std::uint32_t>& events) { events.fetch_add(1, std::memory_order_release); }

// An answer that threads read and renew without a lock.
//
// Its words are stored and loaded one by one, so a reader may see some of one reading and some of the next. That is as
// good as either: the kernel has each counter in a file of its own, and they are read one after the other. known_ is set
// after the words of the first reading (release) and never cleared, so that no reader sees words that were never
// written. read_at_ decides who renews: the thread that moves it on. Should that thread vanish before it is done (fork),
// somebody else's turn comes one interval later. A slow thread may store an old reading over a newer one; it lives no
// longer than any other answer.
template <typename Answer>
class Kept {
 public:
  bool known() const { return known_.load(std::memory_order_acquire); }

  // The answer, not older than `age` as far as another thread is not just renewing it. read(Answer*) reads it anew; where
  // that fails the old answer serves, and *answer stays as it is if there is none.
  template <typename Read>
  void ask(std::uint64_t age, std::uint32_t events, Read&& read, Answer* answer) {
    const std::uint64_t now = linux_os().now_ns();
    if (!known() || events_.load(std::memory_order_relaxed) != events || is_my_turn(now, age)) {
      read_at_.store(now, std::memory_order_relaxed);
      if (read(answer)) return store(*answer, events);
    }
    if (known()) load(answer);
  }

 private:
  static_assert(std::is_trivially_copyable_v<Answer> && sizeof(Answer) % sizeof(std::uint64_t) == 0);
  static constexpr unsigned kWords = sizeof(Answer) / sizeof(std::uint64_t);

  bool is_my_turn(std::uint64_t now, std::uint64_t age) {
    std::uint64_t before = read_at_.load(std::memory_order_relaxed);
    return now > before && now - before >= age &&
           read_at_.compare_exchange_strong(before, now, std::memory_order_relaxed);
  }
  void store(const Answer& answer, std::uint32_t events) {
    std::uint64_t words[kWords];
    std::memcpy(words, &answer, sizeof words);
    for (unsigned i = 0; i < kWords; i++) words_[i].store(words[i], std::memory_order_relaxed);
    events_.store(events, std::memory_order_relaxed);
    known_.store(true, std::memory_order_release);
  }
  void load(Answer* answer) const {
    std::uint64_t words[kWords];
    for (unsigned i = 0; i < kWords; i++) words[i] = words_[i].load(std::memory_order_relaxed);
    std::memcpy(answer, words, sizeof words);
  }

  std::atomic<std::uint64_t> words_[kWords];
  std::atomic<std::uint64_t> read_at_;
  std::atomic<std::uint32_t> events_;
  std::atomic<bool> known_;
};

struct PoolAnswer {
  HugePool pool;
  std::uint64_t reserved_before;  // g_reserved when the reading began
  std::uint64_t exists;
};
struct RoomAnswer {
  readings::NodeMemory memory;
  std::uint64_t granted_before;  // g_granted when the reading began
};
struct LimitAnswer {
  MemoryLimit limit;
  std::uint64_t exists;
};
struct Number {
  std::uint64_t value;
};

// Page sizes and nodes for which answers are kept. Others are read each time they are asked for.
constexpr unsigned kSizes = 2;
unsigned size_index(std::size_t page_bytes) { return page_bytes == kHugeSize ? 0 : page_bytes == GiB ? 1 : kSizes; }
bool is_kept(NodeId node) { return node.value < int{kMaxNodes}; }

// constinit: all of it works before any constructor has run.
constinit Kept<PoolAnswer> g_pools[kSizes];
constinit Kept<PoolAnswer> g_node_pools[kSizes][kMaxNodes];
constinit Kept<RoomAnswer> g_rooms[kMaxNodes];
constinit Kept<LimitAnswer> g_limit;
constinit Kept<Number> g_fault_limited[kSizes];
constinit Kept<Number> g_thp_mode;
constinit Kept<Number> g_machine_memory;
constinit Kept<Number> g_min_free;

std::atomic<std::uint64_t> g_reserved[kSizes];    // pages that mappings of ours were promised, ever
std::atomic<std::uint64_t> g_granted[kMaxNodes];  // bytes that nodes_have_room() has granted, ever

std::uint64_t constant(Kept<Number>& kept, std::uint64_t (*read)()) {
  Number number{};
  kept.ask(kForever, 0, [&](Number* out) { return (*out = {read()}, true); }, &number);
  return number.value;
}

// ---- control groups ----------------------------------------------------------------------------------------------
// What a look-up finds is too big for the stack, hence one for all and a mark of who uses it. Whoever finds it in use has
// an old answer or, where there is none yet, waits a little: the other thread reads files and calls nothing that could
// wait for this one. This thread itself may have been interrupted in there by a signal handler; so it does not wait long.
constinit ControlGroups g_groups;
std::atomic<bool> g_groups_in_use{false};
std::uint64_t g_groups_found_at = 0;  // these two: 0 = never; belong to whoever uses g_groups
std::uint32_t g_groups_events = 0;
constexpr int kPatience = 1000;

class GroupsUser {
 public:
  explicit GroupsUser(bool may_wait) {
    for (int i = 0; i < (may_wait ? kPatience : 1) && !ok_; i++) {
      if (i != 0) ::sched_yield();
      ok_ = !g_groups_in_use.exchange(true, std::memory_order_acquire);
    }
    if (ok_) renew();
  }
  ~GroupsUser() {
    if (ok_) g_groups_in_use.store(false, std::memory_order_release);
  }
  GroupsUser(const GroupsUser&) = delete;
  GroupsUser& operator=(const GroupsUser&) = delete;
  bool ok() const { return ok_; }

 private:
  void renew() {
    const std::uint64_t now = linux_os().now_ns();
    const std::uint32_t events = setting_events();
    if (g_groups_found_at != 0 && now - g_groups_found_at < kSettingsAge && g_groups_events == events) return;
    if (g_groups_events != events) g_groups.forget();
    g_groups.find("");
    const std::uint64_t machine = constant(g_machine_memory, machine_memory_bytes);
    g_groups.find_memory_limits(machine != 0 ? machine : kForever);
    g_groups_found_at = now;
    g_groups_events = events;
  }

  bool ok_ = false;
};

// ---- nodes -------------------------------------------------------------------------------------------------------

// What the kernel keeps back on a node of this size: its share of min_free_kbytes, and half as much again, where reclaim
// stops.
std::uint64_t kept_back(std::uint64_t node_bytes) {
  const std::uint64_t machine = constant(g_machine_memory, machine_memory_bytes) / KiB;
  const std::uint64_t node = node_bytes / KiB;
  const std::uint64_t all = constant(g_min_free, readings::min_free);
  const std::uint64_t share = machine <= node ? all : all / KiB * node / machine * KiB;
  return share + share / 2;
}

template <typename Visit>
void for_each_node(const NodeSet& nodes, Visit&& visit) {
  for (NodeId n = nodes.first(); n.valid(); n = nodes.next(NodeId(n.value + 1))) visit(n);
}

// What a node can spare. total: its memory; 0: the kernel does not tell.
std::uint64_t left_on(NodeId node, std::uint64_t age, std::uint64_t* total) {
  RoomAnswer room{};
  g_rooms[node.value].ask(age, counter_events(), [node](RoomAnswer* out) {
    out->granted_before = g_granted[node.value].load(std::memory_order_relaxed);
    readings::node_memory(node, &out->memory);
    return true;
  }, &room);
  *total = room.memory.total;
  const std::uint64_t granted = g_granted[node.value].load(std::memory_order_relaxed) - room.granted_before;
  const std::uint64_t kept = granted + *total / kMarginShare + kept_back(*total);
  return room.memory.to_be_had > kept ? room.memory.to_be_had - kept : 0;
}

bool have_room(const NodeSet& nodes, std::uint64_t bytes) {
  // Close to the end others matter more, and the answer is to be a younger one.
  for (const std::uint64_t age : {kCountersAge, kCloseAge}) {
    std::uint64_t left = 0, all = 0;
    bool known = true;
    for_each_node(nodes, [&](NodeId n) {
      std::uint64_t total = 0;
      if (is_kept(n)) left += left_on(n, age, &total);
      known &= total != 0;
      all += total;
    });
    if (!known) return true;
    if (left < bytes) return false;
    if (left - bytes >= all / kCloseShare) return true;
  }
  return true;
}

}  // namespace

bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out) {
  const unsigned size = size_index(page_bytes);
  if (size == kSizes || !is_kept(node)) return readings::huge_pool(page_bytes, node, out);
  Kept<PoolAnswer>& kept = node.valid() ? g_node_pools[size][node.value] : g_pools[size];
  PoolAnswer answer{};
  kept.ask(kCountersAge, pool_events(), [&](PoolAnswer* found) {
    found->reserved_before = g_reserved[size].load(std::memory_order_relaxed);
    found->exists = readings::huge_pool(page_bytes, node, &found->pool);
    return true;
  }, &answer);
  if (answer.exists == 0) return false;
  *out = answer.pool;
  if (!node.valid()) out->reserved += g_reserved[size].load(std::memory_order_relaxed) - answer.reserved_before;
  return true;
}

bool nodes_have_room(const NodeSet& nodes, std::size_t bytes) {
  if (!have_room(nodes, bytes)) return false;
  const std::uint64_t share = bytes / (nodes.empty() ? 1 : nodes.count());
  for_each_node(nodes, [share](NodeId n) {
    if (is_kept(n)) g_granted[n.value].fetch_add(share, std::memory_order_relaxed);
  });
  return true;
}

std::uint64_t memory_of(const NodeSet& nodes) {
  struct sysinfo info;
  if (readings::promises_anything() || ::sysinfo(&info) != 0) return UINT64_MAX;
  std::uint64_t sum = 0;
  bool known = false;
  for_each_node(nodes, [&](NodeId n) {
    readings::NodeMemory memory;
    readings::node_memory(n, &memory);
    sum += memory.total;
    known |= memory.total != 0;
  });
  return known ? sum + std::uint64_t{info.totalswap} * info.mem_unit : UINT64_MAX;
}

int thp_mode() {
  Number mode{};
  g_thp_mode.ask(kSettingsAge, setting_events(), [](Number* out) {
    out->value = static_cast<std::uint64_t>(std::int64_t{readings::thp_mode()});
    return true;
  }, &mode);
  return static_cast<int>(mode.value);
}

bool hugetlb_fault_limited(std::size_t page_bytes) {
  const unsigned size = size_index(page_bytes);
  if (size == kSizes) return true;
  // Where nothing is known a reservation is not trusted.
  Number limited{1};
  Kept<Number>& kept = g_fault_limited[size];
  kept.ask(kSettingsAge, setting_events(), [&](Number* out) {
    const GroupsUser user(!kept.known());
    if (user.ok()) out->value = g_groups.limits_hugetlb(page_bytes);
    return user.ok();
  }, &limited);
  return limited.value != 0;
}

bool memory_limit(MemoryLimit* out) {
  LimitAnswer answer{};
  g_limit.ask(kCountersAge, counter_events(), [](LimitAnswer* found) {
    const GroupsUser user(!g_limit.known());
    if (user.ok()) found->exists = g_groups.memory_limit(&found->limit);
    return user.ok();
  }, &answer);
  if (answer.exists != 0) *out = answer.limit;
  return answer.exists != 0;
}

void forget_machine_state() { count(g_forgotten); }
void note_given_back() { count(g_given_back); }

void note_populated(bool ok) { count(ok ? g_populated : g_given_back); }

void note_reserved(std::size_t page_bytes, std::size_t pages) {
  if (const unsigned size = size_index(page_bytes); size != kSizes) {
    g_reserved[size].fetch_add(pages, std::memory_order_relaxed);
  }
}

void repair_machine_state_after_fork() {
  // Another thread of the parent may have been at it; what it left half-done is found anew.
  if (g_groups_in_use.load(std::memory_order_relaxed)) g_groups.forget();
  g_groups_found_at = 0;
  g_groups_in_use.store(false, std::memory_order_relaxed);
}

}  // namespace nh::linux_os_detail
