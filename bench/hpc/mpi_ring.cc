// Ring exchange under MPI: every rank sends to its right neighbour what it receives from its left one, in messages of
// 64 B to 8 MiB whose buffers come from malloc and go back after use.
//
// Shows the allocator together with a message layer: buffers are handed to the kernel (one process reads the other's
// memory page by page), registered with and freed under MPI's own bookkeeping, and fresh again in the next round where
// the allocator has given them back.
//
// Started without mpirun the program becomes `mpirun -np 2` of itself; rank 0 prints the result. The ranks inherit the
// environment, LD_PRELOAD included, as mpirun itself does.
#include <mpi.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>

#include "hpc/arrays.h"

namespace bench {
namespace {

constexpr char kRow[] = "mpi/ring";
constexpr char kUnit[] = "ms/round";
constexpr const char* kAsRank = "--rank";  // first argument of a rank

struct Message {
  Array<unsigned char> out, in;
  std::size_t bytes;
};

// Half of the messages up to 16 KiB, a tenth above 2 MiB.
std::size_t random_bytes(Random& random) {
  const double exponent = 6 + 17 * random_real(random);
  return static_cast<std::size_t>(std::exp2(exponent));
}

// One round of messages, eight in flight at a time. Returns a sum over what was received.
std::uint64_t exchange(int rank, int ranks, std::uint64_t round) {
  constexpr int kMessages = 96;
  constexpr int kInFlight = 8;
  const int left = (rank + ranks - 1) % ranks, right = (rank + 1) % ranks;
  Random random(round);  // the same sizes on all ranks
  std::uint64_t sum = 0;
  for (int first = 0; first < kMessages; first += kInFlight) {
    std::array<Message, kInFlight> messages;
    std::array<MPI_Request, 2 * kInFlight> requests;
    for (int i = 0; i < kInFlight; i++) {
      Message& message = messages[i];
      message.bytes = random_bytes(random);
      message.in = make_array<unsigned char>(message.bytes);
      message.out = make_array<unsigned char>(message.bytes);
      std::memset(message.out.get(), rank + i + 1, message.bytes);
      const int count = static_cast<int>(message.bytes);
      MPI_Irecv(message.in.get(), count, MPI_BYTE, left, i, MPI_COMM_WORLD, &requests[2 * i]);
      MPI_Isend(message.out.get(), count, MPI_BYTE, right, i, MPI_COMM_WORLD, &requests[2 * i + 1]);
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    for (const Message& message : messages) {
      for (std::size_t at = 0; at < message.bytes; at += 64) sum += message.in[at];
    }
    sample_memory();
  }
  return sum;
}

int run_rank(const Run& run) {
  MPI_Init(nullptr, nullptr);
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  std::uint64_t round = 0, sum = 0;
  const double ns = median_ns(static_cast<int>(run.choose(25, 3)), [&] {
    MPI_Barrier(MPI_COMM_WORLD);
    sum += exchange(rank, ranks, round++);
  });
  Checksum checksum;
  checksum.add(sum);
  if (rank == 0) print_result(kRow, kUnit, {ns / 1e6, checksum.text()});
  MPI_Finalize();
  return 0;
}

// Does not return where it succeeds. The settings let Open MPI run as root, and on fewer CPUs than ranks; others ignore
// them.
void become_mpirun(const char* program, const Run& run) {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
  const char* const arguments[] = {NH_BENCH_MPIRUN, "-np", "2", program, kAsRank, run.quick ? "--quick" : nullptr,
                                   nullptr};
  execv(NH_BENCH_MPIRUN, const_cast<char* const*>(arguments));
  throw std::system_error(errno, std::generic_category(), NH_BENCH_MPIRUN);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  using namespace bench;
  if (argc >= 2 && std::string_view(argv[1]) == kAsRank) {
    Run run;
    run.quick = argc >= 3 && std::string_view(argv[2]) == "--quick";
    return run_rank(run);
  }
  Table table;
  if (access(NH_BENCH_MPIRUN, X_OK) == 0) {
    table.push_back({kRow, kUnit, "two ranks exchange 96 messages of 64 B to 8 MiB in buffers from malloc",
                     [argv](const Run& run) -> Result {
                       become_mpirun(argv[0], run);
                       return {};
                     }});
  }
  return run_program(argc, argv, table);
}
