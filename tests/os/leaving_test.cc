// What a process that forks needs to leave huge pages of a pool: stores stopped, pinned pages found, pages moved to ordinary
// memory, mappings and threads looked at. On the real machine.
#include <cerrno>
#include <csignal>
#include <cstring>

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "os/fork_advice.h"
#include "os/mappings.h"
#include "os/os.h"
#include "os/page_mover.h"
#include "os/room.h"
#include "os/thread_places.h"
#include "os/userfault.h"
#include "support/huge_pool_guard.h"

namespace nh {
namespace {

using test::HugePoolGuard;

const OsOps& os = linux_os();

// Some huge pages with a number in each, and places to move them to.
class Leaving : public testing::TestWithParam<Reservation> {
 protected:
  static constexpr std::size_t kPages = 6;

  void SetUp() override {
    if (!guard_.ok()) GTEST_SKIP() << guard_.why();
    auto* const pages = reinterpret_cast<char*>(os.find_window(kPages * kHugeSize, 0, 0));
    ASSERT_EQ(os.map_new_hugetlb(pages, kPages * kHugeSize, kHugeSize, HugeSource::kAnonymous, GetParam()), 0);
    pages_ = pages;
    for (std::size_t i = 0; i < kPages; i++) *number(i) = i + 1;
    copies_ = static_cast<char*>(os.reserve(kPages * kHugeSize, kHugeSize));
    ASSERT_NE(copies_, nullptr);
    ASSERT_EQ(os.make_writable(copies_, kPages * kHugeSize), 0);
    for (std::size_t i = 0; i < kPages; i++) {
      moves_[i] = {pages_ + i * kHugeSize, copies_ + i * kHugeSize, kHugeSize, false, true, false, MoveResult::kPlanned};
    }
  }
  void TearDown() override {
    if (pages_ == nullptr) return;
    for (const PageMove& move : moves_) {
      if (move.result != MoveResult::kMoved) os.unmap(move.copy, move.bytes);
    }
    os.unmap(pages_, kPages * kHugeSize);
    HugePool pool;
    EXPECT_TRUE(os.huge_pool(kHugeSize, NodeId(), &pool));
    EXPECT_EQ(pool.reserved, 0u);
  }
  volatile std::uint64_t* number(std::size_t i) { return reinterpret_cast<std::uint64_t*>(pages_ + i * kHugeSize); }
  void move(WriteProtection* protection, bool on_own_stack = true) {
    PageMap map;
    MoveOrder order = {moves_, kPages, protection, &map};
    errno = 4711;
    move_pages(order, on_own_stack);
    EXPECT_EQ(errno, 4711) << "errno was changed";
  }
  void expect_all_moved() {
    for (std::size_t i = 0; i < kPages; i++) {
      EXPECT_EQ(moves_[i].result, MoveResult::kMoved) << i;
      EXPECT_EQ(*number(i), i + 1) << i;
    }
    EXPECT_EQ(HugePoolGuard::free(), 2 * kPages) << "not all went back";
  }

