// A fake operating system for tests of the layers above src/os/: a machine of any shape, whose every call can be made to
// fail, and which aborts with a message when its contract (os.h) is broken.
//
//   FakeOs os({.nodes = {{.memory_bytes = GiB, .pages_2m = 8}, {.memory_bytes = GiB}}});
//   os.fail_call(FakeCall::kPopulate, 3, EFAULT);   // the third from now
//   Heap heap(os.ops());
//   ...
//   EXPECT_EQ(os.check(), "");
//
// There is real memory under the addresses, so that the code under test can use what it maps. Memory that would not be
// accessible in production is not accessible here: a reservation faults on every access, a read-only range on writes,
// and hugetlb memory without reservation faults until populate() has proven its page. What it costs and where it lies
// is the model's (FakeAddressSpace). Under a window lies one inaccessible mapping of which the model knows nothing, so
// that nothing else of the test's process gets there; map_new() works inside windows only.
//
// One at a time per process (the table has no room for a context); calls may come from any thread.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "os/os.h"
#include "support/fake_address_space.h"

namespace nh::test {

enum class FakeCall : unsigned {
  kFindWindow,
  kIsUnmapped,
  kMappingsAreScarce,
  kHasRoom,
  kReserve,
  kMakeWritable,
  kUnmap,
  kMapNew,
  kMapNewReadable,
  kMapPlain,
  kAdviseThp,
  kPopulate,
  kDiscard,
  kPunch,
  kMapNewHugetlb,
  kMoveMapping,
  kBind,
  kNodesOf,
  kCollapse,
  kHugePool,
  kThpMode,
  kNowNs,
  kFutexWait,
  kFutexWake,
};
inline constexpr unsigned kFakeCalls = 24;

struct FakeOsConfig {
  std::vector<FakeNode> nodes = {FakeNode{}};
  // Either makes mappings scarce. SIZE_MAX: no limit.
  std::size_t address_limit = SIZE_MAX;  // mapped bytes in all, as RLIMIT_AS
  std::size_t commit_limit = SIZE_MAX;   // writable bytes in all, as vm.overcommit_memory=2
  int thp_mode = 1;
  bool hugetlb_fault_limited = false;  // by a cgroup
  bool has_children = false;
  bool can_leave_hugetlb = true;       // false: as before Linux 5.19
  std::size_t node_room = SIZE_MAX;    // of each node, for nodes_have_room()
  MemoryLimit memory_limit = {};       // of a cgroup; limit 0: there is none
  bool has_populate = true;                // false: EINVAL, as before Linux 5.14
  bool can_discard_hugetlb = true;         // false: EINVAL, as before Linux 5.18
  std::vector<std::size_t> huge_sizes = {2 * MiB, GiB};  // the pools that exist, empty ones included
};

class FakeOs {
 public:
  explicit FakeOs(FakeOsConfig config = {});
  // Gives all memory back. Nothing of it may be in use any more.
  ~FakeOs();
  FakeOs(const FakeOs&) = delete;
  FakeOs& operator=(const FakeOs&) = delete;

  const OsOps& ops() const;

  // ---- failures, made before the call has any effect -------------------------------------------------------------
  // Calls whose result is no errno value fail in their own way (nullptr, 0, false, -1) and ignore `error`. Calls that
  // cannot fail (mappings_are_scarce, now_ns, futex) must not be named.
  void fail_call(FakeCall call, unsigned kth, int error);  // only the kth from now, 1 = the next
  void fail_all(FakeCall call, int error);
  void fail_randomly(FakeCall call, int error, double probability, std::uint64_t seed);
  void clear_failures();
  // What a failed move_mapping() leaves at its target: what was there (false, at first) or a reservation. Both happen.
  void set_failed_move_resets_target(bool reset);
  // Runs at the beginning of every such call, on the thread that makes it and with nothing locked: what a hook of libc's
  // function or another thread does in that moment. A call from within makes none of these run. Empty: no longer.
  void on_call(FakeCall call, std::function<void()> hook);

  std::uint64_t calls(FakeCall call) const;
  std::uint64_t failures() const;  // failed calls, for whatever reason

