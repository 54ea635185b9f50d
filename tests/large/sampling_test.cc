// How samples are drawn and what they stand for, and the table of places.
#include "process/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "os/os.h"

namespace nh {
namespace {

TEST(Sampling, LogarithmAndExponential) {
  for (double x = 1; x > 1e-16; x *= 0.97) {
    EXPECT_NEAR(natural_log(x), std::log(x), 1e-5) << x;
  }
  for (double x = 1e-9; x < 100; x *= 1.1) {
    EXPECT_NEAR(one_minus_exp(x) / -std::expm1(-x), 1, 1e-5) << x;
  }
}

TEST(Sampling, EstimatesAddUpToTheTruth) {
  constexpr std::uint64_t kInterval = 10000;
  g_sample_interval = kInterval;
  for (const std::size_t size : {1u, 50u, 1000u, 10000u, 100000u}) {
    const std::size_t count = 400'000'000 / (size + 9000);
    double objects = 0, bytes = 0;
    for (std::size_t i = 0; i < count; i++) {
      if (!draws_sample(size)) continue;
      const Estimate e = estimate_of(size);
      objects += static_cast<double>(e.objects) / kObjectUnit;
      bytes += static_cast<double>(e.bytes);
    }
    const double samples = static_cast<double>(count) * one_minus_exp(static_cast<double>(size) / kInterval);
    const double most = 6 / std::sqrt(samples + 1) + 0.001;
    EXPECT_NEAR(objects / static_cast<double>(count), 1, most) << size;
    EXPECT_NEAR(bytes / static_cast<double>(count * size), 1, most) << size;
  }
  g_sample_interval = 0;
  EXPECT_FALSE(draws_sample(std::size_t{1} << 40)) << "off";
}

const void* frame(std::uintptr_t value) { return reinterpret_cast<const void*>(value); }

TEST(Sites, AStackIsFoundAgain) {
  static Sites sites;
  ASSERT_TRUE(sites.init(linux_os()));
  const void* a[] = {frame(1), frame(2), frame(3)};
  const void* b[] = {frame(1), frame(2), frame(4)};
  Site* first = sites.find(a, 3);
  EXPECT_EQ(sites.find(a, 3), first);
  EXPECT_NE(sites.find(b, 3), first);
  EXPECT_NE(sites.find(a, 2), first) << "shorter";
  first->allocated({3 * kObjectUnit, 300});
  first->freed({kObjectUnit, 100});
  EXPECT_EQ(first->live().objects, 2 * kObjectUnit);
  EXPECT_EQ(first->live().bytes, 200u);
  EXPECT_EQ(first->all().bytes, 300u);
}

TEST(Sites, WhatFindsNoPlaceIsCountedTogether) {
  static Sites sites;
  ASSERT_TRUE(sites.init(linux_os()));
  Site* const others = &sites[0];
  unsigned found = 0;
  for (std::uintptr_t i = 1; i <= 2 * Sites::kMost; i++) {
    const void* stack[] = {frame(i)};
    Site* site = sites.find(stack, 1);
    site->allocated({kObjectUnit, 10});
    found += site != others;
  }
  EXPECT_EQ(found, Sites::kMost - 1) << "every place is taken";
  std::uint64_t bytes = 0;
  sites.for_each([&](const Site& site) { bytes += site.all().bytes; });
  EXPECT_EQ(bytes, 2 * Sites::kMost * 10);
}

TEST(Sites, ThreadsThatMeetAtOneStackLoseNothing) {
  static Sites sites;
  ASSERT_TRUE(sites.init(linux_os()));
  constexpr unsigned kThreads = 4, kRounds = 20000, kStacks = 1000;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; t++) {
    threads.emplace_back([] {
      for (unsigned i = 0; i < kRounds; i++) {
        const void* stack[] = {frame(1 + i % kStacks), frame(77)};
        sites.find(stack, 2)->allocated({kObjectUnit, 1});
      }
    });
  }
  for (std::thread& t : threads) t.join();
  std::uint64_t bytes = 0;
  sites.for_each([&](const Site& site) { bytes += site.all().bytes; });
  EXPECT_EQ(bytes, std::uint64_t{kThreads} * kRounds);
}

}  // namespace
}  // namespace nh