  HugePoolGuard guard_{2 * kPages};
  char* pages_ = nullptr;
  char* copies_ = nullptr;
  PageMove moves_[kPages];
};

INSTANTIATE_TEST_SUITE_P(Pages, Leaving, testing::Values(Reservation::kNone, Reservation::kFull),
                         [](const auto& p) { return p.param == Reservation::kNone ? "Unreserved" : "Reserved"; });

TEST_P(Leaving, PagesBecomeOrdinaryMemoryInOneMapping) {
  move(nullptr);
  expect_all_moved();
  Mappings mappings;
  bool found = false;
  for (Mapping m; mappings.next(&m);) {
    if (m.start > address(pages_) || m.end <= address(pages_)) continue;
    found = true;
    EXPECT_GE(m.end, address(pages_) + kPages * kHugeSize);
    EXPECT_TRUE(m.read && m.write && !m.hugetlb && !m.other);
  }
  EXPECT_TRUE(found);
}

TEST_P(Leaving, AnotherStackDoesIt) {
  move(nullptr, false);
  expect_all_moved();
}

TEST_P(Leaving, UntouchedPagesStayUntouched) {
  ASSERT_EQ(os.discard(pages_ + kHugeSize, kHugeSize), 0);
  move(nullptr);
  EXPECT_EQ(moves_[1].result, MoveResult::kMoved);
  EXPECT_FALSE(PageMap().facts(pages_ + kHugeSize).present);
  EXPECT_TRUE(PageMap().facts(pages_).present);
  EXPECT_EQ(*number(1), 0u);
}

TEST_P(Leaving, PinnedPagesStay) {
  io_uring_params parameters = {};
  const int ring = static_cast<int>(::syscall(SYS_io_uring_setup, 4, &parameters));
  if (ring < 0) GTEST_SKIP() << "io_uring is not to be had here";
  const iovec buffer = {pages_ + 2 * kHugeSize + 4096, 100};
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1), 0);
  move(nullptr);
  for (std::size_t i = 0; i < kPages; i++) {
    EXPECT_EQ(moves_[i].result, i == 2 ? MoveResult::kPinned : MoveResult::kMoved) << i;
    EXPECT_EQ(*number(i), i + 1) << i;
  }
  // A page that is unmapped while it is pinned would leave the pool's counters wrong until the pin is gone.
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, nullptr, 0), 0);
  ::close(ring);
}

// Where the pool has no page for the child's copy of a pinned one, no child can be made: nothing is known.
TEST_P(Leaving, WithoutAChildOnlyWhatMustBeIsMoved) {
  io_uring_params parameters = {};
  const int ring = static_cast<int>(::syscall(SYS_io_uring_setup, 4, &parameters));
  if (ring < 0) GTEST_SKIP() << "io_uring is not to be had here";
  const iovec buffer = {pages_, 100};
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1), 0);
  ASSERT_TRUE(guard_.set_free(0));
  moves_[3].even_unknown = true;
  move(nullptr);
  for (std::size_t i = 0; i < kPages; i++) {
    EXPECT_EQ(moves_[i].result, i == 3 ? MoveResult::kMoved : MoveResult::kUnknown) << i;
    EXPECT_EQ(*number(i), i + 1) << i;
  }
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, nullptr, 0), 0);
  ::close(ring);
}

TEST_P(Leaving, WhatTheProgramKeepsFromChildrenStays) {
  ASSERT_EQ(keep_from_children(pages_ + 4 * kHugeSize, kHugeSize), 0);
  move(nullptr);
  EXPECT_EQ(moves_[4].result, MoveResult::kPinned);
  EXPECT_EQ(moves_[3].result, MoveResult::kMoved);
}

TEST_P(Leaving, ReadOnlyPagesStayReadOnly) {
  ASSERT_EQ(::mprotect(pages_, kHugeSize, PROT_READ), 0);
  moves_[0].read_only = true;
  move(nullptr);
  expect_all_moved();
  const auto store = [&] {
    ::signal(SIGSEGV, SIG_DFL);  // sanitizers have a handler of their own
    *number(0) = 1;
  };
  EXPECT_EXIT(store(), testing::KilledBySignal(SIGSEGV), "");
  *number(1) = 1;
}

TEST_P(Leaving, StoresOfOtherThreadsWaitAndAreNotLost) {
  WriteProtection protection;
  if (!protection.open()) GTEST_SKIP() << "no userfaultfd";
  ASSERT_TRUE(protection.add(pages_, kPages * kHugeSize));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0};
  std::thread writer([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    for (; !stop; rounds++) {
      for (std::size_t i = 0; i < kPages; i++) *number(i) = *number(i) + 1;
    }
  });
  while (rounds < 100) std::this_thread::yield();
  move(&protection);
  const std::uint64_t then = rounds;
  while (rounds < then + 100) std::this_thread::yield();
  stop = true;
  writer.join();
  for (std::size_t i = 0; i < kPages; i++) {
    EXPECT_EQ(moves_[i].result, MoveResult::kMoved);
    EXPECT_EQ(*number(i), i + 1 + rounds) << i;
  }
}

