// Large objects: where they are first written to. The threads are OpenMP's, as in the programs that this is for.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

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

namespace {

// How often an array was kept off the pools for this reason.
bool has_reason(const char* name, int count) {
  static char json[64 * kKiB];
  REQUIRE(nh_stats_json(json, sizeof json) < static_cast<int>(sizeof json));
  char wanted[100];
  snprintf(wanted, sizeof wanted, "\"%s\": %d", name, count);
  return strstr(json, wanted) != nullptr;
}

// Where reservations are made on the pools' sum, each page all the same lies at its writer.
void expect_array_on_pools(std::size_t bytes) {
  pin(0);
  unsigned char* array = untouched_array(bytes);
  write_in_parallel(array, bytes, false);
  expect_parts_at_writers(array, bytes, false);
  EXPECT(huge_bytes().hugetlb >= bytes, "%zu of %zu bytes on the pools", huge_bytes().hugetlb, bytes);
  free(array);
}

}  // namespace

// No node need hold the whole array.
CASE(with_even_pools_arrays_lie_on_them) {
  for (const std::size_t mib : {192, 256}) expect_array_on_pools(mib * kMiB);
  for (const char* reason : {"hugetlb_dry", "hugetlb_short", "hugetlb_uneven", "hugetlb_policy"}) {
    EXPECT(!has_reason(reason, 1), "%s", reason);
  }
}

CASE(with_pools_on_the_nodes_that_have_cpus_arrays_lie_on_them) { expect_array_on_pools(96 * kMiB); }

// The pools as in_guest.py sets them: 128, 0, 64 and 4 pages.
CASE(the_statistics_tell_what_kept_an_array_off_the_pools) {
  pin(0);
  // Smaller ones do not ask for huge pages at first.
  free(untouched_array(192 * kMiB));
  EXPECT(has_reason("hugetlb_uneven", 1));
  free(untouched_array(512 * kMiB));
  EXPECT(has_reason("hugetlb_short", 1));
}

// Ordinary memory could not hold it, and the kernel would end the process with the pools' pages free.
CASE(with_pools_of_most_memory_an_array_lives_there) {
  const std::size_t pools = static_cast<std::size_t>(pool_pages(0, "free_hugepages") + pool_pages(1, "free_hugepages")) * kHuge;
  for (const std::size_t bytes : {pools * 4 / 5, pools + 16 * kHuge}) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      unsigned char* array = untouched_array(whole_parts(bytes));
      write_in_parallel(array, whole_parts(bytes), false);
      EXPECT(huge_bytes().hugetlb * 10 >= (bytes < pools ? bytes : pools) * 9, "%zu of %zu bytes", huge_bytes().hugetlb, bytes);
      _exit(failures() == 0 ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%zu bytes: status %x", bytes, static_cast<unsigned>(status));
  }
}
