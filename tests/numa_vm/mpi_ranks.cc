// Ranks of an MPI program, each bound to a node of its own by the launcher: their memory is local, though all of them want
// more huge pages than the pools hold, and they exchange buffers of the heap. Under mpirun, not run_cases.py.
#include <mpi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "placement.h"

namespace {

int my_node() {
  unsigned cpu = 0, node = 0;
  REQUIRE(syscall(SYS_getcpu, &cpu, &node, nullptr) == 0);
  return static_cast<int>(node);
}

}  // namespace

CASE(ranks_stay_on_their_nodes) {
  MPI_Init(nullptr, nullptr);
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  REQUIRE(ranks == machine().nodes, "%d ranks", ranks);
  const int node = my_node();
  int nodes[kMaxNodes];
  MPI_Allgather(&node, 1, MPI_INT, nodes, 1, MPI_INT, MPI_COMM_WORLD);
  for (int other = 0; other < rank; other++) EXPECT(nodes[other] != node, "ranks %d and %d are both on node %d", other, rank, node);

  constexpr std::size_t kCount = 640, kBytes = 64 * kKiB, kArray = 16 * kMiB;
  Objects objects(kCount + 2);
  REQUIRE(objects.allocate_same(kCount, kBytes) == kCount);
  objects.take(malloc(kArray), kArray);
  objects.take(malloc(kArray), kArray);
  objects.write();
  MPI_Barrier(MPI_COMM_WORLD);
  Census census;
  census.add(objects);
  EXPECT_ALL_ON(census, node);
  EXPECT(pool_pages(node, "nr_hugepages") == 0 || pool_pages(node, "free_hugepages") < pool_pages(node, "nr_hugepages"),
         "rank %d uses no huge page of its node's pool", rank);

  // A buffer goes around, from heap to heap.
  unsigned char* out = objects.list[kCount].p;
  unsigned char* in = objects.list[kCount + 1].p;
  fill_pattern(out, kArray, static_cast<std::uint64_t>(rank));
  const int to = (rank + 1) % ranks, from = (rank + ranks - 1) % ranks;
  MPI_Sendrecv(out, kArray, MPI_BYTE, to, 0, in, kArray, MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  EXPECT(verify_pattern(in, kArray, static_cast<std::uint64_t>(from)) == kArray, "rank %d got something else", rank);
  MPI_Barrier(MPI_COMM_WORLD);
  objects.free_all();
  // All ranks end in the same way, so that the launcher has nothing to say about those that did well.
  int failed = failures(), all = 0;
  MPI_Allreduce(&failed, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  printf("rank %d has %d failures\n", rank, failed);
  EXPECT(all == 0);
}
