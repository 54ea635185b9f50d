// Arrays of every size, by what the process is: one that spans nodes, where threads place them page by page, and one that is
// bound to a node.
#include <dlfcn.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include <omp.h>

#include "placement.h"

namespace {

constexpr std::size_t kPage = 4 * kKiB;
constexpr std::size_t kSizes[] = {512 * kKiB, kMiB, 1536 * kKiB, 3 * kMiB, 3900 * kKiB, 5 * kMiB, 24 * kMiB, 64 * kMiB};
constexpr std::size_t kReversedFrom = 24 * kMiB;  // smaller ones keep their pages when they are allocated again
constexpr std::size_t kMaxArrays = 3;

int cpu_of(int thread, bool reversed) { return reversed ? machine().cpus - 1 - thread : thread; }

// Each thread of the team, on a CPU of its own, writes its part of the pages from `from` on: its number, and 1.
void write_parts(unsigned char* array, std::size_t from, std::size_t bytes, bool reversed = false) {
  const auto first = static_cast<long>(from / kPage), pages = static_cast<long>(bytes / kPage);
#pragma omp parallel num_threads(machine().cpus)
  {
    const int thread = omp_get_thread_num();
    pin(cpu_of(thread, reversed));
#pragma omp for schedule(static)
    for (long page = first; page < pages; page++) {
      array[static_cast<std::size_t>(page) * kPage] = static_cast<unsigned char>(thread + 1);
    }
  }
  pin(0);
}

// How much of it lies on the node of the thread that wrote it, in percent.
double percent_right(const unsigned char* array, std::size_t from, std::size_t bytes, bool reversed = false) {
  const std::size_t pages = bytes / kPage;
  long right = 0, all = 0;
  for (std::size_t page = from / kPage; page < pages;) {
    const unsigned char thread = array[page * kPage];
    std::size_t end = page;
    while (end < pages && array[end * kPage] == thread) end++;
    Census census;
    census.add(array + page * kPage, (end - page) * kPage);
    right += census.on[machine().home(cpu_of(thread - 1, reversed))];
    all += census.total;
    page = end;
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(all);
}

unsigned char* new_array(std::size_t bytes, bool zeroed) {
  auto* array = static_cast<unsigned char*>(zeroed ? calloc(bytes, 1) : malloc(bytes));
  REQUIRE(array != nullptr);
  return array;
}

void allocate_write_and_free(std::size_t bytes, bool zeroed, bool reversed) {
  unsigned char* arrays[kMaxArrays];
  const std::size_t count = bytes < kReversedFrom ? kMaxArrays : 1;
  for (std::size_t i = 0; i < count; i++) arrays[i] = new_array(bytes, zeroed);
  for (std::size_t i = 0; i < count; i++) {
    // A few: every page that is read before it is written costs the emulated CPUs an interrupt each.
    for (std::size_t at = 0; zeroed && at < bytes; at += bytes / 3) REQUIRE(arrays[i][at] == 0, "byte %zu of %zu", at, bytes);
    write_parts(arrays[i], 0, bytes, reversed);
  }
  for (std::size_t i = 0; i < count; i++) {
    const double right = percent_right(arrays[i], 0, bytes, reversed);
    EXPECT(right >= 98, "%zu KiB, array %zu%s%s: %.1f %%", bytes / kKiB, i, zeroed ? ", zeroed" : "",
           reversed ? ", reversed" : "", right);
    free(arrays[i]);
  }
}

void arrays_lie_where_they_are_written(bool zeroed) {
  pin(0);
  for (const std::size_t bytes : kSizes) {
    for (int round = 0; round < 2; round++) allocate_write_and_free(bytes, zeroed, false);
    if (bytes >= kReversedFrom) allocate_write_and_free(bytes, zeroed, true);
  }
}

}  // namespace

CASE(arrays_of_every_size_lie_where_their_threads_write) { arrays_lie_where_they_are_written(false); }
// Reading does not place a page.
CASE(arrays_of_zeroes_lie_where_their_threads_write) { arrays_lie_where_they_are_written(true); }

CASE(arrays_with_an_alignment_lie_where_their_threads_write) {
  pin(0);
  for (const std::size_t alignment : {std::size_t{64}, 4 * kKiB, 64 * kKiB, kHuge}) {
    for (const std::size_t bytes : {768 * kKiB, 6 * kMiB}) {
      void* p = nullptr;
      REQUIRE(posix_memalign(&p, alignment, bytes) == 0);
      auto* array = static_cast<unsigned char*>(p);
      write_parts(array, 0, bytes);
      const double right = percent_right(array, 0, bytes);
      EXPECT(right >= 98, "%zu KiB at %zu: %.1f %%", bytes / kKiB, alignment, right);
      free(p);
    }
  }
}

CASE(arrays_that_grow_lie_where_their_threads_write) {
  pin(0);
  for (const std::size_t from : {64 * kKiB, kMiB, 3 * kMiB}) {
    unsigned char* array = new_array(from, false);
    memset(array, 1, from);
    array = static_cast<unsigned char*>(realloc(array, 64 * kMiB));
    REQUIRE(array != nullptr);
    for (std::size_t at = 0; at < from; at += 64) REQUIRE(array[at] == 1);
    write_parts(array, from, 64 * kMiB);
    const double right = percent_right(array, from, 64 * kMiB);
    EXPECT(right >= 98, "from %zu KiB: %.1f %%", from / kKiB, right);
    free(array);
  }
}

// A thread that goes to another node at 16 MiB has what it appends from then on there.
CASE(arrays_that_grow_lie_where_their_thread_has_gone) {
  int last = machine().nodes - 1;
  while (machine().first_cpu(last) < 0) last--;
  pin(machine().first_cpu(1));
  std::size_t bytes = 4 * kKiB;
  auto* array = new_array(bytes, false);
  memset(array, 1, bytes);
  while (bytes < 384 * kMiB) {
    const std::size_t more = bytes * 3 / 2;
    array = static_cast<unsigned char*>(realloc(array, more));
    REQUIRE(array != nullptr);
    memset(array + bytes, 1, more - bytes);
    bytes = more;
    if (bytes > 16 * kMiB) pin(machine().first_cpu(last));
  }
  Census census;
  census.add(array, bytes);
  const int home = machine().home(machine().first_cpu(last));  // it may have no memory of its own
  EXPECT(census.on[home] * 100 >= census.total * 95, "%s", census.text());
}

// Pages of what is freed and asked for again are kept, and nothing is faulted in.
CASE(arrays_of_a_loop_keep_their_pages) {
  pin(machine().first_cpu(machine().nodes - 1));
  for (const std::size_t bytes : {128 * kKiB, kMiB, 3 * kMiB}) {
    unsigned char* arrays[kMaxArrays];
    const auto round = [&] {
      for (auto& array : arrays) memset(array = new_array(bytes, false), 1, bytes);
      for (auto& array : arrays) free(array);
    };
    for (int i = 0; i < 20; i++) round();
    rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < 20; i++) round();
    getrusage(RUSAGE_SELF, &after);
    EXPECT(after.ru_minflt - before.ru_minflt < 20, "%zu KiB: %ld faults", bytes / kKiB, after.ru_minflt - before.ru_minflt);
  }
}

