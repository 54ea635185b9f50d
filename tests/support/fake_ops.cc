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
  using Guard = std::lock_guard<std::mutex>;

  // ---- address space -------------------------------------------------------------------------------------------
  static void* reserve(std::size_t bytes, std::size_t alignment) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("reserve", nullptr, bytes);
    if (!is_pow2(alignment)) contract_violation("reserve", "alignment is no power of two", alignment, bytes);
    if (f.enter(FakeCall::kReserve) != 0 || f.exceeds_address_limit(bytes)) return f.note_null(ENOMEM);
    void* const p = real_reserve(bytes, alignment < kOsPageSize ? kOsPageSize : alignment);
    if (p == nullptr) return f.note_null(ENOMEM);
    f.space_.map(at(p), bytes, FakeMapping{});
    return p;
  }

  static void unreserve(void* p, std::size_t bytes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("unreserve", p, bytes);
    f.enter(FakeCall::kUnreserve);
    f.space_.require_mapped("unreserve", at(p), bytes);
    f.space_.unmap("unreserve", at(p), bytes);
    real("fake OS: munmap", ::munmap(p, bytes) == 0);
  }

  static int make(const char* what, FakeCall call, void* p, std::size_t bytes, PageState state, int protection) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range(what, p, bytes);
    if (const int error = f.enter(call); error != 0) return f.note(error);
    if (state == PageState::kWritable && f.exceeds_commit_limit(at(p), bytes)) return f.note(ENOMEM);
    f.space_.protect(what, at(p), bytes, state);
    real_protect(p, bytes, protection);
    return 0;
  }
  static int make_readable(void* p, std::size_t bytes) {
    return make("make_readable", FakeCall::kMakeReadable, p, bytes, PageState::kReadable, PROT_READ);
  }
  static int make_writable(void* p, std::size_t bytes) {
    return make("make_writable", FakeCall::kMakeWritable, p, bytes, PageState::kWritable, kReadWrite);
  }

  static int replace(const char* what, FakeCall call, void* p, std::size_t bytes, PageState state, int protection) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range(what, p, bytes);
    if (const int error = f.enter(call); error != 0) return f.note(error);
    f.space_.require_mapped(what, at(p), bytes);
    if (state == PageState::kWritable && f.exceeds_commit_limit(at(p), bytes)) return f.note(ENOMEM);
    FakeMapping fresh;
    fresh.state = state;
    f.space_.map(at(p), bytes, fresh);
    real_fresh(p, bytes, protection);
    return 0;
  }
  static int reset_to_reserved(void* p, std::size_t bytes) {
    return replace("reset_to_reserved", FakeCall::kResetToReserved, p, bytes, PageState::kReserved, PROT_NONE);
  }
  static int map_plain(void* p, std::size_t bytes) {
    return replace("map_plain", FakeCall::kMapPlain, p, bytes, PageState::kWritable, kReadWrite);
  }

  // ---- backing -------------------------------------------------------------------------------------------------
  static int advise_thp(void* p, std::size_t bytes, bool on) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("advise_thp", p, bytes);
    if (const int error = f.enter(FakeCall::kAdviseThp); error != 0) return f.note(error);
    f.space_.advise_thp(at(p), bytes, on);
    return 0;
  }

  static int populate(void* p, std::size_t bytes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("populate", p, bytes);
    if (const int error = f.enter(FakeCall::kPopulate); error != 0) return f.note(error);
    if (!f.config_.has_populate) return f.note(EINVAL);
    return f.note(f.populate("populate", p, bytes, FakeOs::local_node_));
  }

  static int discard(void* p, std::size_t bytes) {
    FakeOs& f = os();
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
    FakeOs& f = os();
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
  static FakeMapping hugetlb_mapping(std::size_t page_bytes, HugeSource source, Reservation reservation) {
    FakeMapping m;
    m.state = PageState::kWritable;
    m.page_bytes = page_bytes;
    m.source = source;
    m.reservation = reservation;
    return m;
  }

  // Memory without reservation stays inaccessible underneath until populate() has proven it.
  static int lay_hugetlb(FakeOs& f, void* p, std::size_t bytes, const FakeMapping& m) {
    f.space_.map(at(p), bytes, m);
    const bool promised = m.reservation == Reservation::kFull;
    const int error = promised ? f.space_.promise(at(p), bytes, m.page_bytes) : 0;
    real_fresh(p, bytes, error == 0 && promised ? kReadWrite : PROT_NONE);
    return error;
  }

  static void* map_hugetlb(std::size_t bytes, std::size_t page_bytes, std::size_t alignment, HugeSource source,
                           Reservation reservation, int* error) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("map_hugetlb", nullptr, bytes);
    if (!is_pow2(alignment)) contract_violation("map_hugetlb", "alignment is no power of two", alignment, bytes);
    if (!is_aligned(bytes, page_bytes)) contract_violation("map_hugetlb", "not in whole huge pages", 0, bytes);
    *error = f.enter(FakeCall::kMapHugetlb);
    if (*error == 0 && !f.has_pool(page_bytes)) *error = EINVAL;
    if (*error == 0 && f.exceeds_address_limit(bytes)) *error = ENOMEM;
    if (*error != 0) return f.note_null(*error);
    void* const p = real_reserve(bytes, alignment > page_bytes ? alignment : page_bytes);
    real("fake OS: address space", p != nullptr);
    *error = lay_hugetlb(f, p, bytes, hugetlb_mapping(page_bytes, source, reservation));
    if (*error == 0) return p;
    f.space_.unmap("map_hugetlb", at(p), bytes);
    ::munmap(p, bytes);
    return f.note_null(*error);
  }

  static bool can_move_hugetlb() {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    return f.enter(FakeCall::kCanMoveHugetlb) == 0 && f.config_.can_move_hugetlb;
  }

  static int move_mapping(void* from, void* to, std::size_t bytes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("move_mapping", from, bytes);
    require_range("move_mapping", to, bytes);
    int error = f.enter(FakeCall::kMoveMapping);
    const FakeMapping* const m = f.space_.mapping_at(at(from));
    if (error == 0 && m != nullptr && m->hugetlb() && !f.config_.can_move_hugetlb) error = EINVAL;
    if (error != 0) {
      if (f.failed_move_resets_) {
        f.space_.map(at(to), bytes, FakeMapping{});
        real_fresh(to, bytes, PROT_NONE);
      }
      return f.note(error);
    }
    f.space_.move(at(from), at(to), bytes);
    f.move_real(from, to, bytes);
    return 0;
  }

  static int map_hugetlb_at(void* p, std::size_t bytes, std::size_t page_bytes, HugeSource source,
                            Reservation reservation) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("map_hugetlb_at", p, bytes);
    if (!is_aligned(at(p), page_bytes) || !is_aligned(bytes, page_bytes)) {
      contract_violation("map_hugetlb_at", "not in whole huge pages", at(p), bytes);
    }
    f.space_.require_mapped("map_hugetlb_at", at(p), bytes);
    if (const int error = f.enter(FakeCall::kMapHugetlbAt); error != 0) return f.note(error);
    if (!f.has_pool(page_bytes)) return f.note(EINVAL);
    const int error = lay_hugetlb(f, p, bytes, hugetlb_mapping(page_bytes, source, reservation));
    if (error != 0) f.space_.map(at(p), bytes, FakeMapping{});
    return f.note(error);
  }

  // ---- placement -----------------------------------------------------------------------------------------------
  static int bind(void* p, std::size_t bytes, BindMode mode, const NodeSet& nodes) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    require_range("bind", p, bytes);
    if (const int error = f.enter(FakeCall::kBind); error != 0) return f.note(error);
    FakePolicy policy{.mode = mode, .nodes = nodes};
    if (mode == BindMode::kDefault) policy.nodes = NodeSet{};
    if (mode == BindMode::kPreferred && !nodes.empty()) policy.nodes = NodeSet::of(nodes.first());
    return f.note(f.space_.bind(at(p), bytes, policy));
  }

  static int nodes_of(const void* const* addresses, std::size_t count, int* result) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    if (const int error = f.enter(FakeCall::kNodesOf); error != 0) return f.note(error);
    for (std::size_t i = 0; i < count; i++) {
      const FakePage* const page = f.space_.page_at(at(addresses[i]));
      const bool mapped = f.space_.mapping_at(at(addresses[i])) != nullptr;
      result[i] = page != nullptr ? page->node : mapped ? -ENOENT : -EFAULT;
    }
    return 0;
  }

  // ---- information, time and sleep -------------------------------------------------------------------------------
  static bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out) {
    FakeOs& f = os();
    const Guard guard(f.mutex_);
    if (f.enter(FakeCall::kHugePool) != 0 || !f.has_pool(page_bytes)) return false;
    if (node.valid() && static_cast<std::size_t>(node.value) >= f.space_.node_count()) return false;
    *out = f.space_.pool(page_bytes, node);
    return true;
  }
  // The model's populate() fails where a node is full, as one that nobody looked at beforehand should.
  static bool node_has_room(NodeId, std::size_t bytes) { return bytes <= os().config_.node_room; }
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

  static int thp_mode() {
    FakeOs& f = os();
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
    os().sleep_on(word, expected, timeout_ns);
  }
  static void futex_wake(std::atomic<std::uint32_t>* word, int count) { os().wake(word, count); }
};

const OsOps& FakeOs::ops() const {
  static constexpr OsOps kOps = {
      .reserve = FakeOps::reserve,
      .unreserve = FakeOps::unreserve,
      .make_readable = FakeOps::make_readable,
      .make_writable = FakeOps::make_writable,
      .reset_to_reserved = FakeOps::reset_to_reserved,
      .map_plain = FakeOps::map_plain,
      .advise_thp = FakeOps::advise_thp,
      .populate = FakeOps::populate,
      .discard = FakeOps::discard,
      .punch = FakeOps::punch,
      .map_hugetlb = FakeOps::map_hugetlb,
      .can_move_hugetlb = FakeOps::can_move_hugetlb,
      .move_mapping = FakeOps::move_mapping,
      .map_hugetlb_at = FakeOps::map_hugetlb_at,
      .bind = FakeOps::bind,
      .nodes_of = FakeOps::nodes_of,
      .huge_pool = FakeOps::huge_pool,
      .node_has_room = FakeOps::node_has_room,
      .allowed_nodes = FakeOps::allowed_nodes,
      .hugetlb_fault_limited = FakeOps::hugetlb_fault_limited,
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
