// Automatic NUMA balancing: the kernel moves pages after the CPUs that use them, memory that is bound excepted.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>

#include "placement.h"

namespace {

constexpr std::size_t kCount = 200, kBytes = 64 * kKiB;

struct Work {
  Objects* objects;
  unsigned char* ordinary;  // as much, and not of our heap: the kernel may move it
};

void use_for_a_while(int, void* p) {
  const Work& work = *static_cast<Work*>(p);
  // Seconds, because the kernel looks at a process every second at first.
  for (const time_t end = time(nullptr) + 8; time(nullptr) < end;) {
    work.objects->write();
    for (std::size_t at = 0; at < kCount * kBytes; at += 4 * kKiB) work.ordinary[at]++;
  }
}

}  // namespace

// Node 0's objects, used by the far node alone for seconds. That the kernel was at it shows by memory of no heap.
CASE(with_numa_balancing_objects_stay_on_their_node) {
  Objects objects(kCount);
  pin(0);
  REQUIRE(objects.allocate_same(kCount, kBytes) == kCount);
  objects.write();
  void* ordinary = mmap(nullptr, kCount * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(ordinary != MAP_FAILED);
  Work work = {&objects, static_cast<unsigned char*>(ordinary)};
  for (std::size_t at = 0; at < kCount * kBytes; at += 4 * kKiB) work.ordinary[at] = 1;
  const int far = machine().cpus - 1;
  on_cpu(far, use_for_a_while, &work);
  Census moved, stayed;
  moved.add(ordinary, kCount * kBytes);
  EXPECT(moved.on[machine().home(far)] > 0, "the kernel moved nothing, so this shows nothing: %s", moved.text());
  stayed.add(objects);
  EXPECT_ALL_ON(stayed, machine().home(0));
}
