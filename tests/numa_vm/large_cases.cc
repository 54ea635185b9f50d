// Large objects: where they are first written to.
#include <cstdlib>

#include "placement.h"

namespace {

constexpr std::size_t kBytes = 64 * kMiB;
constexpr std::size_t kPart = kBytes / kCpus;

// Each thread writes its part, as the static schedule of an OpenMP loop does.
void write_parts(int cpu, void* p) {
  auto* part = static_cast<unsigned char*>(p) + static_cast<std::size_t>(cpu) * kPart;
  for (std::size_t at = 0; at < kPart; at += 4 * kKiB) part[at] = 1;
}

// At least 99 % of each part on its writer's node: a huge page at the border of two parts may lie with either.
void expect_parts_at_writers(const unsigned char* array) {
  for (int cpu = 0; cpu < kCpus; cpu++) {
    Census census;
    census.add(array + static_cast<std::size_t>(cpu) * kPart, kPart);
    EXPECT(census.on[node_of_cpu(cpu)] * 100 >= census.total * 99,
           "part %d, written on node %d: of %ld pages %ld, %ld, %ld, %ld on nodes 0 to 3, %ld absent", cpu,
           node_of_cpu(cpu), census.total, census.on[0], census.on[1], census.on[2], census.on[3], census.absent);
  }
}

}  // namespace

CASE(an_array_lies_where_its_threads_write_first) {
  pin(0);
  auto* array = static_cast<unsigned char*>(malloc(kBytes));
  REQUIRE(array != nullptr);
  Census untouched;
  untouched.add(array, kBytes);
  EXPECT(untouched.absent == untouched.total, "%ld of %ld pages are there before the first write",
         untouched.total - untouched.absent, untouched.total);
  on_all_cpus(write_parts, array);
  expect_parts_at_writers(array);
  free(array);
}

CASE(calloc_leaves_the_placement_to_the_writers) {
  pin(0);
  auto* array = static_cast<unsigned char*>(calloc(kBytes, 1));
  REQUIRE(array != nullptr);
  on_all_cpus(write_parts, array);
  expect_parts_at_writers(array);
  free(array);
}
