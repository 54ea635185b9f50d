// The workloads of bench/hpc, a file each: what a row does and shows is told at the head of its file.
#pragma once

#include "common/workload.h"

namespace bench {

void add_first_fill(Table& table);
void add_gups(Table& table);
void add_chase(Table& table);
void add_stream(Table& table);
void add_stencil(Table& table);
void add_lattice(Table& table);
void add_spmv(Table& table);
void add_lookup(Table& table);
void add_particles(Table& table);
void add_fortran(Table& table);

}  // namespace bench
