// What the tests of the fake machine stand on.
#pragma once

#include <csetjmp>
#include <csignal>
#include <utility>

#include <gtest/gtest.h>

#include "base/bits.h"
#include "support/fake_os.h"

namespace nh::test {
namespace {

constexpr NodeId kNode0(0);
constexpr NodeId kNode1(1);

sigjmp_buf fault_jump;
[[maybe_unused]] void on_fault(int) { siglongjmp(fault_jump, 1); }

// Whether reading or writing the byte faults. In this process: the model does not see what a fork child does.
[[maybe_unused]] bool faults(volatile char* p, bool write) {
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

}  // namespace
}  // namespace nh::test
