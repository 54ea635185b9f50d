// The functions of the fake's table: each checks what the contract asks of its caller, lets the failures of the test
// take their turn, changes the model, and makes the real memory underneath follow.
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <sys/mman.h>

#include "base/bits.h"
#include "support/fake_os.h"

namespace nh::test {

namespace {

Address at(const void* p) { return reinterpret_cast<Address>(p); }
void* pointer(Address a) { return reinterpret_cast<void*>(a); }

void require_range(const char* what, const void* p, std::size_t bytes) {
  if (bytes == 0) contract_violation(what, "empty range", at(p), bytes);
  if (!is_aligned(at(p), kOsPageSize) || !is_aligned(bytes, kOsPageSize)) {
    contract_violation(what, "not in whole pages", at(p), bytes);
  }
}

// The real memory under the model. A failure here is the machine's and ends the test.
void real(const char* what, bool ok) {
  if (ok) return;
  std::perror(what);
  std::abort();
}
void real_protect(void* p, std::size_t bytes, int protection) {
  real("fake OS: mprotect", ::mprotect(p, bytes, protection) == 0);
}
void real_fresh(void* p, std::size_t bytes, int protection) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  real("fake OS: mmap", ::mmap(p, bytes, protection, flags, -1, 0) == p);
}
// Fresh inaccessible memory anywhere; nullptr where there is none.
void* real_reserve(std::size_t bytes, std::size_t alignment) {
  const std::size_t total = bytes + alignment;
  void* const p = ::mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  const Address begin = align_up(at(p), alignment);
  if (begin != at(p)) ::munmap(p, begin - at(p));
  ::munmap(pointer(begin + bytes), at(p) + total - (begin + bytes));
  return pointer(begin);
}

constexpr int kReadWrite = PROT_READ | PROT_WRITE;

}  // namespace

struct FakeOps {
  static FakeOs& os() {
    if (FakeOs::current_ == nullptr) contract_violation("a call", "there is no FakeOs any more", 0, 0);
    return *FakeOs::current_;
  }
  static FakeOs& os(FakeCall call) {
    FakeOs& f = os();
    f.run_hook(call);
    return f;
  }
  using Guard = std::lock_guard<std::mutex>;

  // ---- address space -------------------------------------------------------------------------------------------
  static std::uintptr_t find_window(std::size_t bytes, std::uintptr_t below, unsigned) {
    FakeOs& f = os(FakeCall::kFindWindow);
    const Guard guard(f.mutex_);
    require_range("find_window", nullptr, bytes);
    bytes = align_up(bytes, kArenaSize);
    void* p = f.enter(FakeCall::kFindWindow) == 0 ? real_reserve(bytes, kArenaSize) : nullptr;
    if (p != nullptr && below != 0 && at(p) + bytes > below) {
      real("fake OS: munmap", ::munmap(p, bytes) == 0);
      p = nullptr;
    }
    if (p == nullptr) {
      f.note(ENOMEM);
      return 0;
    }
    f.windows_[at(p)] = at(p) + bytes;
    return at(p);
  }

  static void require_window(FakeOs& f, const char* what, void* p, std::size_t bytes) {
    require_range(what, p, bytes);
    if (!f.in_window(at(p), bytes)) contract_violation(what, "outside of every window", at(p), bytes);
  }

