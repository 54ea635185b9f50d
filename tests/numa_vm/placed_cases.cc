// Objects that were asked for at a certain place: wherever the thread runs that asks, and whoever writes to them first.
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

#include "placed.h"
#include "placement.h"

namespace {

constexpr std::size_t kLargest = 256 * kKiB;

using OnNode = void* (*)(std::size_t bytes, int node);

void add(Objects& objects, void* p, std::size_t bytes) {
  REQUIRE(p != nullptr, "%zu bytes, errno %d", bytes, errno);
  objects.list[objects.count++] = {static_cast<unsigned char*>(p), bytes};
}

// `n` objects of 16 B to 256 KiB, evenly over the powers of two, on a node.
void place(Objects& objects, std::size_t n, OnNode on_node, int node, std::uint64_t seed) {
  for (std::size_t i = 0; i < n; i++) {
    const std::size_t low = std::size_t{16} << next_random(&seed) % 14;
    const std::size_t bytes = low + next_random(&seed) % low + 1;
    add(objects, on_node(bytes, node), bytes);
  }
}

// numaheap_node_of() says of each page what move_pages does.
void expect_node_of_agrees(const Objects& objects) {
  for (std::size_t i = 0; i < objects.count; i++) {
    for (std::size_t at = 0; at < objects.list[i].bytes; at += 64 * kKiB) {
      Census one;
      one.add(objects.list[i].p + at, 1);
      const int node = api().node_of(objects.list[i].p + at);
      EXPECT(node >= 0 && one.on[node] == 1, "node_of says %d", node);
    }
  }
}

void expect_placed_on_all_nodes(OnNode on_node) {
  for (const int cpu : {0, 5}) {
    pin(cpu);
    for (int node = kNodes - 1; node >= 0; node--) {
      Objects objects(700);
      place(objects, 600, on_node, node, static_cast<unsigned>(node));
      add(objects, on_node(6 * kMiB, node), 6 * kMiB);
      add(objects, on_node(20 * kMiB, node), 20 * kMiB);
      objects.write();
      Census census;
      census.add(objects);
      EXPECT_ALL_ON(census, node);
      expect_node_of_agrees(objects);
      objects.free_all();
      // What comes out of this CPU's lists lies there, too.
      place(objects, 600, on_node, node, static_cast<unsigned>(node));
      objects.write();
      Census again;
      again.add(objects);
      EXPECT_ALL_ON(again, node);
      objects.free_all();
    }
  }
}

void expect_even_shares(const Census& census, long percent) {
  for (int node = 0; node < kNodes; node++) {
    const long share = census.total / kNodes;
    EXPECT(census.on[node] * 100 >= share * (100 - percent) && census.on[node] * 100 <= share * (100 + percent),
           "node %d: %ld of %ld pages", node, census.on[node], census.total);
  }
}

}  // namespace

CASE(objects_placed_on_a_node_lie_there) { expect_placed_on_all_nodes(api().on_node); }
CASE(objects_placed_strictly_lie_there) { expect_placed_on_all_nodes(api().on_node_strict); }

// The first ones of a node's heap lie in its first unit, which is not populated beforehand.
CASE(objects_placed_first_lie_there_too) {
  pin(0);
  for (const OnNode on_node : {api().on_node_strict, api().on_node}) {
    for (int node = 0; node < kNodes; node++) {
      Objects objects(10);
      for (const std::size_t bytes : {40, 1000, 30000}) add(objects, on_node(bytes, node), bytes);
      objects.write();
      Census census;
      census.add(objects);
      EXPECT_ALL_ON(census, node);
    }
  }
}

CASE(objects_placed_by_all_cpus_at_once_lie_on_their_nodes) {
  static Objects* lists[kCpus];
  for (auto& list : lists) list = new Objects(4 * 300);
  on_all_cpus([](int cpu, void*) {
    for (int node = 0; node < kNodes; node++) {
      place(*lists[cpu], 300, api().on_node, node, static_cast<unsigned>(cpu * kNodes + node));
    }
  }, nullptr);
  pin(3);
  for (const auto* list : lists) {
    list->write();
    for (int node = 0; node < kNodes; node++) {
      Census census;
      for (std::size_t i = 0; i < 300; i++) {
        const Objects::Object& object = list->list[static_cast<std::size_t>(node) * 300 + i];
        census.add(object.p, object.bytes);
      }
      EXPECT_ALL_ON(census, node);
    }
  }
}

CASE(objects_placed_keep_their_node_in_realloc) {
  pin(0);
  for (const int node : {1, 3}) {
    Objects object(1);
    add(object, api().on_node(10, node), 10);
    object.fill(8);
    for (const std::size_t bytes : {kKiB / 5, 9 * kKiB, 60 * kKiB, 3 * kMiB, 12 * kMiB, 24 * kMiB, 5 * kKiB, 6 * kMiB}) {
      const std::size_t kept = bytes < object.list[0].bytes ? bytes : object.list[0].bytes;
      void* moved = realloc(object.list[0].p, bytes);
      REQUIRE(moved != nullptr);
      EXPECT(verify_pattern(moved, kept, 8) == kept, "%zu bytes", bytes);
      object.list[0] = {static_cast<unsigned char*>(moved), bytes};
      object.fill(8);
      Census census;
      census.add(object);
      EXPECT_ALL_ON(census, node);
    }
    object.free_all();
  }
}

