#include "support/fake_os.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include <sys/mman.h>

#include "base/bits.h"

namespace nh::test {

FakeOs* FakeOs::current_ = nullptr;
thread_local NodeId FakeOs::local_node_(0);
thread_local bool FakeOs::in_hook_ = false;

namespace {

Address at(const void* p) { return reinterpret_cast<Address>(p); }
void* pointer(Address a) { return reinterpret_cast<void*>(a); }

// The real memory underneath; a failure here is the machine's and ends the test.
void real(const char* what, bool ok) {
  if (ok) return;
  std::perror(what);
  std::abort();
}

bool cannot_fail(FakeCall call) {
  return call == FakeCall::kMappingsAreScarce || call >= FakeCall::kNowNs;
}

}  // namespace

FakeOs::FakeOs(FakeOsConfig config)
    : config_(std::move(config)),
      space_(config_.nodes),
      commit_limit_(config_.commit_limit),
      address_limit_(config_.address_limit) {
  if (current_ != nullptr) contract_violation("FakeOs", "there is one already", 0, 0);
  space_.set_thp_mode(config_.thp_mode);
  local_node_ = NodeId(0);
  current_ = this;
}

FakeOs::~FakeOs() {
  current_ = nullptr;
  for (const auto& [begin, mapping] : space_.mappings()) ::munmap(pointer(begin), mapping.end - begin);
  for (const auto& [begin, end] : windows_) ::munmap(pointer(begin), end - begin);
}

// ---- failures --------------------------------------------------------------------------------------------------

FakeOs::Failure& FakeOs::failure_of(FakeCall call) {
  if (cannot_fail(call)) contract_violation("FakeOs", "this call cannot fail", static_cast<Address>(call), 0);
  return failures_[static_cast<unsigned>(call)];
}

void FakeOs::fail_call(FakeCall call, unsigned kth, int error) {
  const std::lock_guard guard(mutex_);
  Failure& f = failure_of(call);
  f.at = calls_[static_cast<unsigned>(call)].load() + kth;
  f.at_error = error;
}

void FakeOs::fail_all(FakeCall call, int error) {
  const std::lock_guard guard(mutex_);
  failure_of(call).all_error = error;
}

void FakeOs::fail_randomly(FakeCall call, int error, double probability, std::uint64_t seed) {
  const std::lock_guard guard(mutex_);
  Failure& f = failure_of(call);
  f.random_error = error;
  f.probability = probability;
  f.random.seed(seed);
}

void FakeOs::clear_failures() {
  const std::lock_guard guard(mutex_);
  failures_.fill(Failure{});
  failed_move_resets_ = false;
}

void FakeOs::set_failed_move_resets_target(bool reset) {
  const std::lock_guard guard(mutex_);
  failed_move_resets_ = reset;
}

void FakeOs::on_call(FakeCall call, std::function<void()> hook) {
  const std::lock_guard guard(mutex_);
  hooks_[static_cast<unsigned>(call)] = std::move(hook);
}

void FakeOs::run_hook(FakeCall call) {
  std::function<void()> hook;
  {
    const std::lock_guard guard(mutex_);
    hook = hooks_[static_cast<unsigned>(call)];
  }
  if (!hook || in_hook_) return;
  in_hook_ = true;
  hook();
  in_hook_ = false;
}

void FakeOs::count(FakeCall call) { calls_[static_cast<unsigned>(call)].fetch_add(1); }

int FakeOs::enter(FakeCall call) {
  count(call);
  Failure& f = failures_[static_cast<unsigned>(call)];
  if (f.all_error != 0) return f.all_error;
  if (f.at != 0 && f.at == calls_[static_cast<unsigned>(call)].load()) return f.at_error;
  if (f.random_error != 0 && std::bernoulli_distribution(f.probability)(f.random)) return f.random_error;
  return 0;
}

int FakeOs::note(int error) {
  if (error != 0) failed_++;
  return error;
}

std::nullptr_t FakeOs::note_null(int error) {
  note(error);
  return nullptr;
}

std::uint64_t FakeOs::calls(FakeCall call) const { return calls_[static_cast<unsigned>(call)].load(); }

std::uint64_t FakeOs::failures() const {
  const std::lock_guard guard(mutex_);
  return failed_;
}

// ---- the machine -----------------------------------------------------------------------------------------------

void FakeOs::set_local_node(NodeId node) { local_node_ = node; }

void FakeOs::set_online(NodeId node, bool online) {
  const std::lock_guard guard(mutex_);
  space_.node(node).online = online;
}

void FakeOs::set_memory(NodeId node, std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  space_.set_memory(node, bytes);
}

void FakeOs::set_pool_pages(NodeId node, std::size_t page_bytes, std::size_t pages) {
  const std::lock_guard guard(mutex_);
  space_.set_pool_pages(node, page_bytes, pages);
}

void FakeOs::set_thp_mode(int mode) {
  const std::lock_guard guard(mutex_);
  space_.set_thp_mode(mode);
}

void FakeOs::set_commit_limit(std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  commit_limit_ = bytes;
}

void FakeOs::set_address_limit(std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  address_limit_ = bytes;
}

void FakeOs::add_obstacle(std::uintptr_t begin, std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  if (is_taken(begin, bytes)) contract_violation("add_obstacle", "something is mapped there", begin, bytes);
  obstacles_[begin] = begin + bytes;
}

int FakeOs::touch(void* p, std::size_t bytes, NodeId node) {
  const std::lock_guard guard(mutex_);
  return populate("touch", p, bytes, node);
}

bool FakeOs::has_pool(std::size_t page_bytes) const {
  return std::find(config_.huge_sizes.begin(), config_.huge_sizes.end(), page_bytes) != config_.huge_sizes.end();
}

bool FakeOs::exceeds_address_limit(std::size_t more) const {
  if (address_limit_ == SIZE_MAX) return false;
  std::size_t used = 0;
  for (const auto& [begin, mapping] : space_.mappings()) used += mapping.end - begin;
  return used > address_limit_ || more > address_limit_ - used;
}

bool FakeOs::has_obstacle(Address begin, std::size_t bytes) const {
  const auto obstacle = obstacles_.lower_bound(begin + bytes);
  return obstacle != obstacles_.begin() && std::prev(obstacle)->second > begin;
}

bool FakeOs::is_taken(Address begin, std::size_t bytes) const {
  if (has_obstacle(begin, bytes)) return true;
  const auto mapping = space_.mappings().lower_bound(begin + bytes);
  return mapping != space_.mappings().begin() && std::prev(mapping)->second.end > begin;
}

bool FakeOs::in_window(Address begin, std::size_t bytes) const {
  const auto window = windows_.upper_bound(begin);
  return window != windows_.begin() && begin + bytes <= std::prev(window)->second;
}

bool FakeOs::exceeds_commit_limit(Address begin, std::size_t bytes) const {
  if (commit_limit_ == SIZE_MAX) return false;
  std::size_t committed = bytes;
  for (const auto& [a, m] : space_.mappings()) {
    if (m.state != PageState::kWritable || m.hugetlb()) continue;
    committed += m.end - a;
    // What is writable already is not charged twice.
    const Address low = std::max(a, begin);
    const Address high = std::min(m.end, begin + bytes);
    if (low < high) committed -= high - low;
  }
  return committed > commit_limit_;
}

int FakeOs::populate(const char* what, void* p, std::size_t bytes, NodeId node) {
  return space_.populate(what, at(p), bytes, node, [](Address a, std::size_t size, const FakeMapping& m) {
    // Hugetlb memory without reservation becomes accessible with its page.
    if (!m.hugetlb() || m.reservation != Reservation::kNone) return;
    real("fake OS: mprotect", ::mprotect(pointer(a), size, PROT_READ | PROT_WRITE) == 0);
  });
}

void FakeOs::drop(const char* what, void* p, std::size_t bytes) {
  space_.discard(what, at(p), bytes);
  real("fake OS: madvise", ::madvise(p, bytes, MADV_DONTNEED) == 0);
  for (Address a = at(p); a < at(p) + bytes;) {
    const FakeMapping& m = *space_.mapping_at(a);
    const Address end = std::min(m.end, at(p) + bytes);
    if (m.hugetlb() && m.reservation == Reservation::kNone) {
      real("fake OS: mprotect", ::mprotect(pointer(a), end - a, PROT_NONE) == 0);
    }
    a = end;
  }
}

void FakeOs::move_real(void* from, void* to, std::size_t bytes) {
  constexpr int kFlags = MREMAP_MAYMOVE | MREMAP_FIXED;
  if (::mremap(from, bytes, bytes, kFlags, to) == to) return;
  // One mapping of the model can be several underneath, which older kernels do not move in one call.
  const std::size_t piece = space_.mapping_at(at(to))->page_bytes;
  for (std::size_t i = 0; i < bytes; i += piece) {
    void* const target = static_cast<char*>(to) + i;
    real("fake OS: mremap", ::mremap(static_cast<char*>(from) + i, piece, piece, kFlags, target) == target);
  }
}

// ---- the clock -------------------------------------------------------------------------------------------------

void FakeOs::advance_ns(std::uint64_t ns) {
  const std::lock_guard guard(mutex_);
  now_ns_ += ns;
  wake_up_.notify_all();
}

unsigned FakeOs::sleepers() const {
  const std::lock_guard guard(mutex_);
  return static_cast<unsigned>(sleepers_.size());
}

void FakeOs::sleep_on(const std::atomic<std::uint32_t>* word, std::uint32_t expected, std::uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  count(FakeCall::kFutexWait);
  // Compared under the mutex that wake() takes: a wake after the word has changed cannot be missed.
  if (word->load() != expected) return;
  const std::uint64_t deadline = timeout_ns != 0 ? now_ns_ + timeout_ns : UINT64_MAX;
  Sleeper me{.word = word};
  sleepers_.push_back(&me);
  wake_up_.wait(lock, [&] { return me.woken || now_ns_ >= deadline; });
  std::erase(sleepers_, &me);
}

void FakeOs::wake(const std::atomic<std::uint32_t>* word, int count_limit) {
  const std::lock_guard guard(mutex_);
  count(FakeCall::kFutexWake);
  for (Sleeper* s : sleepers_) {
    if (count_limit == 0) break;
    if (s->word != word || s->woken) continue;
    s->woken = true;
    count_limit--;
  }
  wake_up_.notify_all();
}

// ---- what is there ---------------------------------------------------------------------------------------------

PageState FakeOs::state_of(const void* p) const {
  const std::lock_guard guard(mutex_);
  const FakeMapping* const m = space_.mapping_at(at(p));
  return m != nullptr ? m->state : PageState::kUnmapped;
}

Backing FakeOs::backing_of(const void* p) const {
  const std::lock_guard guard(mutex_);
  const FakePage* const page = space_.page_at(at(p));
  if (page == nullptr) return Backing::kNone;
  if (page->hugetlb) return page->bytes == GiB ? Backing::kHuge1G : Backing::kHuge2M;
  return page->bytes == kOsPageSize ? Backing::kBase : Backing::kThp;
}

NodeId FakeOs::node_of(const void* p) const {
  const std::lock_guard guard(mutex_);
  const FakePage* const page = space_.page_at(at(p));
  return page != nullptr ? NodeId(page->node) : NodeId();
}

FakePolicy FakeOs::policy_of(const void* p) const {
  const std::lock_guard guard(mutex_);
  const FakeMapping* const m = space_.mapping_at(at(p));
  return m != nullptr ? m->policy : FakePolicy{};
}

std::size_t FakeOs::mapping_count() const {
  const std::lock_guard guard(mutex_);
  return space_.mappings().size();
}

std::size_t FakeOs::bytes_in_state(PageState state) const {
  const std::lock_guard guard(mutex_);
  return space_.bytes_in_state(state);
}

std::size_t FakeOs::bytes_on(NodeId node, bool hugetlb) const {
  const std::lock_guard guard(mutex_);
  return space_.bytes_on(node, hugetlb);
}

std::size_t FakeOs::hugetlb_bytes() const {
  const std::lock_guard guard(mutex_);
  std::size_t sum = 0;
  for (std::size_t n = 0; n < space_.node_count(); n++) sum += space_.bytes_on(NodeId(static_cast<int>(n)), true);
  return sum;
}

std::string FakeOs::check() const {
  const std::lock_guard guard(mutex_);
  return space_.check();
}

}  // namespace nh::test
