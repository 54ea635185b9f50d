// Automatic NUMA balancing: the kernel moves pages after the CPUs that use them. It passes over mappings with a memory
// policy, and over huge pages of a pool.
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <initializer_list>

#include "placement.h"

namespace {

constexpr std::size_t kBytes = 16 * kMiB;  // of each kind of object

// Objects of one thread in its node's heap: small ones, large ones below the first-touch heap's, and such as get no pages of
// a pool. And as much that is not of our heap.
struct Work {
  Objects small{kBytes / 1000}, large{kBytes / (256 * kKiB)}, paged{kBytes / (16 * kKiB)};
  unsigned char* ordinary = nullptr;

  Work() {
    REQUIRE(small.allocate_same(kBytes / 1000, 1000) == kBytes / 1000);
    REQUIRE(large.allocate_same(kBytes / (256 * kKiB), 256 * kKiB) == kBytes / (256 * kKiB));
    // Their heap's first 2 MiB, which the program faults in, keep a preference for the node.
    for (std::size_t skipped = 0; paged.count < paged.capacity; skipped += 16 * kKiB) {
      void* p = nullptr;
      REQUIRE(posix_memalign(&p, 4 * kKiB, 16 * kKiB) == 0);
      if (skipped >= kHuge) paged.take(p, 16 * kKiB);
    }
    ordinary = static_cast<unsigned char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(ordinary != MAP_FAILED);
    use();
  }
  void use() const {
    for (const Objects* objects : {&small, &large, &paged}) objects->write();
    for (std::size_t at = 0; at < kBytes; at += 4 * kKiB) ordinary[at]++;
  }
  // Seconds, because the kernel looks at a process every second at first.
  void use_for_a_while() const {
    for (const time_t end = time(nullptr) + 10; time(nullptr) < end;) use();
  }
};

long percent_on(const Census& census, int node) { return census.on[node] * 100 / census.total; }

// What a thread that has moved to this node takes with it: as much as of ordinary memory, and nine tenths in any case.
void expect_to_follow(const Work& work, int node) {
  work.use_for_a_while();
  Census ordinary;
  ordinary.add(work.ordinary, kBytes);
  EXPECT(percent_on(ordinary, node) >= 90, "the kernel moved little, so this shows nothing: %s", ordinary.text());
  const char* const names[] = {"small", "large", "paged"};
  const Objects* const all[] = {&work.small, &work.large, &work.paged};
  for (int i = 0; i < 3; i++) {
    Census census;
    census.add(*all[i]);
    EXPECT(percent_on(census, node) >= 90, "%s: %s", names[i], census.text());
  }
}

// The policy of the memory at an address.
int policy_at(const void* p) {
  int mode = -1;
  REQUIRE(syscall(SYS_get_mempolicy, &mode, nullptr, 0ul, p, (unsigned long){MPOL_F_ADDR}) == 0);
  return mode;
}

}  // namespace

// From a node without huge pages in its pool.
CASE(with_numa_balancing_objects_follow_a_thread_that_moves) {
  const int from = 1;
  REQUIRE(pool_pages(from, "nr_hugepages") == 0, "not the pools of in_guest.py");
  pin(machine().first_cpu(from));
  const Work work;
  Census before;
  before.add(work.small);
  EXPECT_ALL_ON(before, from);
  pin(machine().cpus - 1);
  expect_to_follow(work, machine().home(machine().cpus - 1));
}

// On huge pages of a pool they stay, until a fork has moved them.
CASE(with_numa_balancing_objects_that_a_fork_took_off_the_pool_follow) {
  const int from = 0;
  pin(machine().first_cpu(from));
  const Work work;
  REQUIRE(heap_of(from).hugetlb_bytes >= kBytes, "not the pools of in_guest.py: %lu bytes", heap_of(from).hugetlb_bytes);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(0);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  REQUIRE(heap_of(from).hugetlb_bytes == 0, "%lu bytes", heap_of(from).hugetlb_bytes);
  Census before;
  before.add(work.small);
  EXPECT_ALL_ON(before, from);
  pin(machine().cpus - 1);
  expect_to_follow(work, machine().home(machine().cpus - 1));
}

// What the kernel may move, be it for balancing or out of slow memory.
CASE(memory_that_was_proven_has_no_policy) {
  const int node = 1;
  pin(machine().first_cpu(node));
  const Work work;
  std::size_t objects = 0, bound = 0;
  for (const Objects* all : {&work.small, &work.large, &work.paged}) {
    for (std::size_t i = 0; i < all->count; i++, objects++) bound += policy_at(all->list[i].p) != MPOL_DEFAULT;
  }
  EXPECT(objects > 10'000 && bound == 0, "%zu of %zu objects", bound, objects);
}
