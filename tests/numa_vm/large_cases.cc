// Large objects: where they are first written to. The threads are OpenMP's, as in the programs that this is for.
#include <cstdlib>

#include <omp.h>

#include "placement.h"

namespace {

constexpr std::size_t kPage = 4 * kKiB;

// About so many bytes: every thread's part is whole huge pages.
std::size_t whole_parts(std::size_t bytes) {
  const std::size_t step = static_cast<std::size_t>(machine().cpus) * kHuge;
  return (bytes + step - 1) / step * step;
}
std::size_t large() { return whole_parts(512 * kMiB); }

// Thread t of the team runs on CPU t, or on the last but t.
int cpu_of_thread(int thread, bool reversed) { return reversed ? machine().cpus - 1 - thread : thread; }

void write_in_parallel(unsigned char* array, std::size_t bytes, bool reversed) {
  const auto pages = static_cast<long>(bytes / kPage);
#pragma omp parallel num_threads(machine().cpus)
  {
    REQUIRE(omp_get_num_threads() == machine().cpus);
    pin(cpu_of_thread(omp_get_thread_num(), reversed));
#pragma omp for schedule(static)
    for (long page = 0; page < pages; page++) array[static_cast<std::size_t>(page) * kPage] = 1;
  }
}

// At least 99 % of each part on its writer's node.
void expect_parts_at_writers(const unsigned char* array, std::size_t bytes, bool reversed) {
  const std::size_t part = bytes / static_cast<std::size_t>(machine().cpus);
  for (int thread = 0; thread < machine().cpus; thread++) {
    const int node = machine().home(cpu_of_thread(thread, reversed));
    Census census;
    census.add(array + static_cast<std::size_t>(thread) * part, part);
    EXPECT(census.on[node] * 100 >= census.total * 99, "part %d, written on node %d: %s", thread, node, census.text());
  }
}

unsigned char* untouched_array(std::size_t bytes) {
  auto* array = static_cast<unsigned char*>(malloc(bytes));
  REQUIRE(array != nullptr);
  return array;
}

}  // namespace

CASE(an_array_lies_where_its_threads_write_first) {
  pin(0);
  unsigned char* array = untouched_array(large());
  Census untouched;
  untouched.add(array, large());
  EXPECT(untouched.absent == untouched.total, "%s before the first write", untouched.text());
  write_in_parallel(array, large(), false);
  expect_parts_at_writers(array, large(), false);
  free(array);
}

// The extent that was freed has its pages where other threads wanted them.
CASE(an_array_allocated_again_lies_where_its_threads_write_now) {
  pin(0);
  unsigned char* array = untouched_array(large());
  write_in_parallel(array, large(), false);
  free(array);
  pin(0);
  array = untouched_array(large());
  write_in_parallel(array, large(), true);
  expect_parts_at_writers(array, large(), true);
  free(array);
}

// Not with NUMAHEAP_HUGEPAGES=off: what was placed huge page by huge page is on huge pages.
CASE(the_pages_of_an_array_are_huge) {
  pin(0);
  unsigned char* array = untouched_array(large());
  write_in_parallel(array, large(), false);
  const std::size_t huge = bytes_on_huge_pages(array, large());
  EXPECT(huge * 100 >= large() * 99, "%zu of %zu bytes", huge, large());
  free(array);
}

CASE(calloc_leaves_the_placement_to_the_writers) {
  pin(0);
  const std::size_t bytes = whole_parts(64 * kMiB);
  auto* array = static_cast<unsigned char*>(calloc(bytes, 1));
  REQUIRE(array != nullptr);
  write_in_parallel(array, bytes, false);
  expect_parts_at_writers(array, bytes, false);
  free(array);
}