  // ---- the machine -------------------------------------------------------------------------------------------------
  // The node of the CPU that the calling thread runs on. 0 at first.
  static void set_local_node(NodeId node);
  // Whether the process may use a node's memory. false: bind() to it fails with EINVAL, and nothing new lies there.
  void set_online(NodeId node, bool online);
  void set_memory(NodeId node, std::size_t bytes);
  void set_pool_pages(NodeId node, std::size_t page_bytes, std::size_t pages);
  void set_thp_mode(int mode);
  void set_commit_limit(std::size_t bytes);
  void set_address_limit(std::size_t bytes);
  // Something of the process, but not of the code under test, that lies in a window. The model counts nothing for it.
  void add_obstacle(std::uintptr_t begin, std::size_t bytes);
  // The program's first access to memory that nobody populated, from a CPU of `node`. 0, or the errno value that
  // populate() would have returned; production sees a SIGBUS or the OOM killer instead.
  int touch(void* p, std::size_t bytes, NodeId node);

  // ---- the clock -----------------------------------------------------------------------------------------------------
  void advance_ns(std::uint64_t ns);  // wakes sleepers whose time is up
  unsigned sleepers() const;          // threads inside futex_wait

  // ---- what is there -------------------------------------------------------------------------------------------------
  PageState state_of(const void* p) const;
  Backing backing_of(const void* p) const;  // kNone: no page yet
  NodeId node_of(const void* p) const;      // invalid: no page yet
  FakePolicy policy_of(const void* p) const;
  std::size_t mapping_count() const;                            // as in /proc/self/maps
  std::size_t bytes_in_state(PageState state) const;
  std::size_t bytes_on(NodeId node, bool hugetlb) const;        // hugetlb, or everything else
  std::size_t hugetlb_bytes() const;

  // The whole model walked; empty when it is consistent.
  std::string check() const;

 private:
  friend struct FakeOps;  // the functions of the table, fake_ops.cc
  struct Failure {
    std::uint64_t at = 0;  // the number of the call that fails; 0 = none
    int at_error = 0;
    int all_error = 0;     // 0 = none
    int random_error = 0;  // 0 = none
    double probability = 0;
    std::mt19937_64 random;
  };
  struct Sleeper {
    const void* word;
    bool woken = false;
  };

  // Under mutex_, except for count(), sleep_on() and wake().
  void run_hook(FakeCall call);  // not under mutex_
  void count(FakeCall call);
  int enter(FakeCall call);  // counts the call; the errno value with which the test wants it to fail, or 0
  Failure& failure_of(FakeCall call);
  int note(int error);  // counts failures; returns error
  std::nullptr_t note_null(int error);
  bool exceeds_address_limit(std::size_t more) const;
  bool exceeds_commit_limit(Address begin, std::size_t bytes) const;
  bool has_obstacle(Address begin, std::size_t bytes) const;
  bool is_taken(Address begin, std::size_t bytes) const;
  bool in_window(Address begin, std::size_t bytes) const;
  bool has_pool(std::size_t page_bytes) const;
  int populate(const char* what, void* p, std::size_t bytes, NodeId node);
  void drop(const char* what, void* p, std::size_t bytes);
  void move_real(void* from, void* to, std::size_t bytes);
  void sleep_on(const std::atomic<std::uint32_t>* word, std::uint32_t expected, std::uint64_t timeout_ns);
  void wake(const std::atomic<std::uint32_t>* word, int count);

  static FakeOs* current_;
  static thread_local NodeId local_node_;
  static thread_local bool in_hook_;

  const FakeOsConfig config_;
  mutable std::mutex mutex_;
  FakeAddressSpace space_;
  std::array<Failure, kFakeCalls> failures_;
  std::array<std::function<void()>, kFakeCalls> hooks_;
  std::array<std::atomic<std::uint64_t>, kFakeCalls> calls_{};
  std::map<Address, Address> windows_;    // begin -> end of what is mapped underneath
  std::map<Address, Address> obstacles_;  // begin -> end
  std::uint64_t failed_ = 0;
  bool failed_move_resets_ = false;
  std::size_t commit_limit_;
  std::size_t address_limit_;
  std::atomic<std::uint64_t> now_ns_{1'000'000'000};
  std::vector<Sleeper*> sleepers_;
  std::condition_variable wake_up_;
};

}  // namespace nh::test