TEST_P(Leaving, ProtectionIsGoneWhenItIsClosed) {
  WriteProtection protection;
  if (!protection.open()) GTEST_SKIP() << "no userfaultfd";
  ASSERT_TRUE(protection.add(pages_, kPages * kHugeSize));
  ASSERT_TRUE(protection.protect(pages_, kHugeSize));
  std::atomic<bool> stored{false};
  std::thread writer([&] {
    *number(1) = 50;  // announced, but not protected
    *number(0) = 70;
    stored = true;
  });
  while (*number(1) != 50) std::this_thread::yield();
  ::usleep(20'000);
  EXPECT_FALSE(stored);
  EXPECT_EQ(*number(0), 1u);
  protection.close();
  writer.join();
  EXPECT_EQ(*number(0), 70u);
}

TEST(Mapping, FlagsAreRead) {
  const std::size_t page = kOsPageSize;
  auto* const p = static_cast<char*>(os.reserve(4 * page, page));
  ASSERT_EQ(os.make_writable(p, 3 * page), 0);
  ASSERT_EQ(::mprotect(p + page, page, PROT_READ), 0);
  ASSERT_EQ(keep_from_children(p + 2 * page, page), 0);
  ASSERT_EQ(keep_from_dumps(p + 3 * page, page), 0);
  std::vector<Mapping> found;
  Mappings mappings;
  for (Mapping m; mappings.next(&m);) {
    if (m.start >= address(p) && m.end <= address(p) + 4 * page) found.push_back(m);
  }
  EXPECT_EQ(mappings.error(), 0);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_TRUE(found[0].read && found[0].write && !found[0].reserved && !found[0].other);
  EXPECT_TRUE(found[1].read && !found[1].write);
  EXPECT_TRUE(found[2].not_forked && !found[2].not_dumped);
  EXPECT_TRUE(found[3].not_dumped && !found[3].read && !found[3].execute && !found[3].shared);
  os.unmap(p, 4 * page);
  const void* const locked = ::mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
  if (locked == MAP_FAILED) return;
  Mappings again;
  for (Mapping m; again.next(&m);) {
    const bool holds_it = m.start <= address(locked) && m.end > address(locked);
    EXPECT_TRUE(!holds_it || m.other);
  }
}

TEST(Threads, AllRecordsAreFound) {
  static std::vector<std::uintptr_t> found;
  found.clear();
  std::atomic<bool> stop{false};
  std::atomic<std::uintptr_t> other{0};
  std::thread thread([&] {
    other = address(__builtin_thread_pointer());
    while (!stop) std::this_thread::yield();
  });
  while (other == 0) std::this_thread::yield();
  EXPECT_TRUE(for_each_thread_record([](void* list, std::uintptr_t at) {
    static_cast<std::vector<std::uintptr_t>*>(list)->push_back(at);
  }, &found));
  const auto near = [&](std::uintptr_t p) {
    for (const std::uintptr_t at : found) {
      if (at - p < 8 * KiB) return true;
    }
    return false;
  };
  EXPECT_EQ(found.size(), process_facts().threads);
  EXPECT_TRUE(near(address(__builtin_thread_pointer())));
  EXPECT_TRUE(near(other));
#if defined(__SANITIZE_THREAD__)
  EXPECT_EQ(process_facts().threads, 3u) << "it starts one of its own with the first";
#else
  EXPECT_EQ(process_facts().threads, 2u);
#endif
  stop = true;
  thread.join();
}

TEST(Room, IsLessThanTheMachineHas) {
  const std::size_t room = room_of_process();
  EXPECT_GT(room, 0u);
  EXPECT_LT(room, std::size_t{1} << 50);
  EXPECT_LE(room, room_of_group());
}

TEST(Wiped, PageIsZeroInChildrenOnly) {
  auto* const word = static_cast<std::atomic<int>*>(map_wiped_page());
  if (word == nullptr) GTEST_SKIP() << "no MADV_WIPEONFORK";
  *word = 7;
  EXPECT_EXIT(::_exit(word->load()), testing::ExitedWithCode(0), "");
  EXPECT_EQ(*word, 7);
  os.unmap(word, kOsPageSize);
}

}  // namespace
}  // namespace nh