// Whole arrays are spread huge page by huge page; and they stay spread when they move.
CASE(objects_placed_interleaved_are_spread) {
  pin(2);
  Objects array(1);
  add(array, api().interleaved(96 * kMiB), 96 * kMiB);
  array.write();
  Census census;
  census.add(array);
  expect_even_shares(census, 10);  // one huge page more or less of 12
  void* grown = realloc(array.list[0].p, 192 * kMiB);
  REQUIRE(grown != nullptr);
  array.list[0] = {static_cast<unsigned char*>(grown), 192 * kMiB};
  array.write();
  Census after;
  after.add(array);
  expect_even_shares(after, 5);
  array.free_all();

  Objects small(12000);
  for (int i = 0; i < 12000; i++) add(small, api().interleaved(8 * kKiB), 8 * kKiB);
  small.write();
  Census pages;
  pages.add(small);
  expect_even_shares(pages, 25);
}

CASE(objects_placed_by_first_touch_lie_with_their_writers) {
  pin(7);
  static constexpr std::size_t kSizes[] = {100 * kKiB, 4 * kMiB};
  static unsigned char* blocks[2][kCpus];
  for (int s = 0; s < 2; s++) {
    for (auto& block : blocks[s]) {
      block = static_cast<unsigned char*>(api().first_touch(kSizes[s]));
      REQUIRE(block != nullptr);
      EXPECT(api().node_of(block) == -1 && errno == ENOENT, "touched already");
    }
  }
  on_all_cpus([](int cpu, void*) {
    for (int s = 0; s < 2; s++) memset(blocks[s][cpu], 1, kSizes[s]);
  }, nullptr);
  for (int s = 0; s < 2; s++) {
    for (int cpu = 0; cpu < kCpus; cpu++) {
      Census census;
      census.add(blocks[s][cpu], kSizes[s]);
      EXPECT_ALL_ON(census, node_of_cpu(cpu));
      EXPECT(api().node_of(blocks[s][cpu] + kSizes[s] / 2) == node_of_cpu(cpu));
      free(blocks[s][cpu]);
    }
  }
}

// Large ones too, which malloc would leave to their writer.
CASE(objects_placed_locally_lie_with_the_thread_that_asked) {
  Objects objects(4);
  on_cpu(5, [](int cpu, void* p) {
    EXPECT(api().local_node() == node_of_cpu(cpu), "%d", api().local_node());
    for (const std::size_t bytes : {100 * std::size_t{1}, 50 * kKiB, 10 * kMiB}) {
      add(*static_cast<Objects*>(p), api().local(bytes), bytes);
    }
  }, &objects);
  pin(0);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, node_of_cpu(5));
}

// Strict requests stop where node 2 is full; others go on to its nearest neighbour, node 3.
CASE(a_full_node_refuses_strict_placement_only) {
  constexpr std::size_t kMedium = 64 * kKiB;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    pin(0);
    Objects strict(1300 * kMiB / kMedium), others(300);
    while (void* p = api().on_node_strict(kMedium, 2)) {
      REQUIRE(strict.count < strict.capacity, "node 2 has 1 GiB");
      add(strict, p, kMedium);
    }
    EXPECT(errno == ENOMEM, "errno %d", errno);
    EXPECT(strict.count * kMedium >= 300 * kMiB, "%zu MiB", strict.count * kMedium / kMiB);
    strict.write();
    Census census;
    census.add(strict);
    EXPECT_ALL_ON(census, 2);
    errno = 0;
    EXPECT(api().on_node_strict(100 * kMiB, 2) == nullptr && errno == ENOMEM, "errno %d", errno);
    for (std::size_t i = 0; i < others.capacity; i++) add(others, api().on_node(kMedium, 2), kMedium);
    others.write();
    Census helped;
    helped.add(others);
    EXPECT_ALL_ON(helped, 3);
    for (std::size_t i = 0; i < 20; i++) free(strict.list[--strict.count].p);
    void* again = api().on_node_strict(kMedium, 2);
    EXPECT(again != nullptr, "what was freed can be had again");
    _exit(failures() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

CASE(the_nodes_of_the_machine_may_be_asked_for) {
  REQUIRE(api().node_count() == kNodes, "%u", api().node_count());
  for (int node = 0; node < kNodes; node++) EXPECT(api().node_id(static_cast<unsigned>(node)) == node);
  errno = 0;
  EXPECT(api().on_node(100, kNodes) == nullptr && errno == EINVAL, "errno %d", errno);
}

// numactl --cpunodebind=3 --membind=3
CASE(with_a_binding_to_node_3_no_other_may_be_asked_for) {
  REQUIRE(api().node_count() == 1 && api().node_id(0) == 3);
  errno = 0;
  EXPECT(api().on_node(100, 2) == nullptr && errno == EPERM, "errno %d", errno);
  Objects objects(3);
  add(objects, api().on_node_strict(10 * kMiB, 3), 10 * kMiB);
  add(objects, api().interleaved(30 * kMiB), 30 * kMiB);
  add(objects, api().local(kLargest), kLargest);
  objects.write();
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, 3);
}