// ---- huge pages ------------------------------------------------------------------------------------------------------

// NUMAHEAP_SCAVENGE_DELAY=400ms. The arrays are there before the program has any thread, and nothing is allocated later.
CASE(with_a_short_delay_arrays_that_rest_become_huge) {
  pin(0);
  constexpr std::size_t kBytes = 64 * kMiB;
  unsigned char* array = new_array(kBytes, false);
  write_parts(array, 0, kBytes);
  std::size_t huge = 0;
  for (int i = 0; i < 300 && huge * 100 < kBytes * 95; i++) {
    usleep(100000);
    huge = huge_bytes().transparent;
  }
  EXPECT(huge * 100 >= kBytes * 90, "%zu of %zu bytes", huge, kBytes);
  const double right = percent_right(array, 0, kBytes);
  EXPECT(right >= 98, "%.1f %%", right);
  free(array);
}

// ---- a process that is bound to node 3 -------------------------------------------------------------------------------

// Its pool has 40 huge pages, those of the others as many.
CASE(with_a_process_on_node_3_arrays_lie_on_its_pool) {
  constexpr std::size_t kBytes = 32 * kMiB;
  unsigned char* first = new_array(kBytes, false);
  memset(first, 1, kBytes);
  EXPECT(huge_bytes().hugetlb >= kBytes, "%zu bytes on the pool", huge_bytes().hugetlb);
  // More than is left.
  unsigned char* second = new_array(3 * kBytes, true);
  memset(second, 1, 3 * kBytes);
  EXPECT(pool_pages(3, "free_hugepages") <= 1, "%ld pages are left", pool_pages(3, "free_hugepages"));
  EXPECT(huge_bytes().transparent >= kBytes + kBytes / 2, "%zu bytes on THP", huge_bytes().transparent);
  Census census;
  census.add(first, kBytes);
  census.add(second, 3 * kBytes);
  EXPECT_ALL_ON(census, 3);
  for (int node = 0; node < 3; node++) EXPECT(pool_pages(node, "free_hugepages") == 40, "node %d", node);
  free(first);
  free(second);
}

// A malloc that nobody writes to costs no memory of the node.
CASE(with_a_process_on_node_3_arrays_are_not_faulted_in) {
  const long before = status_kib("VmRSS");
  void* arrays[16];
  for (auto& array : arrays) REQUIRE((array = malloc(16 * kMiB)) != nullptr);
  const long grown = status_kib("VmRSS") - before;
  EXPECT(grown < 4 * 1024, "%ld KiB", grown);
}

// Started on the CPUs of node 0 alone.
CASE(with_node_0_at_the_start_a_process_may_turn_out_to_span_nodes) {
  using Rebind = int (*)();
  const auto rebind = reinterpret_cast<Rebind>(dlsym(RTLD_DEFAULT, "numaheap_rebind"));
  REQUIRE(rebind != nullptr, "not on numaheap");
  const auto part_on_node_3 = [](std::size_t bytes) {
    pin(0);
    unsigned char* array = new_array(bytes, false);
    pin(machine().first_cpu(3));
    memset(array, 1, bytes);
    Census census;
    census.add(array, bytes);
    free(array);
    return census.on[3] * 100 / census.total;
  };
  unsigned char* early = new_array(24 * kMiB, false);
  pin(machine().first_cpu(3));
  memset(early, 1, 24 * kMiB);
  Census bound;
  bound.add(early, 24 * kMiB);
  EXPECT_ALL_ON(bound, 0);
  free(early);
  // A thread has asked for memory on node 3.
  free(malloc(100 * kMiB));
  for (const std::size_t bytes : {kMiB, 24 * kMiB}) EXPECT(part_on_node_3(bytes) >= 99, "%zu", bytes);
  // Until it is said that nothing of it was meant.
  pin(0);
  EXPECT(rebind() == 0);
  unsigned char* late = new_array(24 * kMiB, false);
  memset(late, 1, 24 * kMiB);
  Census again;
  again.add(late, 24 * kMiB);
  EXPECT_ALL_ON(again, 0);
}
