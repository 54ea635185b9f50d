// The fake machine: calls that fail on demand, hooks, limits, old kernels.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "os/fake_os_world.h"

namespace nh::test {
namespace {

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

}  // namespace
}  // namespace nh::test