  static bool is_unmapped(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kIsUnmapped);
    const Guard guard(f.mutex_);
    require_window(f, "is_unmapped", p, bytes);
    if (f.enter(FakeCall::kIsUnmapped) != 0) {
      f.note(EEXIST);
      return false;
    }
    return !f.is_taken(at(p), bytes);
  }

  static bool mappings_are_scarce() {
    FakeOs& f = os(FakeCall::kMappingsAreScarce);
    const Guard guard(f.mutex_);
    f.enter(FakeCall::kMappingsAreScarce);
    return f.address_limit_ != SIZE_MAX || f.commit_limit_ != SIZE_MAX;
  }

  static bool has_room(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kHasRoom);
    const Guard guard(f.mutex_);
    require_range("has_room", p, bytes);
    if (f.enter(FakeCall::kHasRoom) != 0) {
      f.note(ENOMEM);
      return false;
    }
    return f.is_taken(at(p), bytes) || (!f.exceeds_address_limit(bytes) && !f.exceeds_commit_limit(at(p), bytes));
  }

  static void* reserve(std::size_t bytes, std::size_t alignment) {
    FakeOs& f = os(FakeCall::kReserve);
    const Guard guard(f.mutex_);
    require_range("reserve", nullptr, bytes);
    if (!is_pow2(alignment)) contract_violation("reserve", "alignment is no power of two", alignment, bytes);
    if (f.enter(FakeCall::kReserve) != 0 || f.exceeds_address_limit(bytes)) return f.note_null(ENOMEM);
    void* const p = real_reserve(bytes, alignment < kOsPageSize ? kOsPageSize : alignment);
    if (p == nullptr) return f.note_null(ENOMEM);
    f.space_.map(at(p), bytes, FakeMapping{});
    return p;
  }

  static int make_writable(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kMakeWritable);
    const Guard guard(f.mutex_);
    require_range("make_writable", p, bytes);
    if (const int error = f.enter(FakeCall::kMakeWritable); error != 0) return f.note(error);
    if (f.exceeds_commit_limit(at(p), bytes)) return f.note(ENOMEM);
    f.space_.protect("make_writable", at(p), bytes, PageState::kWritable);
    real_protect(p, bytes, kReadWrite);
    return 0;
  }

  // What is no longer mapped in a window stays out of everybody else's reach.
  static void real_unmap(FakeOs& f, void* p, std::size_t bytes) {
    if (f.in_window(at(p), bytes)) return real_fresh(p, bytes, PROT_NONE);
    real("fake OS: munmap", ::munmap(p, bytes) == 0);
  }

  static int unmap(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kUnmap);
    const Guard guard(f.mutex_);
    require_range("unmap", p, bytes);
    if (!f.in_window(at(p), bytes)) f.space_.require_mapped("unmap", at(p), bytes);
    if (f.has_obstacle(at(p), bytes)) contract_violation("unmap", "somebody else's mapping", at(p), bytes);
    if (const int error = f.enter(FakeCall::kUnmap); error != 0) return f.note(error);
    f.space_.unmap("unmap", at(p), bytes);
    real_unmap(f, p, bytes);
    return 0;
  }

  static int lay_new(FakeCall call, const char* what, void* p, std::size_t bytes, PageState state, int protection) {
    FakeOs& f = os(call);
    const Guard guard(f.mutex_);
    require_window(f, what, p, bytes);
    if (const int error = f.enter(call); error != 0) return f.note(error);
    if (f.is_taken(at(p), bytes)) return f.note(EEXIST);
    if (f.exceeds_address_limit(bytes)) return f.note(ENOMEM);
    if (state == PageState::kWritable && f.exceeds_commit_limit(at(p), bytes)) return f.note(ENOMEM);
    FakeMapping fresh;
    fresh.state = state;
    f.space_.map(at(p), bytes, fresh);
    real_fresh(p, bytes, protection);
    return 0;
  }
  static int map_new(void* p, std::size_t bytes) {
    return lay_new(FakeCall::kMapNew, "map_new", p, bytes, PageState::kWritable, kReadWrite);
  }
  static int map_new_readable(void* p, std::size_t bytes) {
    return lay_new(FakeCall::kMapNewReadable, "map_new_readable", p, bytes, PageState::kReadable, PROT_READ);
  }

  static int map_plain(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kMapPlain);
    const Guard guard(f.mutex_);
    require_range("map_plain", p, bytes);
    if (const int error = f.enter(FakeCall::kMapPlain); error != 0) return f.note(error);
    f.space_.require_mapped("map_plain", at(p), bytes);
    if (f.exceeds_commit_limit(at(p), bytes)) return f.note(ENOMEM);
    FakeMapping fresh;
    fresh.state = PageState::kWritable;
    f.space_.map(at(p), bytes, fresh);
    real_fresh(p, bytes, kReadWrite);
    return 0;
  }

  // ---- backing -------------------------------------------------------------------------------------------------
  static int advise_thp(void* p, std::size_t bytes, bool on) {
    FakeOs& f = os(FakeCall::kAdviseThp);
    const Guard guard(f.mutex_);
    require_range("advise_thp", p, bytes);
    if (const int error = f.enter(FakeCall::kAdviseThp); error != 0) return f.note(error);
    f.space_.advise_thp(at(p), bytes, on);
    return 0;
  }

  static int populate(void* p, std::size_t bytes) { return populate_on(p, bytes, FakeOs::local_node_); }
  static int populate_on(void* p, std::size_t bytes, NodeId node) {
    FakeOs& f = os(FakeCall::kPopulate);
    const Guard guard(f.mutex_);
    require_range("populate", p, bytes);
    if (const int error = f.enter(FakeCall::kPopulate); error != 0) return f.note(error);
    if (!f.config_.has_populate) return f.note(EINVAL);
    return f.note(f.populate("populate", p, bytes, node));
  }

  static int discard(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kDiscard);
    const Guard guard(f.mutex_);
    require_range("discard", p, bytes);
    if (const int error = f.enter(FakeCall::kDiscard); error != 0) return f.note(error);
    const FakeMapping* const m = f.space_.mapping_at(at(p));
    if (m != nullptr && m->hugetlb()) {
      if (m->source == HugeSource::kSharedFile) contract_violation("discard", "shared memory needs punch", at(p), bytes);
      if (!f.config_.can_discard_hugetlb) return f.note(EINVAL);
    }
    f.drop("discard", p, bytes);
    return 0;
  }

  static int punch(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kPunch);
    const Guard guard(f.mutex_);
    require_range("punch", p, bytes);
    if (const int error = f.enter(FakeCall::kPunch); error != 0) return f.note(error);
    const FakeMapping* const m = f.space_.mapping_at(at(p));
    if (m == nullptr || m->source != HugeSource::kSharedFile) {
      contract_violation("punch", "not shared memory", at(p), bytes);
    }
    f.drop("punch", p, bytes);
    return 0;
  }

  // ---- hugetlb -------------------------------------------------------------------------------------------------
  // Memory without reservation stays inaccessible underneath until populate() has proven it.
  static int map_new_hugetlb(void* p, std::size_t bytes, std::size_t page_bytes, HugeSource source,
                             Reservation reservation) {
    FakeOs& f = os(FakeCall::kMapNewHugetlb);
    const Guard guard(f.mutex_);
    require_window(f, "map_new_hugetlb", p, bytes);
    if (!is_aligned(at(p), page_bytes) || !is_aligned(bytes, page_bytes)) {
      contract_violation("map_new_hugetlb", "not in whole huge pages", at(p), bytes);
    }
    if (const int error = f.enter(FakeCall::kMapNewHugetlb); error != 0) return f.note(error);
    if (!f.has_pool(page_bytes)) return f.note(EINVAL);
    if (f.is_taken(at(p), bytes)) return f.note(EEXIST);
    if (f.exceeds_address_limit(bytes)) return f.note(ENOMEM);
    FakeMapping m;
    m.state = PageState::kWritable;
    m.page_bytes = page_bytes;
    m.source = source;
    m.reservation = reservation;
    f.space_.map(at(p), bytes, m);
    const bool promised = reservation == Reservation::kFull;
    if (promised && f.space_.promise(at(p), bytes, page_bytes) != 0) {
      f.space_.unmap("map_new_hugetlb", at(p), bytes);
      return f.note(ENOMEM);
    }
    real_fresh(p, bytes, promised ? kReadWrite : PROT_NONE);
    return 0;
  }

  static int move_mapping(void* from, void* to, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kMoveMapping);
    const Guard guard(f.mutex_);
    require_range("move_mapping", from, bytes);
    require_range("move_mapping", to, bytes);
    if (const int error = f.enter(FakeCall::kMoveMapping); error != 0) {
      if (f.failed_move_resets_) {
        f.space_.map(at(to), bytes, FakeMapping{});
        real_fresh(to, bytes, PROT_NONE);
      }
      return f.note(error);
    }
    f.space_.move(at(from), at(to), bytes);
    f.move_real(from, to, bytes);
    // The place that it left belongs to a window still.
    if (f.in_window(at(from), bytes)) real_fresh(from, bytes, PROT_NONE);
    return 0;
  }

  // ---- placement -----------------------------------------------------------------------------------------------
  static int bind(void* p, std::size_t bytes, BindMode mode, const NodeSet& nodes) {
    FakeOs& f = os(FakeCall::kBind);
    const Guard guard(f.mutex_);
    require_range("bind", p, bytes);
    if (const int error = f.enter(FakeCall::kBind); error != 0) return f.note(error);
    FakePolicy policy{.mode = mode, .nodes = nodes};
    if (mode == BindMode::kDefault) policy.nodes = NodeSet{};
    if (mode == BindMode::kPreferred && !nodes.empty()) policy.nodes = NodeSet::of(nodes.first());
    return f.note(f.space_.bind(at(p), bytes, policy));
  }

  static int nodes_of(const void* const* addresses, std::size_t count, int* result) {
    FakeOs& f = os(FakeCall::kNodesOf);
    const Guard guard(f.mutex_);
    if (const int error = f.enter(FakeCall::kNodesOf); error != 0) return f.note(error);
    for (std::size_t i = 0; i < count; i++) {
      const FakePage* const page = f.space_.page_at(at(addresses[i]));
      const bool mapped = f.space_.mapping_at(at(addresses[i])) != nullptr;
      result[i] = page != nullptr ? page->node : mapped ? -ENOENT : -EFAULT;
    }
    return 0;
  }

  static int collapse(void* p, std::size_t bytes) {
    FakeOs& f = os(FakeCall::kCollapse);
    const Guard guard(f.mutex_);
    require_range("collapse", p, bytes);
    if (const int error = f.enter(FakeCall::kCollapse); error != 0) return f.note(error);
    return f.note(f.space_.collapse("collapse", at(p), bytes));
  }
  static bool all_exist(void* p, std::size_t bytes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    for (std::size_t i = 0; i < bytes; i += kOsPageSize) {
      if (f.space_.page_at(at(p) + i) == nullptr) return false;
    }
    return true;
  }
  static bool has_children() { return os().config_.has_children; }

  // ---- information, time and sleep -------------------------------------------------------------------------------
  static bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out) {
    FakeOs& f = os(FakeCall::kHugePool);
    const Guard guard(f.mutex_);
    if (f.enter(FakeCall::kHugePool) != 0 || !f.has_pool(page_bytes)) return false;
    if (node.valid() && static_cast<std::size_t>(node.value) >= f.space_.node_count()) return false;
    *out = f.space_.pool(page_bytes, node);
    return true;
  }
  // The model's populate() fails where a node is full, as one that nobody looked at beforehand should.
  static bool nodes_have_room(const NodeSet& nodes, std::size_t bytes) {
    return bytes / nodes.count() <= os().config_.node_room;
  }
  static std::uint64_t memory_of(const NodeSet& nodes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    std::uint64_t sum = 0;
    for (int n = 0; n < static_cast<int>(f.space_.node_count()); n++) {
      if (nodes.has(NodeId(n))) sum += f.space_.node(NodeId(n)).memory_bytes;
    }
    return sum;
  }
  static bool allowed_nodes(NodeSet* out) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    *out = NodeSet();
    for (int n = 0; n < static_cast<int>(f.space_.node_count()); n++) {
      if (f.space_.node(NodeId(n)).online) out->add(NodeId(n));
    }
    return true;
  }
  static bool hugetlb_fault_limited(std::size_t) { return os().config_.hugetlb_fault_limited; }

  static bool can_leave_hugetlb() { return os().config_.can_leave_hugetlb; }
  static int thp_mode() {
    FakeOs& f = os(FakeCall::kThpMode);
    const Guard guard(f.mutex_);
    return f.enter(FakeCall::kThpMode) != 0 ? -1 : f.space_.thp_mode();
  }
  static bool memory_limit(MemoryLimit* out) {
    const MemoryLimit& limit = os().config_.memory_limit;
    if (limit.limit != 0) *out = limit;
    return limit.limit != 0;
  }
  static void forget_state() {}  // the fake's answers are never old

  static std::uint64_t now_ns() {
    FakeOs& f = os();
    f.count(FakeCall::kNowNs);
    return f.now_ns_.load();
  }
  static void futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t expected, std::uint64_t timeout_ns) {
    os(FakeCall::kFutexWait).sleep_on(word, expected, timeout_ns);
  }
  static void futex_wake(std::atomic<std::uint32_t>* word, int count) { os(FakeCall::kFutexWake).wake(word, count); }
};

