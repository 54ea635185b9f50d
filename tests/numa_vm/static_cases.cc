// A static array that several nodes' threads fill: in one segment with nothing else of its size. Built once with an array that
// is too small for huge pages on four nodes, and once with one that is not.
#include "placement.h"

namespace {

constexpr std::size_t kPage = 4 * kKiB;
alignas(kHuge) unsigned char g_array[std::size_t{ARRAY_MIB} * kMiB];

std::size_t part() { return sizeof g_array / static_cast<std::size_t>(machine().cpus); }

void write_part(int cpu, void*) {
  unsigned char* const from = g_array + static_cast<std::size_t>(cpu) * part();
  for (std::size_t at = 0; at < part(); at += kPage) from[at] = 1;
}

void expect_parts_at_writers() {
  Census untouched;
  untouched.add(g_array, sizeof g_array);
  EXPECT(untouched.absent == untouched.total, "%s before the first write", untouched.text());
  on_all_cpus(write_part, nullptr);
  long right = 0, total = 0;
  for (int cpu = 0; cpu < machine().cpus; cpu++) {
    Census census;
    census.add(g_array + static_cast<std::size_t>(cpu) * part(), part());
    right += census.on[machine().home(cpu)];
    total += census.total;
  }
  EXPECT(right * 100 >= total * 99, "%ld of %ld pages lie with their writer", right, total);
}

}  // namespace

// Too small for our advice. On which pages it lies is the kernel's affair: here it makes huge ones unasked.
CASE(a_small_static_array_lies_with_its_writers) {
  expect_parts_at_writers();
  EXPECT(huge_bytes().hugetlb == 0);
}

CASE(a_static_array_lies_on_transparent_huge_pages_with_its_writers) {
  expect_parts_at_writers();
  EXPECT(huge_bytes().transparent >= sizeof g_array / 10 * 9, "%zu", huge_bytes().transparent);
}

CASE(a_static_array_lies_on_the_pools_with_its_writers) {
  expect_parts_at_writers();
  EXPECT(huge_bytes().hugetlb >= sizeof g_array / 10 * 9, "%zu", huge_bytes().hugetlb);
}
