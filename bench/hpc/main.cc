// One program with all rows except those that run under MPI (mpi_ring.cc).
#include <omp.h>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {

void pin_team() {
#pragma omp parallel
  pin_to_cpu(static_cast<std::size_t>(omp_get_thread_num()));
}

}  // namespace bench

int main(int argc, char** argv) {
  bench::Table table;
  bench::add_first_fill(table);
  bench::add_gups(table);
  bench::add_chase(table);
  bench::add_stream(table);
  bench::add_stencil(table);
  bench::add_lattice(table);
  bench::add_spmv(table);
  bench::add_lookup(table);
  bench::add_particles(table);
#ifdef NH_BENCH_FORTRAN
  bench::add_fortran(table);
#endif
  return bench::run_program(argc, argv, table);
}
