// The fake operating system against the contract of os.h: what holds for linux_os() must hold for it, and what the real
// kernel would answer with a signal or with silence it must report.
#include "support/fake_os.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/bits.h"

namespace nh::test {
namespace {

constexpr NodeId kNode0(0);
constexpr NodeId kNode1(1);

sigjmp_buf fault_jump;
void on_fault(int) { siglongjmp(fault_jump, 1); }

// Whether reading or writing the byte faults. In this process: the model does not see what a fork child does.
bool faults(volatile char* p, bool write) {
  struct sigaction action = {};
  struct sigaction old = {};
  action.sa_handler = on_fault;
  sigaction(SIGSEGV, &action, &old);
  bool fault = false;
  if (sigsetjmp(fault_jump, 1) == 0) {
    if (write) {
      *p = *p;
    } else {
      static_cast<void>(*p);
    }
  } else {
    fault = true;
  }
  sigaction(SIGSEGV, &old, nullptr);
  return fault;
}

class FakeOsTest : public testing::Test {
 protected:
  explicit FakeOsTest(FakeOsConfig config = {.nodes = {{.memory_bytes = GiB, .pages_2m = 6},
                                                       {.memory_bytes = GiB, .pages_2m = 2}}})
      : fake_(std::move(config)), os_(fake_.ops()) {}
  void SetUp() override {
    area_ = static_cast<char*>(os_.reserve(kArenaSize, kArenaSize));
    window_ = reinterpret_cast<char*>(os_.find_window(GiB, 0, 0));
    next_ = window_ + GiB / 2;
  }
  void TearDown() override { EXPECT_EQ(fake_.check(), ""); }