const OsOps& FakeOs::ops() const {
  static constexpr OsOps kOps = {
      .find_window = FakeOps::find_window,
      .is_unmapped = FakeOps::is_unmapped,
      .mappings_are_scarce = FakeOps::mappings_are_scarce,
      .has_room = FakeOps::has_room,
      .reserve = FakeOps::reserve,
      .make_writable = FakeOps::make_writable,
      .unmap = FakeOps::unmap,
      .map_new = FakeOps::map_new,
      .map_new_readable = FakeOps::map_new_readable,
      .map_plain = FakeOps::map_plain,
      .advise_thp = FakeOps::advise_thp,
      .populate = FakeOps::populate,
      .populate_on = FakeOps::populate_on,
      .discard = FakeOps::discard,
      .punch = FakeOps::punch,
      .map_new_hugetlb = FakeOps::map_new_hugetlb,
      .move_mapping = FakeOps::move_mapping,
      .bind = FakeOps::bind,
      .nodes_of = FakeOps::nodes_of,
      .collapse = FakeOps::collapse,
      .all_exist = FakeOps::all_exist,
      .has_children = FakeOps::has_children,
      .huge_pool = FakeOps::huge_pool,
      .nodes_have_room = FakeOps::nodes_have_room,
      .memory_of = FakeOps::memory_of,
      .allowed_nodes = FakeOps::allowed_nodes,
      .hugetlb_fault_limited = FakeOps::hugetlb_fault_limited,
      .can_leave_hugetlb = FakeOps::can_leave_hugetlb,
      .thp_mode = FakeOps::thp_mode,
      .memory_limit = FakeOps::memory_limit,
      .forget_state = FakeOps::forget_state,
      .now_ns = FakeOps::now_ns,
      .futex_wait = FakeOps::futex_wait,
      .futex_wake = FakeOps::futex_wake,
  };
  return kOps;
}

}  // namespace nh::test
