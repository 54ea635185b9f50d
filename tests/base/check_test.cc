#include "base/check.h"

#include <cerrno>
#include <string>

#include <gtest/gtest.h>

namespace nh {
namespace {

std::string* g_lines = nullptr;

class LineSinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_lines = &lines_;
    set_line_sink([](const char* line, std::size_t length) {
      g_lines->append(line, length);
      errno = EBADF;  // as a failing write would leave it
    });
  }
  void TearDown() override { set_line_sink(nullptr); }
  std::string lines_;
};

TEST_F(LineSinkTest, WarningIsOneLineAndKeepsErrno) {
  errno = ENOMEM;
  warn_line("no huge pages");
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(lines_, "numaheap: no huge pages\n");
}

TEST_F(LineSinkTest, LongTextIsCutAndStillEndsItsLine) {
  const std::string text(5000, 'x');
  warn_line(text.c_str());
  EXPECT_EQ(lines_, "numaheap: " + text.substr(0, 1024) + "\n");
}

TEST(CheckDeathTest, FailureNamesPlaceConditionAndCause) {
  const int free_objects = 1;
  EXPECT_EXIT(NH_CHECK(free_objects == 0, "span is not empty"), ::testing::KilledBySignal(SIGABRT),
              "^numaheap: fatal: span is not empty \\(free_objects == 0 is false at check_test.cc:[0-9]+\\)\n");
}

TEST(CheckDeathTest, FatalAborts) {
  EXPECT_EXIT(fatal("double free"), ::testing::KilledBySignal(SIGABRT), "^numaheap: fatal: double free\n");
}

TEST(Check, TrueConditionsAreSilentAndEvaluatedOnce) {
  int evaluated = 0;
  NH_CHECK(++evaluated == 1, "must hold");
  EXPECT_EQ(evaluated, 1);
}

#ifdef NUMAHEAP_DEBUG
TEST(CheckDeathTest, AssertionsCountInDebugBuilds) {
  EXPECT_EXIT(NH_ASSERT(1 + 1 == 3), ::testing::KilledBySignal(SIGABRT), "assertion");
}
#else
TEST(Check, AssertionsAreNotEvaluatedInReleaseBuilds) {
  int evaluated = 0;
  NH_ASSERT(++evaluated == 7);
  EXPECT_EQ(evaluated, 0);
}
#endif

}  // namespace
}  // namespace nh