  // In the window's upper half.
  char* map(std::size_t pages, Reservation reservation, int* error) {
    char* const p = next_;
    *error = os_.map_new_hugetlb(p, pages * kHugeSize, kHugeSize, HugeSource::kAnonymous, reservation);
    if (*error != 0) return nullptr;
    next_ += pages * kHugeSize;
    return p;
  }
  HugePool pool(NodeId node = NodeId()) {
    HugePool out;
    EXPECT_TRUE(os_.huge_pool(kHugeSize, node, &out));
    return out;
  }
  FakeOs fake_;
  const OsOps& os_;
  char* area_ = nullptr;
  char* window_ = nullptr;
  char* next_ = nullptr;
};

// ---- address space ---------------------------------------------------------------------------------------------

TEST_F(FakeOsTest, AccessFollowsTheState) {
  ASSERT_NE(area_, nullptr);
  EXPECT_TRUE(is_aligned(address(area_), kArenaSize));
  EXPECT_EQ(fake_.state_of(area_), PageState::kReserved);
  EXPECT_TRUE(faults(area_, false));
  ASSERT_EQ(os_.make_writable(area_, kHugeSize), 0);
  EXPECT_FALSE(faults(area_, true));
  area_[5] = 1;
  ASSERT_EQ(os_.make_writable(area_, kArenaSize), 0);
  EXPECT_EQ(area_[5], 1);
  ASSERT_EQ(os_.map_plain(area_, kHugeSize), 0);
  EXPECT_EQ(area_[5], 0);
  EXPECT_EQ(os_.unmap(area_, kArenaSize), 0);
  EXPECT_EQ(fake_.state_of(area_), PageState::kUnmapped);
  EXPECT_EQ(fake_.mapping_count(), 0u);
}

TEST_F(FakeOsTest, AWindowIsAPlaceAndNoMapping) {
  ASSERT_NE(window_, nullptr);
  EXPECT_TRUE(is_aligned(address(window_), kArenaSize));
  const std::uintptr_t other = os_.find_window(64 * GiB, 0, 1);
  ASSERT_NE(other, 0u);
  EXPECT_TRUE(other + 64 * GiB <= address(window_) || address(window_) + GiB <= other);
  const std::uintptr_t lower = os_.find_window(GiB, address(window_), 0);
  EXPECT_TRUE(lower == 0 || lower + GiB <= address(window_));
  EXPECT_EQ(os_.find_window(GiB, GiB, 0), 0u);
  EXPECT_EQ(fake_.mapping_count(), 1u);
  EXPECT_TRUE(os_.is_unmapped(window_, GiB));
  EXPECT_TRUE(faults(window_, false));

  ASSERT_EQ(os_.map_new(window_ + kHugeSize, kHugeSize), 0);
  EXPECT_FALSE(faults(window_ + kHugeSize, true));
  EXPECT_TRUE(faults(window_ + 2 * kHugeSize, false));
  window_[kHugeSize] = 1;
  EXPECT_EQ(os_.map_new(window_, GiB), EEXIST);
  EXPECT_EQ(os_.map_new_readable(window_ + 2 * kHugeSize - kOsPageSize, kHugeSize), EEXIST);
  EXPECT_EQ(os_.map_new_hugetlb(window_, GiB, kHugeSize, HugeSource::kAnonymous, Reservation::kNone), EEXIST);
  EXPECT_EQ(window_[kHugeSize], 1) << "and nothing has changed";
  ASSERT_EQ(os_.map_new_readable(window_ + 2 * kHugeSize, kHugeSize), 0);
  EXPECT_FALSE(faults(window_ + 2 * kHugeSize, false));
  EXPECT_TRUE(faults(window_ + 2 * kHugeSize, true));
  EXPECT_FALSE(os_.is_unmapped(window_, GiB));
  EXPECT_TRUE(os_.is_unmapped(window_ + 3 * kHugeSize, kHugeSize));

  ASSERT_EQ(os_.unmap(window_ + kHugeSize, 2 * kHugeSize), 0);
  EXPECT_TRUE(os_.is_unmapped(window_, GiB));
  EXPECT_TRUE(faults(window_ + kHugeSize, false));
  ASSERT_EQ(os_.map_new(window_, GiB), 0);
  EXPECT_EQ(window_[kHugeSize], 0);
}

TEST_F(FakeOsTest, ObstaclesAreInTheWayAndNotInTheModel) {
  fake_.add_obstacle(address(window_) + kHugeSize, kHugeSize);
  EXPECT_EQ(fake_.mapping_count(), 1u);
  EXPECT_FALSE(os_.is_unmapped(window_, 2 * kHugeSize));
  EXPECT_FALSE(os_.is_unmapped(window_ + 2 * kHugeSize - kOsPageSize, kOsPageSize));
  EXPECT_TRUE(os_.is_unmapped(window_, kHugeSize));
  EXPECT_TRUE(os_.is_unmapped(window_ + 2 * kHugeSize, kHugeSize));
  EXPECT_EQ(os_.map_new(window_, 2 * kHugeSize), EEXIST);
  EXPECT_EQ(os_.map_new(window_, kHugeSize), 0);
}

TEST_F(FakeOsTest, AnUnmapThatFailsChangesNothing) {
  ASSERT_EQ(os_.map_new(window_, kHugeSize), 0);
  ASSERT_EQ(os_.populate(window_, kHugeSize), 0);
  window_[5] = 1;
  fake_.fail_call(FakeCall::kUnmap, 1, ENOMEM);
  EXPECT_EQ(os_.unmap(window_, kHugeSize), ENOMEM);
  EXPECT_EQ(fake_.state_of(window_), PageState::kWritable);
  EXPECT_EQ(window_[5], 1);
  EXPECT_EQ(fake_.bytes_on(kNode0, false), kHugeSize);
}

TEST_F(FakeOsTest, MappingsMergeAsTheKernels) {
  EXPECT_EQ(fake_.mapping_count(), 1u);
  ASSERT_EQ(os_.make_writable(area_ + kHugeSize, kHugeSize), 0);
  EXPECT_EQ(fake_.mapping_count(), 3u);
  ASSERT_EQ(os_.make_writable(area_, kHugeSize), 0);
  EXPECT_EQ(fake_.mapping_count(), 2u);
  ASSERT_EQ(os_.advise_thp(area_, kHugeSize, true), 0);
  EXPECT_EQ(fake_.mapping_count(), 3u);
  ASSERT_EQ(os_.advise_thp(area_ + kHugeSize, kHugeSize, true), 0);
  EXPECT_EQ(fake_.mapping_count(), 2u);
  int error = 0;
  char* const a = map(1, Reservation::kNone, &error);
  char* const b = map(1, Reservation::kNone, &error);
  EXPECT_EQ(fake_.mapping_count(), 4u) << "hugetlb mappings never merge";
  ASSERT_EQ(os_.move_mapping(a, area_ + 4 * kHugeSize, kHugeSize), 0);
  ASSERT_EQ(os_.move_mapping(b, area_ + 5 * kHugeSize, kHugeSize), 0);
  EXPECT_EQ(fake_.mapping_count(), 5u);
}

TEST_F(FakeOsTest, NodeMemoryRunsOut) {
  fake_.set_memory(kNode0, 3 * kOsPageSize);
  ASSERT_EQ(os_.make_writable(area_, kHugeSize), 0);
  ASSERT_EQ(os_.bind(area_, kHugeSize, BindMode::kBind, NodeSet::of(kNode0)), 0);
  EXPECT_EQ(os_.populate(area_, 4 * kOsPageSize), ENOMEM);
  EXPECT_EQ(fake_.bytes_on(kNode0, false), 3 * kOsPageSize);
  ASSERT_EQ(os_.bind(area_, kHugeSize, BindMode::kPreferred, NodeSet::of(kNode0)), 0);
  EXPECT_EQ(os_.populate(area_, 5 * kOsPageSize), 0) << "a preference spills";
  EXPECT_EQ(fake_.node_of(area_), kNode0);
  EXPECT_EQ(fake_.node_of(area_ + 4 * kOsPageSize), kNode1);
  ASSERT_EQ(os_.discard(area_, kOsPageSize), 0);
  EXPECT_EQ(fake_.bytes_on(kNode0, false), 2 * kOsPageSize);
  EXPECT_EQ(fake_.node_of(area_), NodeId());
}

TEST_F(FakeOsTest, PoliciesChooseNodes) {
  ASSERT_EQ(os_.make_writable(area_, kArenaSize), 0);
  NodeSet both = NodeSet::of(kNode0);
  both.add(kNode1);
  ASSERT_EQ(os_.bind(area_, kHugeSize, BindMode::kInterleave, both), 0);
  ASSERT_EQ(os_.populate(area_, 4 * kOsPageSize), 0);
  EXPECT_NE(fake_.node_of(area_), fake_.node_of(area_ + kOsPageSize));
  EXPECT_EQ(fake_.node_of(area_), fake_.node_of(area_ + 2 * kOsPageSize));
  // First touch: the node of the thread that faults.
  FakeOs::set_local_node(kNode1);
  ASSERT_EQ(os_.populate(area_ + kHugeSize, kOsPageSize), 0);
  EXPECT_EQ(fake_.node_of(area_ + kHugeSize), kNode1);
  EXPECT_EQ(fake_.touch(area_ + kHugeSize + kOsPageSize, kOsPageSize, kNode0), 0);
  const void* const addresses[] = {area_ + kHugeSize, area_ + kHugeSize + kOsPageSize, area_ + 3 * kHugeSize};
  int nodes[3] = {};
  ASSERT_EQ(os_.nodes_of(addresses, 3, nodes), 0);
  EXPECT_EQ(nodes[0], 1);
  EXPECT_EQ(nodes[1], 0);
  EXPECT_EQ(nodes[2], -ENOENT);
}

TEST_F(FakeOsTest, BindToAnAbsentNode) {
  fake_.set_online(kNode1, false);
  EXPECT_EQ(os_.bind(area_, kArenaSize, BindMode::kBind, NodeSet::of(kNode1)), EINVAL);
  EXPECT_EQ(os_.bind(area_, kArenaSize, BindMode::kBind, NodeSet::of(NodeId(2))), EINVAL);
  fake_.set_online(kNode1, true);
  EXPECT_EQ(os_.bind(area_, kArenaSize, BindMode::kBind, NodeSet::of(kNode1)), 0);
  EXPECT_EQ(fake_.policy_of(area_).mode, BindMode::kBind);
}

TEST_F(FakeOsTest, TransparentHugePages) {
  ASSERT_EQ(os_.make_writable(area_, kArenaSize), 0);
  ASSERT_EQ(os_.populate(area_, kHugeSize), 0);
  EXPECT_EQ(fake_.backing_of(area_), Backing::kBase) << "madvise mode, not advised";
  ASSERT_EQ(os_.advise_thp(area_, kArenaSize, true), 0);
  ASSERT_EQ(os_.populate(area_ + kHugeSize, kHugeSize), 0);
  EXPECT_EQ(fake_.backing_of(area_ + kHugeSize), Backing::kThp);
  ASSERT_EQ(os_.populate(area_ + 2 * kHugeSize, kOsPageSize), 0);
  EXPECT_EQ(fake_.backing_of(area_ + 2 * kHugeSize), Backing::kBase) << "the range was shorter than a huge page";
  // A part dropped breaks it up, and only the part is free.
  ASSERT_EQ(os_.discard(area_ + kHugeSize + kOsPageSize, kOsPageSize), 0);
  EXPECT_EQ(fake_.backing_of(area_ + kHugeSize), Backing::kBase);
  EXPECT_EQ(fake_.backing_of(area_ + kHugeSize + kOsPageSize), Backing::kNone);
  EXPECT_EQ(fake_.bytes_on(kNode0, false), 2 * kHugeSize);
  fake_.set_thp_mode(2);
  EXPECT_EQ(os_.thp_mode(), 2);
  ASSERT_EQ(os_.advise_thp(area_, kArenaSize, false), 0);
  ASSERT_EQ(os_.populate(area_ + 3 * kHugeSize, kHugeSize), 0);
  EXPECT_EQ(fake_.backing_of(area_ + 3 * kHugeSize), Backing::kBase);
}

// ---- hugetlb -----------------------------------------------------------------------------------------------------

TEST_F(FakeOsTest, PoolsPerNode) {
  int error = 0;
  char* const p = map(8, Reservation::kNone, &error);
  ASSERT_NE(p, nullptr);
  EXPECT_TRUE(faults(p, true)) << "not proven yet";
  ASSERT_EQ(os_.bind(p, 8 * kHugeSize, BindMode::kBind, NodeSet::of(kNode1)), 0);
  EXPECT_EQ(os_.populate(p, kHugeSize), 0);
  EXPECT_FALSE(faults(p, true));
  EXPECT_TRUE(faults(p + kHugeSize, true));
  EXPECT_EQ(os_.populate(p + kHugeSize, 2 * kHugeSize), EFAULT) << "the node's pool holds two";
  EXPECT_EQ(pool(kNode1).free, 0u);
  EXPECT_EQ(pool(kNode0).free, 6u);
  EXPECT_EQ(fake_.backing_of(p + kHugeSize), Backing::kHuge2M);
  EXPECT_EQ(fake_.bytes_on(kNode1, true), 2 * kHugeSize);
  ASSERT_EQ(os_.discard(p, kHugeSize), 0);
  EXPECT_TRUE(faults(p, true));
  EXPECT_EQ(pool(kNode1).free, 1u);
  ASSERT_EQ(os_.unmap(p, 8 * kHugeSize), 0);
  EXPECT_EQ(pool(kNode1).free, 2u);
}

TEST_F(FakeOsTest, ReservationsAreGlobal) {
  int error = 0;
  char* const p = map(7, Reservation::kFull, &error);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(pool().reserved, 7u);
  EXPECT_EQ(map(2, Reservation::kFull, &error), nullptr);
  EXPECT_EQ(error, ENOMEM);
  char* const q = map(2, Reservation::kNone, &error);
  EXPECT_EQ(os_.populate(q, kHugeSize), 0);
  EXPECT_EQ(os_.populate(q + kHugeSize, kHugeSize), EFAULT) << "all others are promised";
  EXPECT_FALSE(faults(p, true)) << "promised memory may be touched";
  // Bound to a node whose pool is smaller than the promise: what the kernel makes a SIGBUS of.
  ASSERT_EQ(os_.bind(p, 7 * kHugeSize, BindMode::kBind, NodeSet::of(kNode1)), 0);
  EXPECT_EQ(fake_.touch(p, 3 * kHugeSize, kNode0), EFAULT);
  EXPECT_EQ(pool().reserved, 5u);
  ASSERT_EQ(os_.unmap(p, 7 * kHugeSize), 0);
  EXPECT_EQ(pool().reserved, 0u);
  EXPECT_EQ(pool().free, 7u);
}

TEST_F(FakeOsTest, MovingKeepsPagesAndContents) {
  int error = 0;
  char* const p = map(3, Reservation::kFull, &error);
  ASSERT_EQ(os_.populate(p, kHugeSize), 0);
  p[9] = 42;
  ASSERT_EQ(os_.move_mapping(p, area_ + kHugeSize, 3 * kHugeSize), 0);
  EXPECT_EQ(area_[kHugeSize + 9], 42);
  EXPECT_EQ(fake_.state_of(p), PageState::kUnmapped);
  EXPECT_EQ(fake_.backing_of(area_ + kHugeSize), Backing::kHuge2M);
  EXPECT_EQ(pool().reserved, 2u);
  ASSERT_EQ(os_.populate(area_ + 2 * kHugeSize, 2 * kHugeSize), 0);
  EXPECT_EQ(pool().reserved, 0u);
  // And a mapping of many pieces underneath: populated here and there, without reservation.
  char* const q = map(3, Reservation::kNone, &error);
  ASSERT_EQ(os_.populate(q + kHugeSize, kHugeSize), 0);
  ASSERT_EQ(os_.move_mapping(q, area_ + 8 * kHugeSize, 3 * kHugeSize), 0);
  EXPECT_FALSE(faults(area_ + 9 * kHugeSize, true));
  EXPECT_TRUE(faults(area_ + 8 * kHugeSize, true));
}

TEST_F(FakeOsTest, SharedFilesAndRefusedHugetlb) {
  const auto shared = HugeSource::kSharedFile;
  ASSERT_EQ(os_.map_new_hugetlb(window_, 2 * kHugeSize, kHugeSize, shared, Reservation::kNone), 0);
  ASSERT_EQ(os_.populate(window_, 2 * kHugeSize), 0);
  ASSERT_EQ(os_.punch(window_, kHugeSize), 0);
  EXPECT_EQ(pool().free, 7u);
  char* const p = window_ + 4 * kHugeSize;
  EXPECT_EQ(os_.map_new_hugetlb(p, 8 * kHugeSize, kHugeSize, shared, Reservation::kFull), ENOMEM);
  EXPECT_EQ(os_.map_new_hugetlb(p, 4 * MiB, 4 * MiB, shared, Reservation::kNone), EINVAL);
  EXPECT_EQ(fake_.state_of(p), PageState::kUnmapped);
  EXPECT_TRUE(os_.is_unmapped(p, 8 * kHugeSize));
  EXPECT_EQ(pool().reserved, 0u);
}

TEST_F(FakeOsTest, PoolsChangeUnderOurHands) {
  int error = 0;
  char* const p = map(4, Reservation::kNone, &error);
  ASSERT_EQ(os_.populate(p, 2 * kHugeSize), 0);
  fake_.set_pool_pages(kNode0, kHugeSize, 0);
  fake_.set_pool_pages(kNode1, kHugeSize, 0);
  EXPECT_EQ(pool().total, 2u) << "pages in use stay";
  EXPECT_EQ(os_.populate(p + 2 * kHugeSize, kHugeSize), EFAULT);
  fake_.set_pool_pages(kNode1, kHugeSize, 1);
  EXPECT_EQ(os_.populate(p + 2 * kHugeSize, kHugeSize), 0);
}

// ---- failures ----------------------------------------------------------------------------------------------------

TEST_F(FakeOsTest, FailsTheCallThatWasNamed) {
  fake_.fail_call(FakeCall::kMakeWritable, 2, EACCES);
  EXPECT_EQ(os_.make_writable(area_, kOsPageSize), 0);
  EXPECT_EQ(os_.make_writable(area_ + kOsPageSize, kOsPageSize), EACCES);
  EXPECT_EQ(fake_.state_of(area_ + kOsPageSize), PageState::kReserved) << "a failed call must have no effect";
  EXPECT_EQ(os_.make_writable(area_ + kOsPageSize, kOsPageSize), 0);
  EXPECT_EQ(fake_.calls(FakeCall::kMakeWritable), 3u);
  EXPECT_EQ(fake_.failures(), 1u);
}

TEST_F(FakeOsTest, FailsEveryCallOfTheTable) {
  int error = 0;
  char* const p = map(1, Reservation::kNone, &error);
  for (unsigned call = 0; call < kFakeCalls; call++) {
    const auto c = static_cast<FakeCall>(call);
    if (c == FakeCall::kMappingsAreScarce || c >= FakeCall::kNowNs) continue;
    fake_.fail_all(c, EHWPOISON);
  }
  const void* const where = area_;
  int node = 0;
  HugePool out;
  EXPECT_EQ(os_.find_window(GiB, 0, 0), 0u);
  EXPECT_FALSE(os_.is_unmapped(window_, kHugeSize));
  EXPECT_FALSE(os_.has_room(window_, kHugeSize));
  EXPECT_EQ(os_.reserve(kOsPageSize, kOsPageSize), nullptr);
  EXPECT_EQ(os_.make_writable(area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.unmap(p, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.map_new(window_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.map_new_readable(window_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.map_plain(area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.advise_thp(area_, kHugeSize, true), EHWPOISON);
  EXPECT_EQ(os_.populate(area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.discard(area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.punch(area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(map(1, Reservation::kNone, &error), nullptr);
  EXPECT_EQ(error, EHWPOISON);
  EXPECT_EQ(os_.move_mapping(p, area_, kHugeSize), EHWPOISON);
  EXPECT_EQ(os_.bind(area_, kHugeSize, BindMode::kDefault, NodeSet{}), EHWPOISON);
  EXPECT_EQ(os_.nodes_of(&where, 1, &node), EHWPOISON);
  EXPECT_FALSE(os_.huge_pool(kHugeSize, NodeId(), &out));
  EXPECT_EQ(os_.thp_mode(), -1);
  EXPECT_EQ(fake_.mapping_count(), 2u);
  fake_.clear_failures();
  EXPECT_EQ(os_.move_mapping(p, area_, kHugeSize), 0);
}

TEST_F(FakeOsTest, HooksRunBeforeTheCallAndNotInsideEachOther) {
  int runs = 0;
  fake_.on_call(FakeCall::kMapNew, [&] {
    runs++;
    EXPECT_TRUE(os_.is_unmapped(window_, kHugeSize)) << "nothing has been done yet, and nothing is locked";
    EXPECT_EQ(os_.map_new(window_, kHugeSize), 0);
  });
  EXPECT_EQ(os_.map_new(window_, kHugeSize), EEXIST) << "the hook was there first";
  EXPECT_EQ(runs, 1);
  fake_.on_call(FakeCall::kMapNew, {});
  EXPECT_EQ(os_.map_new(window_ + kHugeSize, kHugeSize), 0);
  EXPECT_EQ(runs, 1);
}

TEST_F(FakeOsTest, RandomFailuresRepeatWithTheirSeed) {
  const auto run = [&](std::uint64_t seed) {
    fake_.fail_randomly(FakeCall::kAdviseThp, ENOMEM, 0.3, seed);
    std::string pattern;
    for (int i = 0; i < 200; i++) pattern += os_.advise_thp(area_, kHugeSize, true) == 0 ? '.' : 'x';
    return pattern;
  };
  const std::string first = run(1);
  EXPECT_EQ(run(1), first);
  EXPECT_NE(run(2), first);
  const auto failed = std::count(first.begin(), first.end(), 'x');
  EXPECT_GT(failed, 30);
  EXPECT_LT(failed, 90);
}

TEST_F(FakeOsTest, FailedMoveCanResetItsTarget) {
  int error = 0;
  char* const p = map(1, Reservation::kNone, &error);
  ASSERT_EQ(os_.make_writable(area_, kHugeSize), 0);
  fake_.fail_all(FakeCall::kMoveMapping, ENOMEM);
  EXPECT_EQ(os_.move_mapping(p, area_, kHugeSize), ENOMEM);
  EXPECT_EQ(fake_.state_of(area_), PageState::kWritable);
  fake_.set_failed_move_resets_target(true);
  EXPECT_EQ(os_.move_mapping(p, area_, kHugeSize), ENOMEM);
  EXPECT_EQ(fake_.state_of(area_), PageState::kReserved);
  EXPECT_TRUE(faults(area_, true));
}

TEST(FakeOsLimits, AddressSpaceAndCommitment) {
  FakeOs fake({.address_limit = 4 * MiB, .commit_limit = MiB});
  const OsOps& os = fake.ops();
  EXPECT_TRUE(os.mappings_are_scarce());
  char* const window = reinterpret_cast<char*>(os.find_window(GiB, 0, 0));
  ASSERT_NE(window, nullptr) << "a window takes nothing";
  char* const p = static_cast<char*>(os.reserve(3 * MiB, kOsPageSize));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(os.reserve(2 * MiB, kOsPageSize), nullptr);
  EXPECT_EQ(os.make_writable(p, MiB), 0);
  EXPECT_EQ(os.make_writable(p, MiB), 0) << "the same again is not charged again";
  EXPECT_EQ(os.make_writable(p + MiB, kOsPageSize), ENOMEM);
  EXPECT_EQ(os.map_plain(p + MiB, kOsPageSize), ENOMEM);
  EXPECT_EQ(os.map_new(window, kOsPageSize), ENOMEM) << "not even that is left of the writable bytes";
  EXPECT_EQ(os.map_new_readable(window, MiB), 0);
  EXPECT_EQ(os.map_new_readable(window + MiB, kOsPageSize), ENOMEM) << "nor of the mapped ones";
  EXPECT_EQ(os.unmap(p, 3 * MiB), 0);
  EXPECT_TRUE(os.has_room(window + MiB, MiB));
  EXPECT_FALSE(os.has_room(window + MiB, MiB + kOsPageSize));
  EXPECT_TRUE(os.has_room(window, GiB)) << "something lies there";
  EXPECT_EQ(os.map_new(window + MiB, MiB), 0);
  EXPECT_EQ(os.reserve(3 * MiB, kOsPageSize), nullptr);
  EXPECT_NE(os.reserve(2 * MiB, kOsPageSize), nullptr);
}

TEST(FakeOsLimits, MappingsAreScarceUnderEither) {
  FakeOs fake;
  const OsOps& os = fake.ops();
  EXPECT_FALSE(os.mappings_are_scarce());
  fake.set_address_limit(GiB);
  EXPECT_TRUE(os.mappings_are_scarce());
  fake.set_address_limit(SIZE_MAX);
  EXPECT_FALSE(os.mappings_are_scarce());
  fake.set_commit_limit(GiB);
  EXPECT_TRUE(os.mappings_are_scarce());
}

TEST(FakeOsLimits, OldKernels) {
  FakeOs fake({.nodes = {{.pages_2m = 2}}, .has_populate = false,
               .can_discard_hugetlb = false, .huge_sizes = {kHugeSize}});
  const OsOps& os = fake.ops();
  HugePool out;
  EXPECT_FALSE(os.huge_pool(GiB, NodeId(), &out));
  void* const p = reinterpret_cast<void*>(align_up(os.find_window(2 * GiB, 0, 0), GiB));
  EXPECT_EQ(os.map_new_hugetlb(p, GiB, GiB, HugeSource::kAnonymous, Reservation::kNone), EINVAL);
  ASSERT_EQ(os.map_new_hugetlb(p, kHugeSize, kHugeSize, HugeSource::kAnonymous, Reservation::kFull), 0);
  EXPECT_EQ(os.populate(p, kHugeSize), EINVAL);
  EXPECT_EQ(os.discard(p, kHugeSize), EINVAL);
}

// ---- time --------------------------------------------------------------------------------------------------------

TEST_F(FakeOsTest, ClockMovesOnlyWhenTold) {
  const std::uint64_t begin = os_.now_ns();
  EXPECT_EQ(os_.now_ns(), begin);
  fake_.advance_ns(500);
  EXPECT_EQ(os_.now_ns(), begin + 500);
}

TEST_F(FakeOsTest, SleepersWakeByWordAndByTime) {
  std::atomic<std::uint32_t> a{0};
  std::atomic<std::uint32_t> b{0};
  os_.futex_wait(&a, 1, 0);  // another value: returns at once
  std::atomic<int> awake{0};
  std::thread on_a([&] {
    os_.futex_wait(&a, 0, 0);
    awake += 1;
  });
  std::thread on_b([&] {
    os_.futex_wait(&b, 0, 1000);
    awake += 10;
  });
  for (int i = 0; i < 5000 && fake_.sleepers() != 2; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(fake_.sleepers(), 2u) << "they do not sleep";
  os_.futex_wake(&a, 1);
  on_a.join();
  EXPECT_EQ(awake, 1);
  fake_.advance_ns(999);
  EXPECT_EQ(fake_.sleepers(), 1u);
  fake_.advance_ns(1);
  on_b.join();
  EXPECT_EQ(awake, 11);
}

// ---- what a caller must not do -----------------------------------------------------------------------------------

using FakeOsDeathTest = FakeOsTest;

TEST_F(FakeOsDeathTest, BrokenContracts) {
  int error = 0;
  char* const p = map(4, Reservation::kNone, &error);
  ASSERT_EQ(os_.make_writable(area_, kHugeSize), 0);
  const NodeSet node = NodeSet::of(kNode0);
  EXPECT_DEATH(os_.make_writable(area_ + 1, kOsPageSize), "make_writable.*whole pages");
  EXPECT_DEATH(os_.make_writable(area_, 100), "make_writable.*whole pages");
  EXPECT_DEATH(os_.discard(area_, 0), "discard.*empty range");
  EXPECT_DEATH(os_.reserve(kOsPageSize, 3 * kOsPageSize), "reserve.*power of two");
  EXPECT_DEATH(os_.make_writable(p, kHugeSize), "make_writable.*hugetlb");
  EXPECT_DEATH(os_.unmap(area_ + kArenaSize - kHugeSize, 64 * GiB), "unmap.*not mapped");
  EXPECT_DEATH(os_.map_new(area_, kHugeSize), "map_new.*outside of every window");
  EXPECT_DEATH(os_.map_new(window_ + GiB - kHugeSize, 2 * kHugeSize), "map_new.*outside of every window");
  EXPECT_DEATH(os_.map_new_hugetlb(window_ + kOsPageSize, kHugeSize, kHugeSize, HugeSource::kMemfd, Reservation::kNone),
               "map_new_hugetlb.*whole huge pages");
  EXPECT_DEATH(os_.populate(area_ + kHugeSize, kHugeSize), "populate.*not writable");
  EXPECT_DEATH(os_.discard(p, kOsPageSize), "discard.*part of a huge page");
  EXPECT_DEATH(os_.unmap(p, kOsPageSize), "unmap.*huge page in two");
  EXPECT_DEATH(os_.bind(p, kHugeSize, BindMode::kBind, node), "bind.*part of a hugetlb mapping");
  EXPECT_DEATH(os_.bind(p + kHugeSize, 3 * kHugeSize, BindMode::kBind, node), "bind.*part of a hugetlb mapping");
  EXPECT_DEATH(os_.move_mapping(p, area_ + kOsPageSize, 4 * kHugeSize), "move_mapping.*not aligned");
  EXPECT_DEATH(os_.move_mapping(p, p + kHugeSize, 2 * kHugeSize), "move_mapping.*overlap");
  EXPECT_DEATH(os_.move_mapping(p, area_, 5 * kHugeSize), "move_mapping.*not one mapping");
  EXPECT_DEATH(os_.punch(p, kHugeSize), "punch.*not shared");
  EXPECT_DEATH(fake_.fail_all(FakeCall::kNowNs, ENOMEM), "cannot fail");
  EXPECT_DEATH(FakeOs second, "one already");
}

}  // namespace
}  // namespace nh::test
