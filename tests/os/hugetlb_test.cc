// hugetlb memory on the real machine. Every test sets the pool itself (HugePoolGuard) and holds the machine's lock
// meanwhile. Where the pool cannot be filled, for want of privilege or of memory, what is checked is how an empty pool
// shows, and the test says that it saw no more.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/maps.h"
#include "os/os.h"
#include "support/huge_pool_guard.h"

namespace nh {
namespace {

using test::HugePoolGuard;
using test::mappings_within;
using test::permissions_of;

const OsOps& os = linux_os();

class Hugetlb : public testing::Test {
 protected:
  static constexpr std::size_t kArea = 8 * kHugeSize;
  void SetUp() override {
    area_ = static_cast<char*>(os.reserve(kArea, kArenaSize));
    ASSERT_NE(area_, nullptr);
  }
  void TearDown() override { os.unmap(area_, kArea); }
  // A place where nothing is mapped.
  static char* free_place(std::size_t bytes, std::size_t alignment = kHugeSize) {
    char* const p = static_cast<char*>(os.reserve(bytes, alignment));
    os.unmap(p, bytes);
    return p;
  }
  static void* map(std::size_t pages, Reservation reservation, int* error, std::size_t page_bytes = kHugeSize) {
    void* const p = free_place(pages * page_bytes, page_bytes);
    errno = 4711;
    *error = os.map_new_hugetlb(p, pages * page_bytes, page_bytes, HugeSource::kAnonymous, reservation);
    EXPECT_EQ(errno, 4711) << "errno was changed";
    if (*error == 0) return p;
    EXPECT_EQ(permissions_of(p), "") << "a refusal left something behind";
    return nullptr;
  }
  static HugePool pool(NodeId node = NodeId()) {
    HugePool out;
    os.forget_state();
    EXPECT_TRUE(os.huge_pool(kHugeSize, node, &out));
    return out;
  }
  char* area_ = nullptr;
};

// A pool that could not be filled must refuse by an error, as the layers above rely on.
void check_refusal(void* (*map)(std::size_t, Reservation, int*, std::size_t), std::size_t page_bytes) {
  if (HugePoolGuard::free(page_bytes) != 0) return;  // a few pages; how they run out is checked where there are enough
  int error = 0;
  EXPECT_EQ(map(1, Reservation::kFull, &error, page_bytes), nullptr);
  EXPECT_EQ(error, ENOMEM);
  void* const p = map(1, Reservation::kNone, &error, page_bytes);
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(os.populate(p, page_bytes), EFAULT);
  EXPECT_EQ(os.discard(p, page_bytes), 0);
  EXPECT_EQ(os.nodes_of(&p, 1, &error), 0);
  EXPECT_EQ(error, -ENOENT);
  os.unmap(p, page_bytes);
}

#define NEED_PAGES_OF(guard, page_bytes)                                             \
  if (!(guard).ok()) {                                                               \
    check_refusal(map, page_bytes);                                                  \
    GTEST_SKIP() << "only the refusals could be checked: " << (guard).why();         \
  }                                                                                  \
  static_assert(true)
#define NEED_PAGES(guard) NEED_PAGES_OF(guard, kHugeSize)

// ---- without pages: the behaviour on most machines ------------------------------------------------------------------

TEST_F(Hugetlb, EmptyPoolRefusesReservations) {
  HugePoolGuard guard(0);
  if (HugePoolGuard::free() != 0) GTEST_SKIP() << "the pool cannot be emptied: " << guard.why();
  int error = 0;
  EXPECT_EQ(map(1, Reservation::kFull, &error), nullptr);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(pool().reserved, 0u);
}

TEST_F(Hugetlb, EmptyPoolFailsPopulateWithoutASignal) {
  HugePoolGuard guard(0);
  if (HugePoolGuard::free() != 0) GTEST_SKIP() << "the pool cannot be emptied: " << guard.why();
  int error = 0;
  void* const p = map(2, Reservation::kNone, &error);
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(os.populate(p, kHugeSize), EFAULT);
  // The way out: the same addresses as base pages.
  ASSERT_EQ(os.map_plain(p, kHugeSize), 0);
  EXPECT_EQ(os.populate(p, kHugeSize), 0);
  *static_cast<char*>(p) = 1;
  os.unmap(p, 2 * kHugeSize);
}

TEST_F(Hugetlb, PageSizesThatDoNotExist) {
  int error = 0;
  EXPECT_EQ(map(1, Reservation::kNone, &error, 4 * MiB), nullptr);
  EXPECT_EQ(error, EINVAL);
  HugePool out;
  out.total = 77;
  EXPECT_FALSE(os.huge_pool(4 * MiB, NodeId(), &out));
  EXPECT_FALSE(os.huge_pool(kHugeSize, NodeId(1000), &out));
  EXPECT_EQ(out.total, 77u);
}

TEST_F(Hugetlb, WhatIsInTheWayStays) {
  ASSERT_EQ(os.make_writable(area_ + kHugeSize, kOsPageSize), 0);
  area_[kHugeSize] = 1;
  for (const Reservation reservation : {Reservation::kNone, Reservation::kFull}) {
    EXPECT_EQ(os.map_new_hugetlb(area_, 2 * kHugeSize, kHugeSize, HugeSource::kAnonymous, reservation), EEXIST);
  }
  EXPECT_EQ(area_[kHugeSize], 1);
  EXPECT_EQ(permissions_of(area_), "---p");
  EXPECT_EQ(pool().reserved, 0u);
}

// ---- with pages ------------------------------------------------------------------------------------------------

TEST_F(Hugetlb, PoolCounters) {
  HugePoolGuard guard(4);
  NEED_PAGES(guard);
  const HugePool before = pool();
  EXPECT_EQ(before.free - before.reserved, 4u);
  std::size_t on_nodes = 0;
  for (int n = 0; n < 1024; n++) {
    HugePool node;
    if (os.huge_pool(kHugeSize, NodeId(n), &node)) on_nodes += node.free;
  }
  EXPECT_EQ(on_nodes, before.free);

  int error = 0;
  char* const p = static_cast<char*>(map(3, Reservation::kFull, &error));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(pool().reserved, before.reserved + 3);
  EXPECT_EQ(pool().free, before.free);
  p[0] = 1;
  EXPECT_EQ(pool().reserved, before.reserved + 2);
  EXPECT_EQ(pool().free, before.free - 1);
  EXPECT_EQ(map(2, Reservation::kFull, &error), nullptr) << "promised pages were promised again";
  EXPECT_EQ(error, ENOMEM);
  os.unmap(p, 3 * kHugeSize);
  EXPECT_EQ(pool().free, before.free);
  EXPECT_EQ(pool().reserved, before.reserved);
}

// New address space is mapped straight: with four pages, four are to be had, side by side with others.
TEST_F(Hugetlb, NothingIsReservedBesideWhatIsMapped) {
  HugePoolGuard guard(4);
  NEED_PAGES(guard);
  char* const place = free_place(4 * kHugeSize, kArenaSize);
  for (std::size_t i = 0; i < 4; i++) {
    ASSERT_EQ(os.map_new_hugetlb(place + i * kHugeSize, kHugeSize, kHugeSize, HugeSource::kAnonymous, Reservation::kFull), 0);
  }
  EXPECT_EQ(mappings_within(place, 4 * kHugeSize), 4u) << "they never merge";
  std::memset(place, 1, 4 * kHugeSize);
  os.unmap(place, 4 * kHugeSize);
}

TEST_F(Hugetlb, PartialPoolIsUsedForWhatItHolds) {
  HugePoolGuard guard(3);
  NEED_PAGES(guard);
  int error = 0;
  char* const p = static_cast<char*>(map(5, Reservation::kNone, &error));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  for (std::size_t i = 0; i < 5; i++) EXPECT_EQ(os.populate(p + i * kHugeSize, kHugeSize), i < 3 ? 0 : EFAULT) << i;
  std::memset(p, 1, 3 * kHugeSize);
  EXPECT_EQ(pool().free, pool().reserved);
  EXPECT_EQ(test::smaps_kb(p, "Private_Hugetlb"), 3 * kHugeSize / KiB);
  os.unmap(p, 5 * kHugeSize);
}

TEST_F(Hugetlb, DiscardGivesPagesBackToThePool) {
  HugePoolGuard guard(2);
  NEED_PAGES(guard);
  int error = 0;
  char* const p = static_cast<char*>(map(2, Reservation::kNone, &error));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  ASSERT_EQ(os.populate(p, 2 * kHugeSize), 0);
  p[0] = p[kHugeSize] = 1;
  const std::size_t free_before = pool().free;
  // Less than a page: the kernel rounds down and reports success, which is why the contract asks for whole ones.
  EXPECT_EQ(os.discard(p, kOsPageSize), 0);
  EXPECT_EQ(pool().free, free_before);
  EXPECT_EQ(p[0], 1);
  ASSERT_EQ(os.discard(p, kHugeSize), 0);
  EXPECT_EQ(pool().free, free_before + 1);
  EXPECT_EQ(p[kHugeSize], 1);
  ASSERT_EQ(os.populate(p, kHugeSize), 0);
  EXPECT_EQ(p[0], 0);
  os.unmap(p, 2 * kHugeSize);
}

TEST_F(Hugetlb, MoveOverAReservation) {
  HugePoolGuard guard(2);
  NEED_PAGES(guard);
  int error = 0;
  char* const p = static_cast<char*>(map(2, Reservation::kNone, &error));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  ASSERT_EQ(os.populate(p, kHugeSize), 0);
  std::memset(p, 0x33, kHugeSize);
  char* const target = area_ + 3 * kHugeSize;
  ASSERT_EQ(os.move_mapping(p, target, 2 * kHugeSize), 0);
  EXPECT_EQ(target[kHugeSize - 1], 0x33);
  EXPECT_EQ(permissions_of(p), "");
  EXPECT_EQ(permissions_of(target - 1), "---p");
  EXPECT_EQ(permissions_of(target + 2 * kHugeSize), "---p");
  EXPECT_EQ(os.populate(target + kHugeSize, kHugeSize), 0);

  const std::size_t free_before = pool().free;
  ASSERT_EQ(os.unmap(target, 2 * kHugeSize), 0);
  EXPECT_EQ(pool().free, free_before + 2);
  EXPECT_EQ(permissions_of(target), "");
  EXPECT_EQ(mappings_within(area_, kArea), 2u);
}

// Nothing is stored in the part that lies in the first GiB, so that it has no page tables.
TEST_F(Hugetlb, PagesBehindAHoleMoveToWhereTheyBelong) {
  HugePoolGuard guard(2);
  NEED_PAGES(guard);
  char* const first = free_place(3 * GiB, GiB);
  char* const p = first + GiB - kHugeSize;
  ASSERT_EQ(os.map_new_hugetlb(p, 2 * kHugeSize, kHugeSize, HugeSource::kAnonymous, Reservation::kFull), 0);
  ASSERT_EQ(os.populate(p + kHugeSize, kHugeSize), 0);
  std::memset(p + kHugeSize, 0x44, kHugeSize);
  // As contracted: at the same place within its GiB.
  char* const target = p + GiB;
  ASSERT_EQ(os.move_mapping(p, target, 2 * kHugeSize), 0);
  EXPECT_EQ(target[0], 0);
  EXPECT_EQ(target[kHugeSize], 0x44);
  EXPECT_EQ(target[2 * kHugeSize - 1], 0x44);
  ASSERT_EQ(os.unmap(target, 2 * kHugeSize), 0);
}

TEST_F(Hugetlb, MoveToAMisalignedAddressLeavesBothAlone) {
  int error = 0;
  void* const p = map(1, Reservation::kNone, &error);
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_EQ(os.move_mapping(p, area_ + kOsPageSize, kHugeSize), EINVAL);
  EXPECT_EQ(permissions_of(p), "rw-p");
  EXPECT_EQ(permissions_of(area_ + kOsPageSize), "---p");
  os.unmap(p, kHugeSize);
}

TEST_F(Hugetlb, NodesOfHugePages) {
  HugePoolGuard guard(1);
  NEED_PAGES(guard);
  int error = 0;
  char* const p = static_cast<char*>(map(2, Reservation::kNone, &error));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  ASSERT_EQ(os.populate(p, kHugeSize), 0);
  const void* const addresses[] = {p, p + kHugeSize};
  int nodes[2] = {77, 77};
  if (os.nodes_of(addresses, 2, nodes) == 0) {
    EXPECT_GE(nodes[0], 0);
    EXPECT_EQ(nodes[1], -ENOENT);
  }
  os.unmap(p, 2 * kHugeSize);
}

TEST_F(Hugetlb, OneGigabytePages) {
  HugePoolGuard guard(1, GiB);
  HugePool before;
  int error = 0;
  os.forget_state();
  if (!os.huge_pool(GiB, NodeId(), &before)) {
    EXPECT_EQ(map(1, Reservation::kNone, &error, GiB), nullptr);
    EXPECT_EQ(error, EINVAL);
    GTEST_SKIP() << "this machine has no pages of 1 GiB";
  }
  char* const p = static_cast<char*>(map(1, Reservation::kNone, &error, GiB));
  ASSERT_NE(p, nullptr) << std::strerror(error);
  EXPECT_TRUE(is_aligned(address(p), GiB));
  if (guard.ok()) {
    EXPECT_EQ(os.populate(p, GiB), 0);
    p[GiB - 1] = 1;
    EXPECT_EQ(os.discard(p, GiB), 0);
    HugePool after;
    ASSERT_TRUE(os.huge_pool(GiB, NodeId(), &after));
    EXPECT_EQ(after.free, before.free);
  }
  os.unmap(p, GiB);
  NEED_PAGES_OF(guard, GiB);
}

// The guard itself. A holder that is killed leaves the pool changed and the old value in the lock file.
TEST_F(Hugetlb, GuardRestoresThePool) {
  {
    HugePoolGuard guard(1);
    NEED_PAGES(guard);
    const std::size_t one_free = HugePoolGuard::total();
    EXPECT_TRUE(guard.set_free(3));
    EXPECT_EQ(HugePoolGuard::total(), one_free + 2);
  }
  const std::size_t outside = HugePoolGuard::total();
  const pid_t pid = fork();
  if (pid == 0) {
    HugePoolGuard killed(outside + 3);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  { HugePoolGuard next(1); }
  EXPECT_EQ(HugePoolGuard::total(), outside);
}

}  // namespace
}  // namespace nh
